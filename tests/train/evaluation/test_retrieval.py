"""Recall by the field's rules, against numbers done by hand and a naive argsort."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tonics.errors import InputError
from tonics.train.evaluation.retrieval import ranks, recall


def naive_ranks(images, texts, owner):
    """Place of the best right answer in a full sort, wrong candidates first among equals."""
    scores = images.astype(np.float64) @ texts.astype(np.float64).T
    scores = scores.astype(np.float32)
    i2t = []
    for k in range(len(images)):
        right = owner == k
        if right.any():
            order = np.lexsort((right, -scores[k]))
            i2t.append(int(np.flatnonzero(right[order])[0]))
    t2i = []
    for j in range(len(texts)):
        right = np.arange(len(images)) == owner[j]
        order = np.lexsort((right, -scores[:, j]))
        t2i.append(int(np.flatnonzero(right[order])[0]))
    return i2t, t2i


def unit(rng, n, d=4):
    x = rng.normal(size=(n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@settings(deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 30), st.integers(1, 13), st.integers(0, 999), st.booleans()
)
def test_equals_a_naive_argsort_for_any_cut(num_images, num_texts, chunk, seed, coarse):
    rng = np.random.default_rng(seed)
    images, texts = unit(rng, num_images), unit(rng, num_texts)
    if coarse:  # many exact ties
        images, texts = np.round(images), np.round(texts)
    owner = rng.integers(0, num_images, num_texts)
    found = ranks(images, texts, owner, chunk=chunk)
    i2t, t2i = naive_ranks(images, texts, owner)
    assert found.i2t.tolist() == i2t
    assert found.t2i.tolist() == t2i


def test_by_hand():
    # image 0: captions 0 and 1; image 1: caption 2; image 2 has no caption but is a candidate
    images = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    texts = np.array([[0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
    # scores   caption:   0     1    2
    # image 0            0.8   0.0  0.6   best own 0.8: rank 0
    # image 1            0.6   1.0  0.8   own 0.8, beaten by caption 1: rank 1
    # image 2            0.96  0.8  1.0   not a query
    found = ranks(images, texts, np.array([0, 0, 1]))
    assert found.i2t.tolist() == [0, 1]
    # caption 0: own 0.8, image 2 has 0.96: 1. caption 1: own 0, both others above: 2.
    # caption 2: own 0.8, image 2 has 1.0: 1.
    assert found.t2i.tolist() == [1, 2, 1]
    scored = recall(images, texts, np.array([0, 0, 1]))
    assert (scored.i2t.r1, scored.i2t.r5, scored.i2t.queries) == (50, 100, 2)
    assert scored.i2t.median_rank == 1.5
    assert (scored.t2i.r1, scored.t2i.r5, scored.t2i.r10) == (0, 100, 100)
    assert scored.t2i.median_rank == 2
    assert scored.rsum == 450


def test_k_counts_the_best_of_an_images_captions():
    rng = np.random.default_rng(0)
    images = np.eye(30)
    texts = np.repeat(images, 5, axis=0)
    wrong = rng.permutation(150).reshape(30, 5)  # four captions of five say nothing
    texts[wrong[:, 1:].ravel()] = 0
    owner = np.repeat(np.arange(30), 5)
    kept = {int(owner[k]) for k in np.flatnonzero(texts.any(1))}
    found = recall(images, texts, owner)
    assert found.i2t.r1 == pytest.approx(100 * len(kept) / 30)


def test_a_collapsed_model_scores_nothing():
    rng = np.random.default_rng(0)
    for vector in (np.ones(64) / 8, unit(rng, 1, 512)[0], np.zeros(16)):
        images = np.tile(vector.astype(np.float32), (100, 1))
        texts = np.tile(vector.astype(np.float32), (500, 1))
        found = recall(images, texts, np.repeat(np.arange(100), 5))
        assert found.rsum == 0
        assert found.i2t.tie_rate == found.t2i.tie_rate == 100


def test_scores_are_float32_where_bfloat16_would_tie():
    """bf16 cannot tell a right answer from one that is a little better: fp32 must."""
    right, better = 0.899, 0.8991  # alike in bfloat16, and in float16
    images = np.array([[1, 0], [0, 1]], np.float32)
    texts = np.array([[right, better], [better, right]], np.float32)
    found = recall(images, texts, np.arange(2))
    assert found.t2i.r1 == found.i2t.r1 == 0
    assert found.t2i.tie_rate == 0
    coarse = torch.tensor(texts).bfloat16().float().numpy()
    assert recall(images, coarse, np.arange(2)).t2i.tie_rate == 100  # the trap is real


def test_a_tie_with_a_wrong_candidate_is_a_loss_but_not_with_ones_own_captions():
    images = np.array([[1.0, 0], [0, 1]])
    texts = np.array([[1.0, 0], [1, 0], [0, 1], [0.5, 1]])
    found = ranks(images, texts, np.array([0, 0, 1, 1]))
    assert found.i2t.tolist() == [0, 0]
    assert not found.i2t_tied.any()
    found = ranks(images, texts, np.array([0, 1, 1, 1]))
    assert found.i2t.tolist() == [1, 0]
    assert found.i2t_tied.tolist() == [True, False]


def test_random_vectors_score_at_chance():
    rng = np.random.default_rng(3)
    images, texts = unit(rng, 200, 32), unit(rng, 1000, 32)
    found = recall(images, texts, np.repeat(np.arange(200), 5))
    assert found.t2i.r10 < 9
    assert 80 < found.t2i.median_rank < 120


@pytest.mark.parametrize(
    ("images", "texts", "owner", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), [0, 1], r"\(2, 3\), caption vectors \(2, 4\)"),
        (np.ones((2, 3)), np.ones((0, 3)), [], "at least one caption"),
        (np.ones((2, 3)), np.ones((2, 3)), [0], "one number for each"),
        (np.ones((2, 3)), np.ones((2, 3)), [0, 2], "rows 0 to 1"),
        (np.ones((2, 3)), np.ones((2, 3)), [-1, 0], "rows 0 to 1"),
        (np.ones((2, 3)), np.full((2, 3), np.nan), [0, 1], "2 caption vectors hold NaN"),
        (np.array([[1.0], [np.inf]]), np.ones((1, 1)), [0], "1 image vectors .* first row 1"),
    ],
)
def test_bad_input(images, texts, owner, message):
    with pytest.raises(InputError, match=message):
        recall(images, texts, np.array(owner, int))
