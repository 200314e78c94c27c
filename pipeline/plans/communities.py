"""``communities``: batches of several tight groups from unrelated places.

A group is a seed and its nearest unused neighbours, the very nearest left out: they are likely to
be true of the seed's image too. Batches of many small groups keep most of the hardness of
neighbour batches at a fraction of their sameness (the idea of B3, arXiv 2505.11293). With
``objects`` a group is drawn among pairs that share an object, by which it is named.

Near-linear: pairs are blocked by object, large objects by balanced splits, and only seeds are
compared with their block. A pair seeds groups of one of its objects, drawn at random, and may be a
neighbour under any of them. A seed that lacks neighbours waits at the object above, where there
are more; at the very end any unused pairs will do.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ..config import Section
from .builder import Builder, Groups, join_groups, make_groups
from .deal import dealable
from .eligible import Eligible
from .nodes import Named, Pools, draw_objects
from .similarity import rank, seeds_at_once
from .split import split

BLOCK = 8192  # pairs compared with each other, at most
_SLACK = 3  # a seed looks at no fewer than this many times the neighbours it needs
_ROUNDS = 6  # how often what is left is grouped anew before any neighbour will do


class Params(Section):
    """How large groups are, and among which neighbours they are drawn.

    Ranks are counted among all eligible pairs (of the object). A pass holds a share of those, and
    looks at that share of the ranks.
    """

    group: Annotated[int, Field(ge=0)] = 0  # pairs in a group; 0 = about 16, or 8 where B <= 64
    skip: Annotated[int, Field(ge=0)] = 30  # the nearest that are left out
    reach: Annotated[int, Field(gt=0)] = 130  # the last rank looked at
    objects: bool = True  # groups of pairs that share an object
    under: str = ""  # only objects at or below this one: animal.n.01, or animal
    similarity: Literal["text", "image", "both"] = "text"


def group_size(params: Params, batch_size: int) -> int:
    """Pairs in a group: what is asked for, else the most up to 16 (8 where B <= 64) that divide B.

    A batch holds two groups at least; 1 where B cannot be divided so.

    >>> [group_size(Params(), size) for size in (256, 64, 100, 7)]
    [16, 8, 10, 1]
    """
    most = min(16 if batch_size > 64 else 8, batch_size // 2)
    return params.group or max(d for d in range(1, max(2, most + 1)) if batch_size % d == 0)


def needs(params: Params) -> frozenset[str]:
    """What must be loaded."""
    kinds = ("text", "image") if params.similarity == "both" else (params.similarity,)
    return frozenset((*kinds, "objects") if params.objects else kinds)


def build(
    eligible: Eligible, rows: np.ndarray, size: int, params: Params, rng: np.random.Generator
) -> Groups:
    """Draw an object for every row, group the rows of each, and last what they all leave."""
    finder = _Finder(eligible, group_size(params, size), params, rng)
    order, spare = dealable(eligible, rng.permutation(rows), size)
    if not params.objects:
        return finder.finish(order, [], spare)
    objects = eligible.objects
    assert objects is not None, "communities of objects need Eligible.objects"
    pools = Pools(objects, order, draw_objects(objects, order, rng, params.under))
    named = Named(objects, order)
    parts = []
    for node in pools.upward():
        seeds = finder.unused(pools.take(node))
        others = finder.unused(named.by(node))
        pool = np.concatenate([seeds, np.setdiff1d(others, seeds)])
        share = len(pool) / max(1, objects.named[node])
        parts.append(finder.group(pool, share, node, seeds=len(seeds)))
        pools.pass_up(node, finder.unused(seeds))
    return finder.finish(finder.unused(pools.nowhere()), parts, spare)


class _Finder:
    """Groups pools of rows; remembers which rows are used, and numbers blocks as places."""

    def __init__(
        self, eligible: Eligible, size: int, params: Params, rng: np.random.Generator
    ) -> None:
        self.eligible, self.size, self.params, self.rng = eligible, size, params, rng
        self.similarity = eligible.similarity(params.similarity)
        self.used = np.zeros(len(eligible), bool)
        self.places = 0

    def unused(self, rows: np.ndarray) -> np.ndarray:
        """Those that no group has yet."""
        return rows[~self.used[rows]]

    def group(
        self, pool: np.ndarray, share: float, node: int, *, seeds: int, last: int = 0
    ) -> Groups:
        """Group what can be grouped of a pool.

        Args:
            share: of all pairs (of the object) that the pool holds. seeds: how many rows, from the
                first, may begin a group; there will be so many rows in groups at most. last: the
                last rank, when it is not to follow from the share.
        """
        skip = round(self.params.skip * min(share, 1))
        reach = max(round(self.params.reach * share), skip + _SLACK * (self.size - 1))
        is_seed = np.zeros(len(self.eligible), bool)
        is_seed[pool[:seeds]] = True
        parts: list[Groups] = []
        for block in split(self.similarity, pool, BLOCK, self.rng, unit=self.size):
            spared = 0 if last else min(skip, (len(block) - self.size) // 2)
            found = self._group_block(block, is_seed[block], max(0, spared), last or reach)
            self.used[found] = True
            parts.append(make_groups(found, pool[:0], node=node, place=self.places))
            self.places += 1
        return join_groups(parts, self.size, self.unused(pool))

    def finish(self, pool: np.ndarray, parts: list[Groups], spare: np.ndarray) -> Groups:
        """Group what is left, in some rounds among ever fewer rows, then with any neighbours.

        Args:
            spare: rows that are in no pool, and are left too.
        """
        for number in range(_ROUNDS + 1):
            if len(pool) < self.size:
                break
            share, last = len(pool) / len(self.eligible), BLOCK if number == _ROUNDS else 0
            parts.append(self.group(pool, share, -1, seeds=len(pool), last=last))
            pool = parts[-1].left
        return join_groups(parts, self.size, np.concatenate([pool, spare]))

    def _group_block(
        self, block: np.ndarray, is_seed: np.ndarray, skip: int, reach: int
    ) -> np.ndarray:
        """Seeds in random order each take their nearest unused neighbours.

        Returns:
            Groups (g, K) of rows, the seed first.
        """
        vectors, used = self.similarity.take(block), np.zeros(len(block), bool)
        twins = _Twins(self.eligible, block)
        waiting, groups = self.rng.permutation(np.flatnonzero(is_seed)), list[np.ndarray]()
        most, at_once = len(waiting) // self.size, seeds_at_once(len(block))
        while len(waiting) and len(groups) < most:
            seeds, waiting = waiting[:at_once], waiting[at_once:]
            for seed, near in zip(seeds.tolist(), rank(vectors, seeds, skip, reach), strict=True):
                if used[seed] or len(groups) == most:
                    continue
                group = twins.first(seed, near[~used[near]], self.size)
                if len(group) == self.size:
                    used[group] = True
                    groups.append(group)
            waiting = waiting[~used[waiting]]
        return block[np.array(groups, np.int64).reshape(-1, self.size)]


class _Twins:
    """Which rows of a block show the same image or say the same caption as others of it."""

    def __init__(self, eligible: Eligible, block: np.ndarray) -> None:
        self.values = (eligible.image[block], eligible.caption[block])
        self.has = np.zeros(len(block), bool)
        for values in self.values:
            _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
            self.has |= counts[inverse] > 1

    def first(self, seed: int, near: np.ndarray, size: int) -> np.ndarray:
        """The seed and the first of ``near`` that may share a batch with it and one another."""
        group = np.concatenate([[seed], near[: size - 1]])
        if np.count_nonzero(self.has[group]) < 2:
            return group
        for values in self.values:
            near = near[values[near] != values[seed]]
            near = near[np.sort(np.unique(values[near], return_index=True)[1])]
        return np.concatenate([[seed], near[: size - 1]])


BUILDER = Builder(
    name="communities",
    build=build,
    params=Params,
    needs=needs,
    group_size=group_size,
    rotation=3,
)
