"""Rows by object: which object each row is drawn for, and how leftovers go to the one above.

A row that names several objects is drawn for a random one of its deepest in each pass, never for
the rarest: the rarest-object rule starves the frequent ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from .eligible import Objects

_GROUPS = 4096  # named at once
_MIDDLE = 1 / 3  # of all rows that name an object


def draw_objects(
    objects: Objects, rows: np.ndarray, rng: np.random.Generator, top: int | None = None
) -> np.ndarray:
    """Choose one of each row's deepest objects: (n,) int32, -1 for a row that has none.

    Args:
        top: choose only among objects at or below this one.
    """
    if top is not None:
        objects = _only_below(objects, top)
    first, count = objects.starts[rows], np.diff(objects.starts)[rows]
    pick = first + np.floor(rng.random(len(rows)) * count).astype(np.int64)
    has = count > 0
    node = np.full(len(rows), -1, np.int32)
    node[has] = objects.members[pick[has]]
    return node


def _only_below(objects: Objects, node: int) -> Objects:
    """The same tree, with only those mentions that name an object at or below one."""
    kept = objects.below(node)[objects.members]
    ends = np.concatenate([[0], np.cumsum(kept)])
    return replace(objects, starts=ends[objects.starts], members=objects.members[kept])


def lift(objects: Objects, node: np.ndarray, depth: int) -> np.ndarray:
    """Replace objects deeper than ``depth`` by their ancestor at that depth; -1 stays."""
    node = node.copy()
    while np.any(deep := (node >= 0) & (objects.depth[node] > depth)):
        node[deep] = objects.parent[node[deep]]
    return node


def lift_to_middle(objects: Objects, node: np.ndarray) -> np.ndarray:
    """Replace objects by the highest one above them that at most a third of the mentions name."""
    small = objects.named <= _MIDDLE * objects.named.max(initial=0)
    node = node.copy()
    while True:
        above = np.where(node >= 0, objects.parent[node], -1)
        up = (above >= 0) & small[above]
        if not up.any():
            return node
        node[up] = above[up]


def find_top(objects: Objects, under: str) -> int | None:
    """The object that a builder's setting ``under`` names, if any.

    Raises:
        ConfigError: there is no such object.
    """
    return objects.find("params.under", under) if under else None


def deepest_shared(objects: Objects, groups: np.ndarray) -> np.ndarray:
    """The deepest object that all rows of a group name, themselves or through one below it.

    Args:
        groups: (g, K) rows. Of several as deep ones, that which fewer pairs name.

    Returns:
        (g,) int32, -1 where there is none.
    """
    found = np.full(len(groups), -1, np.int32)
    rarity = np.argsort(np.argsort(-objects.named, kind="stable"), kind="stable")
    order = objects.depth.astype(np.int64) * len(objects.names) + rarity
    for at in range(0, len(groups), _GROUPS):
        some = groups[at : at + _GROUPS]
        group, node = _shared(objects, some)
        by_order = np.argsort(order[node], kind="stable")  # the deepest comes last and stays
        found[at + group[by_order]] = node[by_order]
    return found


def _shared(objects: Objects, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which objects all rows of each group name: (m,) group numbers, (m,) objects."""
    size, count = groups.shape[1], len(objects.names)
    place, node = objects.mentions(groups.reshape(-1))
    lines = []
    while len(node):
        lines.append(place * count + node)
        node = objects.parent[node]
        place, node = place[node >= 0], node[node >= 0]
    keys = np.unique(np.concatenate(lines)) if lines else np.empty(0, np.int64)
    by_group = (keys // count // size) * count + keys % count
    found, times = np.unique(by_group, return_counts=True)
    found = found[times == size]
    return found // count, found % count


class Pools:
    """Rows waiting at their objects.

    Args:
        rows: (n,) in the order they are to be taken. node: (n,) the object of each, -1 for none.
        top: the object nothing is passed above; the root when omitted.
    """

    def __init__(
        self, objects: Objects, rows: np.ndarray, node: np.ndarray, top: int | None = None
    ) -> None:
        self.objects, self.top = objects, top
        by_node = np.argsort(node, kind="stable")
        bounds = np.searchsorted(node[by_node], np.arange(-1, len(objects.names) + 1))
        cut = [rows[by_node[a:b]] for a, b in itertools.pairwise(bounds)]
        self._nowhere, self._pools = [cut[0]], [[pool] for pool in cut[1:]]

    def upward(self) -> Iterator[int]:
        """Objects whose pool is not empty, the deepest first."""
        for node in np.argsort(-self.objects.depth, kind="stable").tolist():
            if any(map(len, self._pools[node])):
                yield node

    def take(self, node: int) -> np.ndarray:
        """All rows waiting at an object."""
        pool, self._pools[node] = np.concatenate(self._pools[node]), []
        return pool

    def pass_up(self, node: int, left: np.ndarray) -> None:
        """Let what an object leaves wait at the one above, or nowhere."""
        above = -1 if node == self.top else int(self.objects.parent[node])
        (self._pools[above] if above >= 0 else self._nowhere).append(left)

    def nowhere(self) -> np.ndarray:
        """The rows that name no object, and what the root leaves."""
        return np.concatenate(self._nowhere)


class Named:
    """Which of some rows name each object, or one below it."""

    def __init__(self, objects: Objects, rows: np.ndarray) -> None:
        self._first, self._end = _walk(objects)
        at, named = objects.mentions(rows)
        order = np.argsort(self._first[named], kind="stable")
        self._rows, self._places = rows[at[order]], self._first[named[order]]

    def by(self, node: int) -> np.ndarray:
        """The rows that name an object or one below it; those that name several, several times."""
        bounds = [self._first[node], self._end[node]]
        start, end = np.searchsorted(self._places, bounds)
        return self._rows[start:end]


def _walk(objects: Objects) -> tuple[np.ndarray, np.ndarray]:
    """Number objects so that what is below one follows it: its number, and one past the last."""
    size = np.ones(len(objects.names), np.int64)
    for node in range(len(size) - 1, 0, -1):
        if objects.parent[node] >= 0:
            size[objects.parent[node]] += size[node]
    first, free = np.zeros(len(size), np.int64), np.ones(len(size), np.int64)
    roots = 0
    for node, parent in enumerate(objects.parent.tolist()):
        if parent < 0:
            first[node], roots = roots, roots + size[node]
        else:
            first[node] = first[parent] + free[parent]
            free[parent] += size[node]
    return first, first + size
