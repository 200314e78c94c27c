"""Groups of pairs become batches: groups of one place go to different batches.

Groups whose captions or images occur in other groups too are dealt first, each to a batch that has
no such caption or image yet; the others fill what is free. A caption that more groups say than
there are batches costs those groups, never a batch.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import chain

import numpy as np

from .builder import Groups
from .eligible import Eligible, count_before


@dataclass(frozen=True, slots=True, kw_only=True)
class Dealt:
    """Batches of one pass, in training order.

    Attributes:
        rows: (k, B) int64 rows of ``Eligible``; pairs of one group stand together.
        node: (k,) int32 object of each batch. groups: (k, B / K) int32 object of each group, or
            (k, 0) where a batch is one group. -1 where there is none.
        undealt: the groups that found no batch.
    """

    rows: np.ndarray
    node: np.ndarray
    groups: np.ndarray
    undealt: Groups


def deal(eligible: Eligible, groups: Groups, size: int, rng: np.random.Generator) -> Dealt:
    """Put groups of K pairs into batches of ``size``, a multiple of K."""
    per_batch = size // groups.rows.shape[1]
    if per_batch == 1:
        mixed = groups.take(rng.permutation(len(groups)))
        nothing = groups.take(np.empty(0, np.int64))
        none = np.empty((len(mixed), 0), np.int32)
        return Dealt(rows=mixed.rows, node=mixed.node, groups=none, undealt=nothing)
    chosen = rng.permuted(_choose(eligible, groups, per_batch, rng), axis=1)
    undealt = np.setdiff1d(np.arange(len(groups)), chosen)
    return Dealt(
        rows=groups.rows[chosen].reshape(-1, size),
        node=np.full(len(chosen), -1, np.int32),
        groups=groups.node[chosen],
        undealt=groups.take(undealt),
    )


def dealable(eligible: Eligible, rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Set rows aside that say or show what more rows do than there can be batches.

    Each batch holds a caption once: groups of the others could not be dealt, and would cost the
    rows they are grouped with.

    Returns:
        The rows to be grouped, and those set aside; both in their order.
    """
    turns = [count_before(values[rows]) for values in (eligible.caption, eligible.image)]
    turn = np.maximum(*turns)
    batches = len(rows) // size
    while (possible := int(np.count_nonzero(turn < batches)) // size) < batches:
        batches = possible
    return rows[turn < batches], rows[turn >= batches]


def _choose(
    eligible: Eligible, groups: Groups, per_batch: int, rng: np.random.Generator
) -> np.ndarray:
    """Which groups make each batch: (k, per_batch) int64, each group at most once."""
    keys = _shared_keys(eligible, groups)
    free = _by_place(groups, np.setdiff1d(np.arange(len(groups)), list(keys)), rng)
    wanted, best = len(groups) // per_batch, list[list[int]]()
    while wanted > len(best):
        held = _deal_keyed(keys, wanted, per_batch, rng)
        best = max(best, _fillable(held, len(free), per_batch), key=len)
        possible = (len(free) + sum(map(len, held))) // per_batch
        wanted = min(possible, wanted - 1)
    return _fill_up(best, free, per_batch, rng)


def _fillable(held: list[list[int]], free: int, per_batch: int) -> list[list[int]]:
    """As many of the batches as so many more groups can fill: the fullest, in their order."""
    lacking = per_batch - np.array([len(members) for members in held], np.int64)
    fullest = np.argsort(lacking, kind="stable")
    count = int(np.searchsorted(np.cumsum(lacking[fullest]), free, side="right"))
    return [held[batch] for batch in np.sort(fullest[:count]).tolist()]


def _shared_keys(eligible: Eligible, groups: Groups) -> dict[int, list[int]]:
    """For groups that share captions or images with others: numbers of what they share."""
    keys: dict[int, list[int]] = {}
    width = groups.rows.shape[1]
    for sign, values in ((1, eligible.caption), (-1, eligible.image)):
        flat = values[groups.rows.reshape(-1)]
        order = np.argsort(flat, kind="stable")
        ordered = flat[order]
        same = ordered[1:] == ordered[:-1]
        shared = np.concatenate([same, [False]]) | np.concatenate([[False], same])
        for place in np.sort(order[shared]).tolist() if len(flat) else []:
            keys.setdefault(place // width, []).append(sign * (int(flat[place]) + 1))
    return keys


def _by_place(groups: Groups, which: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bring groups into an order in which places, shuffled, stand together."""
    mixed = rng.permutation(which)
    _, place = np.unique(groups.place[mixed], return_inverse=True)
    shuffled = rng.permutation(int(place.max(initial=-1)) + 1)
    return mixed[np.argsort(shuffled[place], kind="stable")]


def _deal_keyed(
    keys: dict[int, list[int]], batches: int, per_batch: int, rng: np.random.Generator
) -> list[list[int]]:
    """Deal groups that share something to batches that have none of it.

    Those come first that say what most others say too, then those with the fewest conflicts.
    """
    held: list[list[int]] = [[] for _ in range(batches)]
    taken: list[set[int]] = [set() for _ in range(batches)]
    said = Counter(key for shared in keys.values() for key in shared)
    times: Counter[int] = Counter()
    order = sorted(keys, key=lambda g: (-max(said[key] for key in keys[g]), len(keys[g])))
    starts = rng.integers(batches, size=len(order)).tolist()
    for group, start in zip(order, starts, strict=True):
        shared = keys[group]
        if any(times[key] >= batches for key in shared):
            continue
        for batch in chain(range(start, batches), range(start)):
            if len(held[batch]) < per_batch and taken[batch].isdisjoint(shared):
                held[batch].append(group)
                taken[batch].update(shared)
                times.update(shared)
                break
    return held


def _fill_up(
    held: list[list[int]], free: np.ndarray, per_batch: int, rng: np.random.Generator
) -> np.ndarray:
    """Fill batches from ``free`` in turns, so that neighbours in it go to different batches.

    All turns go through the batches in one order: a place that a turn does not finish goes on with
    batches it has not come to.
    """
    chosen = np.full((len(held), per_batch), -1, np.int64)
    for batch, members in enumerate(held):
        chosen[batch, : len(members)] = members
    order, at = rng.permutation(len(held)), 0
    for turn in range(per_batch):
        open_ones = order[chosen[order, turn] < 0]
        chosen[open_ones, turn] = free[at : at + len(open_ones)]
        at += len(open_ones)
    return chosen
