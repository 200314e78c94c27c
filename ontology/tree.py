"""The graph above the synsets of a dataset, and the tree of objects cut out of it.

Works on synsets (thousands), never on mentions (millions); those are counted in SQL. Synsets that
photographs do not tell apart (``merges.tsv``) are one node: the graph knows only the second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace

from .tables import merged_synsets
from .wordnet import PHYSICAL, ROOT, Synset, WordNet


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """The mentioned synsets and all their ancestors.

    Attributes:
        synsets: by name, sorted by name.
        parent: the primary parent of each: of its hypernyms, one under ``physical_entity.n.01``
            before any other, then the deepest below the root, then the first by name
            (kinds before instances); None for the root.
        depth: steps to the root along the primary parents.
    """

    synsets: Mapping[str, Synset]
    parent: Mapping[str, str | None]
    depth: Mapping[str, int]

    def hypernyms(self, name: str) -> tuple[str, ...]:
        """List the direct hypernyms; a synset without any hangs below the root."""
        return _hypernyms(self.synsets[name])

    def lineage(self, name: str) -> list[str]:
        """List a synset and its primary ancestors, up to the root."""
        line = [name]
        while (parent := self.parent[line[-1]]) is not None:
            line.append(parent)
        return line

    def distances(self, name: str) -> dict[str, int]:
        """Map every ancestor over all hypernyms, and the synset itself, to its distance."""
        found, level, distance = {name: 0}, [name], 0
        while level:
            distance += 1
            above = [h for s in level for h in self.hypernyms(s) if h not in found]
            level = list(dict.fromkeys(above))
            found.update(dict.fromkeys(level, distance))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectTree:
    """Objects numbered densely from the root (0), parents before children, by depth then by name.

    Attributes:
        synsets: the synset of each object.
        parents: the object above each; -1 for the root.
        depths: steps to the root in this tree.
        nearest: for every synset of the graph the object at or above it.
    """

    synsets: list[str]
    parents: list[int]
    depths: list[int]
    nearest: Mapping[str, int]

    def lineage(self, number: int) -> list[int]:
        """List an object and its ancestors, up to the root."""
        line = [number]
        while (parent := self.parents[line[-1]]) >= 0:
            line.append(parent)
        return line


def usable_merges(wordnet: WordNet, merges: Mapping[str, str]) -> dict[str, str]:
    """Keep the merges that this WordNet knows, and that put no synset above itself."""
    usable: dict[str, str] = {}
    for synset, into in sorted(merges.items()):
        known = wordnet.resolve(synset) == synset and wordnet.resolve(into) == into
        if known and into not in merges and not _closes_a_circle(wordnet, usable, synset, into):
            usable[synset] = into
    return usable


def _closes_a_circle(wordnet: WordNet, merges: Mapping[str, str], synset: str, into: str) -> bool:
    """Say whether what stands for a synset would lie below it, after the merges so far."""
    above, todo = set(), [into]
    while todo:
        name = todo.pop()
        if name not in above:
            above.add(name)
            todo += [merges.get(h, h) for h in wordnet.hypernyms(name)]
    return synset in above


def table_merges(wordnet: WordNet) -> dict[str, str]:
    """The merges of ``merges.tsv`` that this WordNet allows."""
    return usable_merges(wordnet, {s: kept for s, (kept, _) in merged_synsets().items()})


def build_graph(
    wordnet: WordNet, mentioned: Iterable[str], merges: Mapping[str, str] | None = None
) -> Graph:
    """Read the mentioned synsets and everything above them.

    Args:
        merges: from ``usable_merges``: a synset's name -> the one that stands for both.
    """
    into = merges or {}
    synsets: dict[str, Synset] = {}
    todo = sorted({*(into.get(name, name) for name in mentioned), ROOT})
    while todo:
        name = todo.pop()
        if name not in synsets:
            synsets[name] = _merge_above(wordnet.synset(name), into)
            todo.extend(_hypernyms(synsets[name]))
    depth: dict[str, int] = {}
    parent: dict[str, str | None] = {}
    for name in sorted(synsets):
        _place(name, synsets, parent, depth)
    ordered = {name: synsets[name] for name in sorted(synsets)}
    return Graph(synsets=ordered, parent=parent, depth=depth)


def only_children(graph: Graph, candidates: Set[str]) -> dict[str, str]:
    """Map each candidate with exactly one candidate among its primary children to that child."""
    children: dict[str, list[str]] = {}
    for name in sorted(candidates):
        parent = graph.parent[name]
        if parent is not None and parent in candidates:
            children.setdefault(parent, []).append(name)
    return {parent: below[0] for parent, below in children.items() if len(below) == 1}


def cut_tree(graph: Graph, kept: Set[str]) -> ObjectTree:
    """Build the tree of the synsets that are kept; the root always is."""
    kept = {*kept, ROOT}
    above = {
        name: next((s for s in graph.lineage(name)[1:] if s in kept), None) for name in sorted(kept)
    }
    depth: dict[str, int] = {}
    for name in sorted(kept, key=lambda s: (graph.depth[s], s)):
        up = above[name]
        depth[name] = 0 if up is None else depth[up] + 1
    order = sorted(kept, key=lambda s: (depth[s], s))
    number = {name: i for i, name in enumerate(order)}
    nearest = {
        name: number[next(s for s in graph.lineage(name) if s in kept)] for name in graph.synsets
    }
    parents = [-1 if (up := above[name]) is None else number[up] for name in order]
    return ObjectTree(
        synsets=order, parents=parents, depths=[depth[s] for s in order], nearest=nearest
    )


def _merge_above(synset: Synset, into: Mapping[str, str]) -> Synset:
    """Put the synsets that stand for them in place of a synset's merged hypernyms."""
    above = {into.get(name, name) for name in synset.hypernyms}
    instances = {into.get(name, name) for name in synset.instance_hypernyms}
    return replace(
        synset, hypernyms=tuple(sorted(above)), instance_hypernyms=tuple(sorted(instances - above))
    )


def _hypernyms(synset: Synset) -> tuple[str, ...]:
    above = synset.hypernyms + synset.instance_hypernyms
    return above or (() if synset.name == ROOT else (ROOT,))


def _place(
    name: str, synsets: Mapping[str, Synset], parent: dict[str, str | None], depth: dict[str, int]
) -> None:
    """Choose the primary parent of a synset, after those of everything above it."""
    if name in depth:
        return
    above = _hypernyms(synsets[name])
    for hypernym in above:
        _place(hypernym, synsets, parent, depth)
    best = max(above, key=lambda s: (_is_physical(s, parent), depth[s]), default=None)
    parent[name] = best  # max keeps the first of equals
    depth[name] = 0 if best is None else depth[best] + 1


def _is_physical(name: str | None, parent: Mapping[str, str | None]) -> bool:
    while name is not None and name != PHYSICAL:
        name = parent[name]
    return name == PHYSICAL
