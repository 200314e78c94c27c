"""Batches of ``similar``: a walk to the nearest unused neighbour but for the very nearest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tonics.pipeline.plans import similar
from tonics.pipeline.plans.eligible import Eligible
from tonics.pipeline.plans.similar import Params, walk

from .made_up import codes_of, make_eligible, offer


def naive_walk(vectors: np.ndarray, skip: int) -> list[int]:
    """The same walk in plain Python."""
    products = (vectors.astype(np.int64) @ vectors.astype(np.int64).T).tolist()
    count = len(products)
    path, unused = [0], set(range(1, count))
    while unused:
        here = path[-1]
        others = sorted(
            (i for i in range(count) if i != here), key=lambda i: (-products[here][i], i)
        )
        far = [i for i in others[skip:] if i in unused]
        path.append(far[0] if far else min(unused))
        unused.discard(path[-1])
    return path


@pytest.mark.parametrize("skip", [0, 1, 5, 30, 99])
@pytest.mark.parametrize("coarse", [True, False])
def test_the_walk_is_the_naive_one(skip: int, coarse: bool) -> None:
    rng = np.random.default_rng(skip)
    vectors = rng.integers(-1, 2, (70, 4)) if coarse else rng.standard_normal((70, 12))
    taken = codes_of(vectors * 1.0).take(np.arange(70)).astype(np.float32)
    assert walk(taken, skip).tolist() == naive_walk(taken, skip)


def around(count: int = 1000) -> Eligible:
    """Pairs on a circle: what is near is known."""
    angle = np.random.default_rng(0).permutation(count) * 2 * np.pi / count
    vectors = np.column_stack([np.cos(angle), np.sin(angle)])
    return replace(make_eligible([1] * count, 10**9), vectors={"text": codes_of(vectors)})


def spread_of(eligible: Eligible, rows: np.ndarray) -> float:
    """The mean length of the mean vector of a batch: 1 where all are equal."""
    units = eligible.vectors["text"].codes[rows] / 4000
    return float(np.linalg.norm(units.mean(axis=1), axis=1).mean())


def test_batches_are_of_neighbours() -> None:
    eligible, rows = around(), np.arange(1000)
    made = similar.build(eligible, offer(rows, 20), Params(skip=0), np.random.default_rng(0))
    assert len(made) == 50
    assert spread_of(eligible, made.rows) > 0.9
    assert spread_of(eligible, np.random.default_rng(0).permutation(1000).reshape(-1, 20)) < 0.4


def test_no_step_goes_to_one_of_the_nearest_of_all_pairs() -> None:
    eligible = around()
    vectors = eligible.vectors["text"].codes.astype(np.int64)
    steps = {}
    for skip in (0, 60):
        made = similar.build(
            eligible,
            offer(np.arange(1000), 20),
            Params(skip=skip, window=50),
            np.random.default_rng(0),
        )
        path = made.rows.ravel()[:600]  # later on only the nearest may be unused
        order = np.argsort(-(vectors[path[:-1]] @ vectors.T), axis=1, kind="stable")
        steps[skip] = np.argmax(order == path[1:, None], axis=1) - 1
    assert steps[0].min() <= 1
    assert np.mean(steps[60] >= 60) == 1
    assert steps[60].min() < 70


def test_a_window_passes_over_its_share() -> None:
    # A window of 250 of 1,000 pairs skips 15 of the 60: those are the same neighbours.
    eligible = around()
    rows = np.random.default_rng(1).permutation(1000)[:250]
    made = similar.build(
        eligible, offer(rows, 10), Params(skip=60, window=25), np.random.default_rng(0)
    )
    path = made.rows.ravel()[:100]
    vectors = eligible.vectors["text"].codes.astype(np.int64)
    order = np.argsort(-(vectors[path[:-1]] @ vectors[rows].T), axis=1, kind="stable")
    ranks = np.argmax(rows[order] == path[1:, None], axis=1)
    assert 15 <= ranks.min() <= 17


def test_windows_bound_what_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = walk
    monkeypatch.setattr(similar, "walk", lambda v, skip: seen.append(len(v)) or real(v, skip))
    rng = np.random.default_rng(0)
    similar.build(around(), offer(np.arange(1000), 20), Params(window=3), rng)
    assert sum(seen) == 1000
    assert max(seen) <= 60
    assert max(seen) - min(seen) <= 1
    seen.clear()
    monkeypatch.setattr(similar, "_MOST", 30)
    similar.build(around(), offer(np.arange(1000), 20), Params(window=3), rng)
    assert max(seen) <= 30
