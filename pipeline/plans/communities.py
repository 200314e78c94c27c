"""``communities``: batches of several tight groups from unrelated places.

A group is a seed and its nearest unused neighbours, the very nearest left out: they are likely to
be true of the seed's image too. Batches of many small groups keep most of the hardness of
neighbour batches at a fraction of their sameness (the idea of B3, arXiv 2505.11293). With
``objects`` a group is drawn among pairs that share an object, by which it is named.

Near-linear: pairs are blocked by object, large objects by balanced splits, and only seeds are
compared with their block. A pair seeds groups of one of its objects, drawn at random, and may be a
neighbour under any of them, and under any object above. A seed that lacks neighbours waits
at the object above; at the very end any unused pairs will do.

A pass uses one caption of every image. Which one, is decided here: seeds are what the pass offers,
neighbours may be captions of later passes, whose turn then comes to the offered one. Else most of
what is near a caption would be out of reach.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from ..config import Section
from .builder import NO_ROWS, Builder, Groups, Offered, join_groups, make_groups
from .deal import dealable
from .eligible import Eligible, Objects, count_before
from .nodes import Named, Pools, deepest_shared, draw_objects, find_top
from .similarity import Kind, kinds_of, rank, seeds_at_once
from .split import split

BLOCK = 8192  # pairs compared with each other, at most
_SPARED = 16  # of a small block no more than this part is left out as too near
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
    similarity: Kind = "text"

    @model_validator(mode="after")
    def _in_order(self) -> Params:
        if self.reach <= self.skip:
            raise ValueError(f"reach must be above skip = {self.skip}")
        if self.under and not self.objects:
            raise ValueError("under chooses among objects, and objects = false does without")
        return self


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
    kinds = kinds_of(params.similarity)
    return frozenset((*kinds, "objects") if params.objects else kinds)


def build(eligible: Eligible, offered: Offered, params: Params, rng: np.random.Generator) -> Groups:
    """Draw an object for every row, group the rows of each, and last what they all leave."""
    size = offered.batch_size
    finder = _Finder(eligible, group_size(params, size), params, rng)
    order, spare = dealable(eligible, rng.permutation(offered.rows), size)
    later = _seldom_said(eligible, order, offered.later, size)
    if not params.objects:
        return finder.finish(order, later, [], spare)
    objects = eligible.objects
    assert objects is not None, "communities of objects need Eligible.objects"
    top = find_top(objects, params.under)
    pools = Pools(objects, order, draw_objects(objects, order, rng, top), top)
    named = Named(objects, np.concatenate([order, later]))
    parts = []
    for node in pools.upward():
        seeds = finder.unused(pools.take(node))
        near = finder.unused(named.by(node))
        share = len(near) / max(1, objects.named[node])  # of mentions, as a pair may have several
        parts.append(finder.group(seeds, np.setdiff1d(near, seeds), share, node))
        pools.pass_up(node, finder.unused(seeds))
    return _named_best(objects, finder.finish(finder.unused(pools.nowhere()), later, parts, spare))


def _named_best(objects: Objects, groups: Groups) -> Groups:
    """Name groups by the deepest object their pairs share; those of one name are of one place."""
    node = deepest_shared(objects, groups.rows)
    node = np.where(groups.node >= 0, node, -1).astype(np.int32)
    place = np.where(node >= 0, node, len(objects.names) + groups.place)
    return replace(groups, node=node, place=place)


def _seldom_said(eligible: Eligible, rows: np.ndarray, later: np.ndarray, size: int) -> np.ndarray:
    """Those of ``later`` whose captions, beside those of ``rows``, all the batches can hold."""
    said = count_before(eligible.caption[np.concatenate([rows, later])])[len(rows) :]
    return later[said < len(rows) // size]


class _Finder:
    """Groups rows; remembers which images are used, and numbers blocks as places."""

    def __init__(
        self, eligible: Eligible, size: int, params: Params, rng: np.random.Generator
    ) -> None:
        self.eligible, self.size, self.params, self.rng = eligible, size, params, rng
        self.similarity = eligible.similarity(params.similarity)
        self.used = np.zeros(int(eligible.image.max(initial=0)) + 1, bool)
        self.places = 0

    def unused(self, rows: np.ndarray) -> np.ndarray:
        """Those of whose image no group has a caption yet."""
        return rows[~self.used[self.eligible.image[rows]]]

    def group(
        self, seeds: np.ndarray, others: np.ndarray, share: float, node: int, wider: int = 1
    ) -> Groups:
        """Group what can be grouped, in so many rows as there are seeds at most.

        Args:
            seeds: rows that may begin a group. others: rows that may be a neighbour.
            share: of all pairs (of the object) that they are. wider: how many times further down
                the ranks than usual to look.
        """
        if len(seeds) < self.size:
            return join_groups([], self.size, seeds)
        skip = round(self.params.skip * min(share, 1))
        reach = max(round(self.params.reach * share), skip + _SLACK * (self.size - 1)) * wider
        is_seed = np.zeros(len(self.eligible), bool)
        is_seed[seeds] = True
        pool, parts = np.concatenate([seeds, others]), list[Groups]()
        for block in split(self.similarity, pool, BLOCK, self.rng, unit=self.size):
            block = self.unused(block)
            spared = min(skip, len(block) // _SPARED)
            found = self._group_block(block, is_seed[block], spared, reach)
            self.used[self.eligible.image[found]] = True
            parts.append(make_groups(found, NO_ROWS, node=node, place=self.places))
            self.places += 1
        return join_groups(parts, self.size, self.unused(seeds))

    def finish(
        self, seeds: np.ndarray, others: np.ndarray, parts: list[Groups], spare: np.ndarray
    ) -> Groups:
        """Group what is left, in some rounds among ever fewer rows, then with any neighbours.

        Args:
            spare: rows that are in no group, and are left too.
        """
        for number in range(_ROUNDS + 1):
            if len(seeds) < self.size:
                break
            others = self.unused(others)
            share = (len(seeds) + len(others)) / len(self.eligible)
            wider = BLOCK if number == _ROUNDS else 1
            parts.append(self.group(seeds, others, share, -1, wider))
            seeds = parts[-1].left
        return join_groups(parts, self.size, np.concatenate([seeds, spare]))

    def _group_block(
        self, block: np.ndarray, is_seed: np.ndarray, skip: int, reach: int
    ) -> np.ndarray:
        """Seeds in random order each take their nearest unused neighbours.

        Returns:
            Groups (g, K) of rows, the seed first.
        """
        vectors, twins = self.similarity.take(block), _Twins(self.eligible, block)
        waiting, groups = self.rng.permutation(np.flatnonzero(is_seed)), list[np.ndarray]()
        most, at_once = len(waiting) // self.size, seeds_at_once(len(block))
        while len(waiting) and len(groups) < most:
            seeds, waiting = waiting[:at_once], waiting[at_once:]
            for seed, near in zip(seeds.tolist(), rank(vectors, seeds, skip, reach), strict=True):
                if twins.used[seed] or len(groups) == most:
                    continue
                group = twins.first(seed, near[~twins.used[near]], self.size)
                if len(group) == self.size:
                    twins.use(group)
                    groups.append(group)
            waiting = waiting[~twins.used[waiting]]
        return block[np.array(groups, np.int64).reshape(-1, self.size)]


class _Twins:
    """Which rows of a block are used, and which show the same image or say the same caption."""

    def __init__(self, eligible: Eligible, block: np.ndarray) -> None:
        self.values = (eligible.image[block], eligible.caption[block])
        self.used = np.zeros(len(block), bool)
        self.has = np.zeros(len(block), bool)
        for values in self.values:
            _, number, counts = np.unique(values, return_inverse=True, return_counts=True)
            self.has |= counts[number] > 1
        self._by_image = np.argsort(self.values[0], kind="stable")
        self._images = self.values[0][self._by_image]

    def use(self, group: np.ndarray) -> None:
        """Mark the rows of a group, and all others of their images."""
        self.used[group] = True
        for image in self.values[0][group[self.has[group]]].tolist():
            first, end = np.searchsorted(self._images, [image, image + 1])
            self.used[self._by_image[first:end]] = True

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
    swaps=True,
    version=2,
)
