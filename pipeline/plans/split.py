"""Rows become blocks that fit into memory: halves of halves, alike within, balanced in size.

Each cut lies between two means (a few rounds of 2-means over a sample), at the place that gives
both sides their share of the rows: however the rows crowd, no block is larger than asked for.
"""

from __future__ import annotations

import numpy as np

from .similarity import Similarity, whole

_SAMPLE = 4096
_ROUNDS = 5


def split(
    similarity: Similarity,
    rows: np.ndarray,
    most: int,
    rng: np.random.Generator,
    *,
    unit: int = 1,
) -> list[np.ndarray]:
    """Cut rows into blocks by similarity.

    Args:
        rows: (n,) rows of ``similarity``.
        most: rows in a block, at most. unit: all blocks but one hold a multiple of it.

    Returns:
        The blocks, neighbours in the list more alike than others; within one, rows keep their
        order.
    """
    blocks = -(-len(rows) // most)
    if blocks <= 1:
        return [rows]
    left = blocks // 2
    share = -(-len(rows) * left // (blocks * unit)) * unit
    along = similarity.along(rows, _direction(similarity, rows, rng))
    near = np.zeros(len(rows), bool)
    near[np.argsort(along, kind="stable")[:share]] = True
    return [
        *split(similarity, rows[near], most, rng, unit=unit),
        *split(similarity, rows[~near], most, rng, unit=unit),
    ]


def _direction(similarity: Similarity, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """From one mean of a sample to the other, halved: (d,) whole numbers, as long as rows are."""
    sample = rows if len(rows) <= _SAMPLE else rng.choice(rows, _SAMPLE, replace=False)
    vectors = similarity.take(sample)
    first = int(rng.integers(len(sample)))
    far = int(np.argmin(vectors @ vectors[first]))
    direction = _halfway(vectors[far], vectors[first])
    for _ in range(_ROUNDS):
        side = vectors @ direction > 0
        if side.all() or not side.any():
            break
        means = [vectors[one].sum(axis=0, dtype=np.float64) for one in (side, ~side)]
        direction = _halfway(*whole(np.stack(means)))
    return direction


def _halfway(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Half of the difference, rounded towards zero: no longer than the longer of both."""
    return np.trunc((one - other) / 2).astype(np.float32)
