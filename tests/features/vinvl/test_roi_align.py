"""Pooling regions: the matrices give what looking up every sample gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tonics.features.vinvl import roi_align as module
from tonics.features.vinvl.roi_align import axis_weights, roi_align


def drawn(n=12):
    """A map, and boxes in pixels: inside, degenerate, beyond every border."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.randn(6, 11, 17, generator=generator)
    low = torch.rand(n, 2, generator=generator) * 150
    boxes = torch.cat([low, low + torch.rand(n, 2, generator=generator) * 160], dim=1)
    odd = [[50.0, 60, 50, 60], [-90, -50, 20, 30], [260, 160, 271, 175], [-900, -900, -800, -800]]
    return cells, torch.cat([boxes, torch.tensor(odd)])


@pytest.mark.parametrize("samples", [0, 2])
def test_pooling_is_looking_up_every_sample(plain, samples):
    cells, boxes = drawn()
    found = roi_align(cells, boxes, 14, 1 / 16, samples=samples)
    expected = plain.pool(cells, boxes, samples=samples)
    assert expected[-1].abs().max() == 0
    assert expected[:-1].abs().amax(dim=(1, 2, 3)).min() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_all_regions_together_as_one_by_one(monkeypatch):
    cells, boxes = drawn()
    expected = roi_align(cells, boxes, 14, 1 / 16)
    monkeypatch.setattr(module, "_region_by_region", module._together)
    torch.testing.assert_close(roi_align(cells, boxes, 14, 1 / 16), expected, rtol=0, atol=2e-5)


def test_every_second_bin():
    cells, boxes = drawn()
    all_bins = roi_align(cells, boxes, 14, 1 / 16)
    found = roi_align(cells, boxes, 14, 1 / 16, every=2)
    torch.testing.assert_close(found, all_bins[:, :, ::2, ::2], rtol=0, atol=2e-5)


def test_no_boxes():
    assert roi_align(torch.ones(3, 4, 5), torch.zeros(0, 4), 7, 1 / 16).shape == (0, 3, 7, 7)


def test_weights_sum_to_the_share_of_samples_that_count():
    weights = axis_weights(torch.tensor([0.0, -3.0]), torch.tensor([4.0, 1.0]), 4, 10)
    assert weights.shape == (2, 4, 10)
    assert weights.sum(dim=2).tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]


@pytest.mark.shared
@pytest.mark.parametrize("samples", [0, 2])
def test_the_references_pooling(ops, samples):
    for roi, expected in zip(ops["ra_rois"], ops[f"ra_out_sr{samples}"], strict=True):
        cells = torch.from_numpy(ops["ra_feat"][int(roi[0])])
        found = roi_align(cells, torch.from_numpy(roi[None, 1:]), 14, 1 / 16, samples=samples)
        np.testing.assert_allclose(found[0].numpy(), expected, rtol=0, atol=5e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_pools_alike():
    cells, boxes = drawn()
    expected = roi_align(cells, boxes, 14, 1 / 16)
    found = roi_align(cells.cuda(), boxes.cuda(), 14, 1 / 16).cpu()
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    kernels = pytest.importorskip("torchvision.ops")
    rois = [boxes.cuda()]
    theirs = kernels.roi_align(cells[None].cuda(), rois, 14, 1 / 16, 0, aligned=False)
    torch.testing.assert_close(theirs.cpu(), expected, rtol=0, atol=2e-5)
