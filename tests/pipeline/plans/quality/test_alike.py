"""Cosines within batches equal the plain computation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tonics.pipeline.plans.quality import alike
from tonics.pipeline.plans.quality.alike import compare_within, spread


def plain(vectors: np.ndarray, groups: int, near: float) -> list[float]:
    size = len(vectors)
    wide = vectors.astype(np.float64)
    cosine = wide @ wide.T
    length = np.sqrt(np.diag(cosine))
    cosine = cosine / np.maximum(np.outer(length, length), 1e-9)
    others = ~np.eye(size, dtype=bool)
    group = np.arange(size) // (size // max(1, groups)) if groups > 1 else np.arange(size)
    nearest = np.where(others, cosine, -2).max(axis=1)
    apart = group[:, None] != group[None]
    return [nearest.mean(), cosine[others].mean(), cosine[apart].mean(), (nearest >= near).mean()]


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from([(2, 3), (8, 5), (40, 300), (64, 20), (70, 257)]),
    st.integers(0, 5),
    st.integers(0, 2**32 - 1),
)
def test_figures_equal_the_plain_computation(shape: tuple[int, int], count: int, seed: int) -> None:
    size, dim = shape
    rng = np.random.default_rng(seed)
    pool = (rng.standard_normal((200, dim)) + 0.5).astype(np.float16)
    pool[0] = 0
    rows = rng.integers(0, 200, (count, size))
    groups = np.array([0, 2, size // 2 if size % 2 == 0 else 0, 1, 0], np.int64)[:count]
    found = compare_within(lambda some: pool[some], rows, groups, near=0.6)
    wanted = [plain(pool[r], g, 0.6) for r, g in zip(rows, groups.tolist(), strict=True)]
    wanted_by_figure = np.array(wanted).reshape(count, 4).T
    for name, values in zip(("top1", "mean", "apart"), wanted_by_figure, strict=False):
        assert getattr(found, name) == pytest.approx(values, abs=1e-5)
    assert found.suspects == pytest.approx(wanted_by_figure[3], abs=2.1 / size)


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)
    rows = np.random.default_rng(1).integers(0, 50, (20, 10))
    whole = compare_within(lambda some: pool[some], rows, near=0.6)
    monkeypatch.setattr(alike, "_VECTORS", 30)
    cut = compare_within(lambda some: pool[some], rows, near=0.6)
    for name in ("top1", "mean", "apart", "suspects"):
        assert getattr(cut, name) == pytest.approx(getattr(whole, name), abs=1e-6)


def test_evenly_spaced_and_of_every_phase() -> None:
    phase = np.array([0] * 900 + [1] * 90 + [2] * 10 + [3])
    chosen = spread(phase, 100)
    assert np.bincount(phase[chosen]).tolist() == [89, 8, 2, 1]
    assert set(np.diff(chosen[phase[chosen] == 0])) == {10, 11}
    assert spread(phase, len(phase)).tolist() == list(range(len(phase)))
