"""Packed rows: means, layouts, attention within an item, rows that are left out."""

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tonics.train.model.packed import Layout, attend, draw_kept, segment_mean


def bounds(counts):
    return torch.tensor(np.cumsum([0, *counts]), dtype=torch.int32)


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.booleans())
def test_segment_mean_equals_a_loop_over_items(counts, weighted):
    torch.manual_seed(sum(counts))
    rows = torch.randn(sum(counts), 3, requires_grad=True)
    weights = torch.randint(0, 2, (len(rows),)).float() if weighted else torch.ones(len(rows))
    parts = zip(rows.split(counts), weights.split(counts), strict=True)
    loop = torch.stack([(r * w[:, None]).sum(0) / w.sum().clamp(min=1) for r, w in parts])
    found = segment_mean(rows, bounds(counts), weights)
    torch.testing.assert_close(found, loop, atol=1e-6, rtol=1e-5)
    target = torch.randn(loop.shape)
    slow, fast = (torch.autograd.grad((x * target).sum(), rows)[0] for x in (loop, found))
    torch.testing.assert_close(fast, slow, atol=1e-6, rtol=1e-5)


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.integers(0, 3))
def test_rows_are_spread_by_item_and_collected_again(counts, room):
    rows = torch.arange(2.0 * sum(counts)).view(-1, 2) + 1
    layout = Layout.of(bounds(counts), len(rows), max(counts) + room)
    places = layout.spread(rows, -1.0)
    for item, part in zip(places, rows.split(counts), strict=True):
        assert torch.equal(item[: len(part)], part)
        assert (item[len(part) :] == -1).all()
    assert torch.equal(layout.collect(places), rows)
    assert layout.present().sum(1).tolist() == counts


def test_attention_is_that_of_each_item_alone():
    torch.manual_seed(0)
    counts = [3, 1, 6]
    query, key, value = (torch.randn(10, 2, 4) for _ in range(3))
    kept = torch.tensor([1, 0, 1, 1, 1, 1, 0, 0, 1, 1])
    layout = Layout.of(bounds(counts), 10, 8)
    found = attend(query, key, value, layout, layout.present(kept), scale=0.3)
    parts = zip(*(x.split(counts) for x in (query, key, value, kept, found)), strict=True)
    for q, k, v, stays, seen in parts:
        stays = stays.bool()
        heads = (x.transpose(0, 1) for x in (q, k[stays], v[stays]))
        alone = F.scaled_dot_product_attention(*heads, scale=0.3).transpose(0, 1)
        torch.testing.assert_close(seen, alone, atol=1e-6, rtol=1e-5)


def test_leaving_rows_out_leaves_each_item_at_least_one():
    counts = [1, 2, 3, 40]
    torch.manual_seed(0)
    draws = torch.stack([draw_kept(bounds(counts), 46, 0.5) for _ in range(400)])
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert all(part.sum(1).min() >= 1 for part in draws.split(counts, dim=1))
    assert draws[:, 0].all()  # an item with one row always keeps it
    assert 0.45 < draws[:, 6:].mean() < 0.55
