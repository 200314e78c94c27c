"""How much two plans really differ: which pairings both have, which batches.

A pairing is two pairs that meet in a batch, where each is a negative of the other.

Pairs are told apart by their keys, so that plans of different pairs can be compared. What is
sampled is sampled the same way every time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ....train.plan import Plan
from ..eligible import runs

_PAIRINGS = 1 << 16
_BLOCK = 1 << 16  # batches fingerprinted at once
_ABSENT = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """What two plans share.

    Attributes:
        pairs: how many pairs are eligible in both.
        pairings: the share of those of the first plan that the second has too, each as often as
            the first has it. by_chance: that share, were the second random.
        batches: the share of batches of the first that are batches of the second, in any order.
    """

    pairs: int
    pairings: float
    by_chance: float
    batches: float


def overlap(a: Plan, b: Plan) -> Overlap:
    """Find what the batches of ``a`` have in common with those of ``b``."""
    of_b = _rows_in(a, b)
    batches_b = of_b[b.rows(b.batches.pairs.reshape(-1))].reshape(b.batches.pairs.shape)
    sample = _sample(a)
    met = _meet(sample, batches_b, a.pairs.num_rows)
    chance = 1 - (1 - (b.batch_size - 1) / max(1, b.pairs.num_rows - 1)) ** _times_seen(b)
    same = np.zeros(0, bool)
    if a.batch_size == b.batch_size:
        rows_a = a.rows(a.batches.pairs.reshape(-1)).reshape(a.batches.pairs.shape)
        same = np.isin(_fingerprints(rows_a), _fingerprints(batches_b))
    return Overlap(
        pairs=int(np.count_nonzero(of_b != _ABSENT)),
        pairings=float(met.mean()),
        by_chance=float(chance),
        batches=float(same.mean()) if len(same) else 0.0,
    )


def _rows_in(a: Plan, b: Plan) -> np.ndarray:
    """The row of ``a.pairs`` of every row of ``b.pairs``, by key: (n,) int64, -1 for none."""
    if a.inputs.get("pairs") and a.inputs.get("pairs") == b.inputs.get("pairs"):
        return np.arange(b.pairs.num_rows)
    keys = a.pairs.column("pair_key").combine_chunks()
    found = pc.index_in(b.pairs.column("pair_key").combine_chunks(), value_set=keys)
    return found.fill_null(pa.scalar(_ABSENT, pa.int32())).to_numpy().astype(np.int64)


def _times_seen(plan: Plan) -> float:
    """In how many batches a pair is, on average."""
    return float(plan.batches.pairs.size / max(1, plan.pairs.num_rows))


def _sample(plan: Plan) -> np.ndarray:
    """Draw pairings: (2, n) rows of ``plan.pairs``."""
    rng = np.random.default_rng(0)
    step = rng.integers(len(plan), size=_PAIRINGS)
    first = rng.integers(plan.batch_size, size=_PAIRINGS)
    second = (first + rng.integers(1, plan.batch_size, size=_PAIRINGS)) % plan.batch_size
    chosen = plan.batches.pairs[step, first], plan.batches.pairs[step, second]
    return plan.rows(np.concatenate(chosen)).reshape(2, -1)


def _meet(pairings: np.ndarray, batches: np.ndarray, known: int) -> np.ndarray:
    """Whether the rows of each pairing share one of the batches: (n,) bool.

    Args:
        pairings: (2, n). batches: (k, B) rows, or -1. known: how many rows there are.
    """
    asked = np.zeros(known, bool)
    asked[pairings] = True
    flat = batches.reshape(-1)
    places = np.flatnonzero((flat >= 0) & asked[flat])
    order = np.argsort(flat[places], kind="stable")
    row, step = flat[places][order], places[order] // batches.shape[1]
    starts, counts = np.searchsorted(row, np.arange(known)), np.bincount(row, minlength=known)
    one, other = (_steps_of(rows, step, starts, counts, len(batches)) for rows in pairings)
    shared = np.intersect1d(one, other) // len(batches)
    met = np.zeros(pairings.shape[1], bool)
    met[shared] = True
    return met


def _steps_of(
    rows: np.ndarray, step: np.ndarray, starts: np.ndarray, counts: np.ndarray, steps: int
) -> np.ndarray:
    """``i * steps + step`` for every batch that has the i-th of the rows."""
    which, at = runs(starts[rows], counts[rows])
    return which * steps + step[at]


def _fingerprints(batches: np.ndarray) -> np.ndarray:
    """A number for each batch that does not depend on the order of its rows: (k,) uint64.

    It is the sum of its rows, each mixed as splitmix64 does.
    """
    parts = [np.empty(0, np.uint64)]
    for at in range(0, len(batches), _BLOCK):
        z = batches[at : at + _BLOCK].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        parts.append((z ^ (z >> np.uint64(31))).sum(axis=1, dtype=np.uint64))
    return np.concatenate(parts)
