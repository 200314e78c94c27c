"""Is one model better than another, or were its test images lucky? A paired bootstrap.

Images are drawn anew with replacement, each with all its captions, ten thousand times; every draw
scores both models on the same images. Several runs of a model (seeds) are averaged inside each
draw, so the interval speaks of the test images; how much runs differ is said beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ...errors import InputError
from .queries import Queries
from .retrieval import KS
from .scoring import CHOICES

DRAWS = 10_000
_RECALLS = [f"{way} R@{k}" for way in ("i2t", "t2i") for k in KS]
METRICS = (*_RECALLS, "rsum", *(name.replace("_", " ") for name in CHOICES.values()))
_CELLS = 1 << 21  # of the matrix of draws, held at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far one model, or the mean of several runs, is from another in one metric.

    Attributes:
        base, other: in percent (``rsum``: of 600). difference: other - base.
        low, high: between them lie 95 % of the draws' differences.
        above: share of draws in which ``other`` is the better one; a tie counts half. A draw
            without one caption that had a choice says nothing of choices, and does not count.
        runs: the difference of each pair of runs.
    """

    metric: str
    base: float
    other: float
    difference: float
    low: float
    high: float
    above: float
    runs: tuple[float, ...]


def compare(
    base: Sequence[pa.Table],
    other: Sequence[pa.Table],
    *,
    choices: bool = True,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Difference]:
    """Compare two models by their results on the same queries.

    Args:
        base, other: results (``RESULTS_SCHEMA``) of the runs of each, a table a run. When both have
            several, they are pairs: run k of one against run k of the other.
        choices: whether same-object choices were among the same candidates, and can be compared.

    Returns:
        One for each of ``METRICS``; those of choices only where both models made them.

    Raises:
        InputError: the results are not of the same queries.
    """
    queries = _common(base, other)
    asked = _asked([*base, *other]) & choices
    tallies = [[_tally(queries, table, asked) for table in side] for side in (base, other)]
    weight = _weights(queries, asked)
    hits = np.stack([np.mean(side, axis=0) for side in tallies])  # (2, images, counts)
    drawn = np.concatenate(
        [_values(rows, hits, weight) for rows in _draw(len(queries.images), draws, seed)], axis=1
    )
    point = _values(np.ones((1, len(queries.images)), np.float32), hits, weight)[:, 0]
    single = [_singles(side, weight) for side in tallies]
    runs = single[1] - single[0] if len(base) == len(other) else np.zeros((0, len(METRICS)))
    kept = [k for k in range(len(METRICS)) if np.isfinite(point[:, k]).all()]
    return [_difference(k, point, drawn, runs) for k in kept]


def _difference(k: int, point: np.ndarray, drawn: np.ndarray, runs: np.ndarray) -> Difference:
    gaps = (drawn[1] - drawn[0])[:, k]
    gaps = gaps[np.isfinite(gaps)]
    low, high = np.percentile(gaps, [2.5, 97.5]) if len(gaps) else (np.nan, np.nan)
    base, other = point[:, k].tolist()
    return Difference(
        metric=METRICS[k],
        base=base,
        other=other,
        difference=other - base,
        low=float(low),
        high=float(high),
        above=float(np.mean((np.sign(gaps) + 1) / 2)) if len(gaps) else np.nan,
        runs=tuple(runs[:, k].tolist()),
    )


def _common(base: Sequence[pa.Table], other: Sequence[pa.Table]) -> Queries:
    first = base[0].select(["pair", "image"])
    for table in (*base, *other):
        if not table.select(["pair", "image"]).equals(first):
            found = f"{len(first):,} captions and {len(table):,}, not the same ones"
            do = "evaluate them on the same split and features"
            raise InputError("compare", found, expected="results of the same queries", do=do)
    return Queries.of(first)


def _asked(tables: Sequence[pa.Table]) -> np.ndarray:
    """(M,) bool: captions to which every run had same-object choices."""
    columns = [table.column(name) for table in tables for name in CHOICES.values()]
    return np.all([column.is_valid().to_numpy() for column in columns], axis=0)


def _tally(queries: Queries, table: pa.Table, asked: np.ndarray) -> np.ndarray:
    """Count each image's successes: (N, 10), i2t and t2i at each K, then the ways of choosing."""
    i2t = np.zeros(len(queries.images), np.int64)
    i2t[queries.owner] = table.column("i2t_rank").to_numpy()
    t2i = table.column("t2i_rank").to_numpy()
    counts = [i2t < k for k in KS]
    counts += [_by_image(queries, t2i < k) for k in KS]
    for name in CHOICES.values():
        right = table.column(name).fill_null(False).to_numpy()
        counts.append(_by_image(queries, right & asked))
    return np.stack(counts, axis=1).astype(np.float32)


def _weights(queries: Queries, asked: np.ndarray) -> np.ndarray:
    """What each image's successes are out of: (N, 10)."""
    ones = np.ones(len(queries.images))
    captions, choices = _by_image(queries, np.ones(len(asked))), _by_image(queries, asked)
    columns = [ones] * len(KS) + [captions] * len(KS) + [choices] * len(CHOICES)
    return np.stack(columns, axis=1).astype(np.float32)


def _by_image(queries: Queries, values: np.ndarray) -> np.ndarray:
    return np.bincount(queries.owner, values, minlength=len(queries.images))


def _draw(images: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Yield (some, images) float32: how often each draw holds each image."""
    rng = np.random.default_rng(seed)
    some = max(1, _CELLS // images)
    for first in range(0, draws, some):
        count = min(some, draws - first)
        chosen = rng.integers(0, images, (count, images)) + images * np.arange(count)[:, None]
        counts = np.bincount(chosen.ravel(), minlength=count * images)
        yield counts.reshape(count, images).astype(np.float32)


def _values(rows: np.ndarray, hits: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The metrics of each draw: rows (d, N), hits (s, N, 10) -> (s, d, metrics) in percent."""
    with np.errstate(invalid="ignore"):
        shares = 100 * (rows @ hits).astype(np.float64) / (rows @ weight).astype(np.float64)
    recalls, choices = np.split(shares, [len(_RECALLS)], axis=2)
    return np.concatenate([recalls, recalls.sum(2, keepdims=True), choices], axis=2)


def _singles(tallies: Sequence[np.ndarray], weight: np.ndarray) -> np.ndarray:
    """The metrics of each run on all images: (runs, metrics)."""
    all_images = np.ones((1, len(weight)), np.float32)
    return _values(all_images, np.stack(tallies), weight)[:, 0]
