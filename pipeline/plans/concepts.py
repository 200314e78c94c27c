"""``concepts``: batches balanced over objects, the rare ones as often as the frequent ones.

The opposite of ``ontology``: a batch covers as many different objects as it can (the idea of CABS,
arXiv 2511.20643). In a pass every object gets the same number of draws, rare ones as many as their
pairs allow, spread evenly over the pass; pairs that name no object count as one object more. Pairs
of rare objects come several times, and of pairs of frequent objects many stay out: the plan's
coverage says how many.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from pydantic import Field

from ..config import Section
from .builder import Builder, Groups, Offered, make_groups
from .eligible import Eligible, Objects
from .fill import fill


class Params(Section):
    """How much rare objects are favoured."""

    max_repeats: Annotated[int, Field(ge=1)] = 3  # times a pair may come in one pass


def build(eligible: Eligible, offered: Offered, params: Params, rng: np.random.Generator) -> Groups:
    """Draw as many pairs as the pass has whole batches of, or as the repeats allow."""
    rows, size = offered.rows, offered.batch_size
    assert eligible.objects is not None, "the concepts builder needs Eligible.objects"
    lists = rows_by_object(eligible.objects, rows, rng)
    most = params.max_repeats * np.array([len(one) for one in lists])
    turns = spread(share_out(most, len(rows) // size * size, rng), rng)
    drawn = draw(lists, turns.tolist(), params.max_repeats)
    batches, _ = fill(eligible, np.array(drawn, np.int64), size)
    return make_groups(batches, rows[:0] if len(batches) else rows)


def rows_by_object(
    objects: Objects, rows: np.ndarray, rng: np.random.Generator
) -> list[np.ndarray]:
    """The rows that have each object among their deepest, shuffled; first those without any.

    Objects no row has are left out.
    """
    at, named = objects.mentions(rows)
    none = rows[np.diff(objects.starts)[rows] == 0]
    node = np.concatenate([np.full(len(none), -1), named])
    row = np.concatenate([none, rows[at]])
    mixed = rng.permutation(len(node))
    by_node = mixed[np.argsort(node[mixed], kind="stable")]
    cuts = np.flatnonzero(np.diff(node[by_node])) + 1
    return np.split(row[by_node], cuts)


def share_out(most: np.ndarray, total: int, rng: np.random.Generator) -> np.ndarray:
    """Divide a total as evenly as limits allow: (n,) int64.

    >>> share_out(np.array([1, 9, 9]), 11, np.random.default_rng(0)).tolist()
    [1, 5, 5]
    """
    low, high = 0, int(most.max(initial=0))
    while low < high:  # the lowest level that gives the total, or more
        level = (low + high) // 2
        low, high = (low, level) if np.minimum(most, level).sum() >= total else (level + 1, high)
    shares = np.minimum(most, low).astype(np.int64)
    at_level = rng.permutation(np.flatnonzero(most >= low))
    shares[at_level[: max(0, int(shares.sum()) - total)]] -= 1
    return shares


def spread(shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Put turns in order, those of each at even distances: (sum of shares,) int64 whose turn."""
    whose = np.repeat(np.arange(len(shares)), shares)
    number = np.arange(len(whose)) - np.repeat(np.cumsum(shares) - shares, shares)
    when = (number + rng.random(len(shares))[whose]) / shares[whose]
    return whose[np.argsort(when, kind="stable")]


def draw(lists: list[np.ndarray], turns: list[int], max_repeats: int) -> list[int]:
    """Take a row for every turn; the turns of an object that has none left are lost."""
    used: dict[int, int] = {}
    supplies = [_supply(rows.tolist(), used, max_repeats) for rows in lists]
    taken = (next(supplies[turn], None) for turn in turns)
    return [row for row in taken if row is not None]


def _supply(rows: list[int], used: dict[int, int], max_repeats: int) -> Iterator[int]:
    """Rows of an object in rounds; the k-th passes over rows that came k times for any object."""
    for times in range(max_repeats):
        for row in rows:
            if used.get(row, 0) <= times:
                used[row] = used.get(row, 0) + 1
                yield row


BUILDER = Builder(
    name="concepts",
    build=build,
    params=Params,
    needs=lambda params: frozenset({"objects"}),
    repeats=True,
)
