"""Whole-number similarities: exact products, ranks with ties by position, blocks of like rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonics.errors import InputError
from tonics.pipeline.plans import split as split_module
from tonics.pipeline.plans.similarity import (
    MOST_NUMBERS,
    SCALE,
    Codes,
    Similarity,
    encode,
    rank,
    whole,
)
from tonics.pipeline.plans.split import split

from .made_up import codes_of


def cosines(vectors: np.ndarray) -> np.ndarray:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


def test_products_are_exact_and_close_to_cosines() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((300, 768)) * rng.uniform(0.01, 100, (300, 1))
    similarity = Similarity((codes_of(vectors),))
    taken = similarity.take(np.arange(300))
    whole = taken.astype(np.int64)
    assert np.array_equal(whole, taken)
    products = taken @ taken.T
    assert products.dtype == np.float32
    assert np.array_equal(products.astype(np.int64), whole @ whole.T)
    assert np.abs(products / SCALE**2 - cosines(vectors)).max() < 5e-4
    along = similarity.along(np.arange(300), taken[0])
    assert np.array_equal(along.astype(np.int64), (whole @ whole.T)[0])


@pytest.mark.parametrize("width", [2, 384, 2054])
def test_no_partial_sum_is_too_large_for_float32(width: int) -> None:
    even = np.ones((1, width))  # rounds up everywhere, at worst
    one = np.eye(1, width)
    for vectors in (even, one, even + 3 * one):
        code = codes_of(vectors).codes.astype(np.int64)
        assert (code * code).sum() < 2**24


def test_both_is_the_mean_of_the_cosines() -> None:
    rng = np.random.default_rng(1)
    texts, images = rng.standard_normal((60, 40)), rng.standard_normal((20, 70))
    shown = np.repeat(np.arange(20), 3)
    pictures = Codes(codes=codes_of(images).codes, index=shown)
    taken = Similarity((codes_of(texts), pictures)).take(np.arange(60))
    assert np.array_equal(taken, np.rint(taken))
    mean = (cosines(texts) + cosines(images)[np.ix_(shown, shown)]) / 2
    assert np.abs(taken @ taken.T / SCALE**2 - mean).max() < 2e-3


def test_vectors_that_are_not_finite_are_listed() -> None:
    vectors = np.ones((9000, 3), np.float16)
    vectors[[3, 8999], [0, 2]] = np.nan, np.inf
    message = r"embeddings/captions.*2 vectors are not finite.*: 13, 9009"
    with pytest.raises(InputError, match=message):
        encode("embeddings/captions", lambda pairs: vectors[pairs - 10], np.arange(10, 9010))


def test_a_vector_of_zeros_is_like_nothing() -> None:
    vectors = np.array([[0.0, 0], [1, 0]])
    assert codes_of(vectors).codes.tolist() == [[0, 0], [SCALE, 0]]


@given(
    st.integers(1, 40), st.integers(0, 45), st.integers(0, 45), st.integers(1, 3), st.integers(0, 9)
)
def test_rank_is_a_sort_with_ties_by_position(
    count: int, first: int, last: int, values: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-values, values + 1, (count, 3)).astype(np.float32) * 1000
    seeds = rng.integers(0, count, 5)
    found = rank(vectors, seeds, first, last)
    for seed_row, near in zip(seeds.tolist(), found.tolist(), strict=True):
        products = vectors @ vectors[seed_row]
        others = [i for i in range(count) if i != seed_row]
        naive = sorted(others, key=lambda i: (-products[i], i))
        assert near == naive[first:last]


# -- split -----------------------------------------------------------------------------------------


@given(st.integers(1, 400), st.integers(1, 60), st.sampled_from([1, 4, 16]), st.integers(0, 9))
def test_blocks_are_balanced_and_lose_nothing(count: int, most: int, unit: int, seed: int) -> None:
    most = max(most, unit)
    rng = np.random.default_rng(seed)
    similarity = Similarity((codes_of(rng.integers(-1, 2, (count + 5, 4)) * 1.0),))
    rows = rng.permutation(count + 5)[:count]
    blocks = split(similarity, rows, most, rng, unit=unit)
    assert sorted(np.concatenate(blocks).tolist()) == sorted(rows.tolist())
    assert max(map(len, blocks)) <= most
    assert sum(len(block) % unit > 0 for block in blocks) <= 1
    assert len(blocks) <= 2 * -(-count // most)
    for block in blocks:
        places = [rows.tolist().index(row) for row in block.tolist()]
        assert places == sorted(places)


def test_blocks_are_of_like_rows_however_they_crowd() -> None:
    rng = np.random.default_rng(0)
    topic = rng.choice(8, 4000, p=[0.65, *[0.05] * 7])
    middle = rng.standard_normal((8, 32))
    vectors = middle[topic] + 0.3 * rng.standard_normal((4000, 32))
    blocks = split(Similarity((codes_of(vectors),)), np.arange(4000), 250, rng)
    assert {len(block) for block in blocks} == {250}
    purity = [np.bincount(topic[block]).max() / len(block) for block in blocks]
    assert np.mean(purity) > 0.85  # 0.65 by chance
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    means = np.array([unit[block].mean(axis=0) for block in blocks])
    neighbours = np.linalg.norm(means[1:] - means[:-1], axis=1).mean()
    others = np.linalg.norm(means[:, None] - means, axis=2).mean()
    assert neighbours < others


@pytest.mark.parametrize("numbers", [3, 384, 2048, MOST_NUMBERS])
def test_no_partial_sum_of_joined_kinds_or_directions_leaves_float32(numbers: int) -> None:
    """The longest vectors rounding can make: every number a half above a whole one."""
    level = np.ceil(SCALE / np.sqrt(numbers)) - 0.5
    vectors = np.full((2, numbers), level) * np.array([[1], [-1]])
    codes = encode("test", lambda rows: vectors[rows], np.arange(2))
    for parts in ((codes,), (codes, codes)):
        taken = Similarity(parts).take(np.arange(2)).astype(np.float64)
        assert np.abs(taken[:, None] * taken[None]).sum(axis=2).max() < 2**24
        direction = split_module._halfway(taken[0], taken[1]).astype(np.float64)
        assert np.abs(taken * direction).sum(axis=1).max() < 2**24


def test_wider_vectors_are_refused() -> None:
    with pytest.raises(InputError, match=f"vectors of {MOST_NUMBERS + 1} numbers, expected 4096"):
        encode("test", lambda rows: np.ones((len(rows), MOST_NUMBERS + 1)), np.arange(2))


def test_sums_become_whole_vectors_the_same_in_any_order() -> None:
    rng = np.random.default_rng(0)
    sums = rng.integers(-(10**9), 10**9, (4, 8192)).astype(np.float64)
    order = rng.permutation(8192)
    assert np.array_equal(whole(sums)[:, order], whole(sums[:, order]))
    assert np.allclose(np.linalg.norm(whole(sums), axis=1), SCALE, rtol=1e-3)
    assert not whole(np.zeros((1, 4))).any()
