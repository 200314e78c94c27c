"""Poolings against plain loops over items."""

import pytest
import torch

from tonics.train.model.packed import Layout
from tonics.train.model.pooling import GPO, AttentionPool, Dropout

COUNTS = [3, 1, 6, 0]
KEPT = torch.tensor([1, 0, 1, 1, 1, 1, 0, 1, 1, 1]).bool()


@pytest.fixture
def laid_out():
    torch.manual_seed(0)
    rows = torch.randn(10, 16, dtype=torch.float64)
    bounds = torch.tensor([0, 3, 4, 10, 10])
    return rows, Layout.of(bounds, 10, 7)


def parts(rows):
    return [r[k] for r, k in zip(rows.split(COUNTS), KEPT.split(COUNTS), strict=True)]


def test_gpo_weighs_the_sorted_values_of_what_stays(laid_out):
    rows, layout = laid_out
    pool = GPO().double()
    torch.nn.init.normal_(pool.score.weight)
    found = pool(rows, layout, layout.present(KEPT))
    for vector, part in zip(found, parts(rows), strict=True):
        n = len(part)
        weights = pool.weights(n)[n]
        alone = sum(
            w * v for w, v in zip(weights, part.sort(0, descending=True).values, strict=True)
        )
        torch.testing.assert_close(vector, alone if n else torch.zeros(16).double())


def test_gpo_begins_as_the_mean_and_its_weights_add_up(laid_out):
    rows, layout = laid_out
    pool = GPO().double()
    found = pool(rows, layout, layout.present(KEPT))
    for vector, part in zip(found[:3], parts(rows), strict=False):
        torch.testing.assert_close(vector, part.mean(0))
    torch.nn.init.normal_(pool.score.weight)
    weights = pool.weights(7)
    torch.testing.assert_close(weights.sum(1), torch.tensor([0.0, *[1.0] * 7]).double())
    assert (weights >= 0).all()
    assert not weights.triu(0).any()  # the n weights of row n come first


def test_gpo_is_float32_under_autocast(laid_out):
    rows, layout = laid_out
    pool = GPO()
    torch.nn.init.normal_(pool.score.weight)
    exactly = pool(rows.float(), layout, layout.present(KEPT))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pool(rows.float(), layout, layout.present(KEPT)), exactly)


def test_gpo_can_become_the_maximum(laid_out):
    """A position counts by its distance from the top, whatever the length."""
    rows, layout = laid_out
    pool = GPO().double()
    optimizer = torch.optim.Adam(pool.parameters(), lr=0.02)
    for _ in range(150):
        loss = (1 - pool.weights(7)[1:, 0]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = pool(rows, layout, layout.present(KEPT))
    best = torch.stack([part.max(0).values for part in parts(rows)[:3]])
    torch.testing.assert_close(found[:3], best, atol=0.1, rtol=0)


def test_attention_pooling_weighs_what_stays(laid_out):
    rows, layout = laid_out
    pool = AttentionPool(16).double()
    found = pool(rows, layout, layout.present(KEPT))
    for vector, part in zip(found, parts(rows), strict=True):
        weights = pool.score(pool.norm(part)).softmax(0)
        alone = (part.unflatten(-1, (8, 2)) * weights[..., None]).sum(0).flatten()
        torch.testing.assert_close(vector, alone)


def test_dropout_leaves_out_the_same_numbers_in_all_rows_of_an_item(laid_out):
    _, layout = laid_out
    dropout = Dropout(0.4)
    torch.manual_seed(0)
    found = torch.stack([dropout(torch.ones(10, 16), layout) for _ in range(100)])
    for part in found.split(COUNTS[:3], dim=1):
        assert (part == part[:, :1]).all()
    assert not torch.equal(found[:, 0], found[:, 4])  # of two items
    assert found.mean() == pytest.approx(1, abs=0.05)
    assert torch.equal(dropout.eval()(torch.ones(10, 16), layout), torch.ones(10, 16))
