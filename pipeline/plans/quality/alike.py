"""How alike the pairs of a batch are: cosines of vectors, in single precision, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

Read = Callable[[np.ndarray], np.ndarray]
_VECTORS = 8192  # read at once
_PRODUCTS = 1 << 22  # held at once
_PIECE, _DEPTH = 32, 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """Cosines within batches; the arrays have a number for each batch.

    Attributes:
        top1: the mean, over its pairs, of the cosine to the nearest other pair.
        mean: of all twos. apart: of those twos that are not of one group; ``mean`` where a batch is
            no set of groups.
        suspects: the share of pairs whose nearest is as near as asked.
    """

    top1: np.ndarray
    mean: np.ndarray
    apart: np.ndarray
    suspects: np.ndarray


def compare_within(
    read: Read, rows: np.ndarray, groups: np.ndarray | None = None, near: float = 2.0
) -> Alike:
    """Compare the pairs of each batch with one another.

    Args:
        read: maps (n,) rows to (n, d) vectors of any length; zeros are like nothing.
        rows: (k, B). groups: (k,) how many groups each batch consists of, 0 for none.
        near: the cosine from which on a pair is suspect.
    """
    counts = np.zeros(len(rows), np.int64) if groups is None else groups
    parts = [_of_block(read, rows[block], counts[block], near) for block in _blocks(*rows.shape)]
    joined = np.concatenate(parts, axis=1) if parts else np.empty((4, 0))
    return Alike(top1=joined[0], mean=joined[1], apart=joined[2], suspects=joined[3])


def _blocks(count: int, size: int) -> Iterator[slice]:
    at_once = max(1, min(_VECTORS // size, _PRODUCTS // (size * size)))
    return (slice(at, at + at_once) for at in range(0, count, at_once))


def _of_block(read: Read, rows: np.ndarray, groups: np.ndarray, near: float) -> np.ndarray:
    """(4, k): top1, mean, apart, suspects of a few batches."""
    count, size = rows.shape
    vectors = unit(read(rows.reshape(-1))).reshape(count, size, -1)
    cosines = _products(vectors)
    mean = _mean_between(cosines, size)
    apart = mean.copy()
    for number in np.unique(groups[groups > 1]).tolist():
        which = groups == number
        apart[which] = _mean_between(cosines[which], number)
    cosines[:, np.arange(size), np.arange(size)] = -2
    nearest = cosines.max(axis=2)
    top1, suspects = nearest.mean(axis=1, dtype=np.float64), (nearest >= near).mean(axis=1)
    return np.stack([top1, mean, apart, suspects])


def _products(vectors: np.ndarray) -> np.ndarray:
    """The products of all twos of each batch: (k, B, B).

    In pieces that OpenBLAS does not divide among threads (32 x 32 x 256 is the most): on busy cores
    threads wait for one another, and the bits would depend on how many there are.
    """
    count, size, dim = vectors.shape
    found = np.empty((count, size, size), np.float32)
    cuts = [slice(at, at + _PIECE) for at in range(0, size, _PIECE)]
    for i, rows in enumerate(cuts):
        for columns in cuts[i:]:
            piece = sum(
                vectors[:, rows, at : at + _DEPTH]
                @ vectors[:, columns, at : at + _DEPTH].transpose(0, 2, 1)
                for at in range(0, dim, _DEPTH)
            )
            found[:, rows, columns] = piece
            found[:, columns, rows] = np.transpose(piece, (0, 2, 1))
    return found


def _mean_between(cosines: np.ndarray, groups: int) -> np.ndarray:
    """The mean cosine of two pairs of different groups, which are equally long runs: (k,)."""
    count, size, _ = cosines.shape
    run = size // groups
    runs = cosines.reshape(count, groups, run, groups, run)
    within = runs.diagonal(axis1=1, axis2=3).sum(axis=(1, 2, 3), dtype=np.float64)
    return (cosines.sum(axis=(1, 2), dtype=np.float64) - within) / (size * (size - run))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1, as float32; zeros stay zeros, what is not finite becomes NaN."""
    wide = vectors.astype(np.float32)
    with np.errstate(invalid="ignore"):
        return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-9)


def spread(phase: np.ndarray, most: int) -> np.ndarray:
    """Choose at most about ``most`` batches, evenly spaced in each phase, two of each at least.

    Args:
        phase: (n,) phase of each batch.

    Returns:
        Batch numbers, increasing; all where there are no more.

    >>> spread(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 4)
    array([0, 2, 4, 6])
    """
    if len(phase) <= most:
        return np.arange(len(phase))
    chosen = []
    for number in np.unique(phase):
        steps = np.flatnonzero(phase == number)
        take = min(len(steps), max(2, most * len(steps) // len(phase)))
        chosen.append(steps[np.arange(take) * len(steps) // take])
    return np.sort(np.concatenate(chosen))
