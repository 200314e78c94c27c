"""How a plan looks before a GPU hour is spent: how alike the captions of a batch are.

Each figure stands beside that of random batches of the same size over the same pairs, because the
absolute cosines of an encoder mean little.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...train.plan_files import Batches
from .eligible import Eligible
from .fill import fill

_SAMPLE_BATCHES = 200
_SAMPLE_PAIRS = 2_000
Vectors = Callable[[np.ndarray], np.ndarray]


def measure_quality(eligible: Eligible, batches: Batches, vectors: Vectors) -> dict[str, Any]:
    """Measure in-batch caption similarity on evenly spaced batches.

    Args:
        vectors: maps (n,) pair numbers to (n, d) caption vectors.

    Returns:
        For the plan and for random batches: mean in-batch cosine, mean cosine to the nearest other
        caption (``top1``), and ``suspects``: the share of captions with another image's caption in
        the batch that is as near as two captions of one image usually are.
    """
    rng = np.random.default_rng(0)
    step = max(1, len(batches.pairs) // _SAMPLE_BATCHES)
    planned = batches.pairs[::step][:_SAMPLE_BATCHES]
    size = batches.pairs.shape[1]
    draw = rng.permutation(len(eligible))[: 2 * _SAMPLE_BATCHES * size]
    random = eligible.pair[fill(eligible, draw, size)[0]][:_SAMPLE_BATCHES]
    near = _same_image_cosine(eligible, vectors, rng)
    return {
        "batches_measured": len(planned),
        "suspect_cosine": round(near, 4),
        "plan": _similarity(planned, vectors, near),
        "random": _similarity(random, vectors, near),
    }


def _similarity(batches: np.ndarray, vectors: Vectors, near: float) -> dict[str, float]:
    figures = np.array([_of_batch(_unit(vectors(pairs)), near) for pairs in batches])
    mean, top1, suspects = figures.mean(axis=0) if len(figures) else (0.0, 0.0, 0.0)
    return {
        "mean": round(float(mean), 4),
        "top1": round(float(top1), 4),
        "suspects": round(float(suspects), 4),
    }


def _of_batch(vectors: np.ndarray, near: float) -> tuple[float, float, float]:
    cosine = vectors @ vectors.T
    size = len(cosine)
    mean = (cosine.sum() - np.trace(cosine)) / (size * (size - 1))
    np.fill_diagonal(cosine, -1)
    nearest = cosine.max(axis=1)
    return float(mean), float(nearest.mean()), float((nearest >= near).mean())


def _same_image_cosine(eligible: Eligible, vectors: Vectors, rng: np.random.Generator) -> float:
    """The median cosine of two captions of one image; 0.9 where images have one caption each."""
    order = np.argsort(eligible.image, kind="stable")
    twins = np.flatnonzero(np.diff(eligible.image[order]) == 0)
    if not len(twins):
        return 0.9
    chosen = np.sort(rng.choice(twins, min(len(twins), _SAMPLE_PAIRS), replace=False))
    a, b = (_unit(vectors(eligible.pair[order[chosen + k]])) for k in (0, 1))
    return float(np.median((a * b).sum(axis=1)))


def _unit(vectors: np.ndarray) -> np.ndarray:
    wide = vectors.astype(np.float32)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-9)


def coverage(eligible: Eligible, batches: Batches, remainder: pa.Table) -> dict[str, Any]:
    """How often pairs are seen: in the whole plan, and what each reason kept out of an epoch."""
    used = np.bincount(np.searchsorted(eligible.pair, batches.pairs).reshape(-1))
    used = np.pad(used, (0, len(eligible) - len(used)))
    times, counts = np.unique(used, return_counts=True)
    reasons = pc.value_counts(remainder.column("reason")).to_pylist()
    return {
        "pairs_by_times_seen": {str(t): int(c) for t, c in zip(times, counts, strict=True)},
        "placed": int(batches.pairs.size),
        "remainder": {r["values"]: r["counts"] for r in sorted(reasons, key=lambda r: r["values"])},
    }
