"""Overlaps and suppression: every way to compute them gives what the plain loop gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tonics.features.vinvl import nms as module
from tonics.features.vinvl.boxes import clip, decode, iou, overlaps
from tonics.features.vinvl.nms import nms, nms_by_class, survivors

KINDS = ("torchvision", "legacy")


def drawn_boxes(seed, n):
    """Boxes that overlap a lot, some of no area and some twice; scores with ties."""
    rng = np.random.default_rng(seed)
    low = rng.random((n, 2)) * 40
    boxes = np.concatenate([low, low + rng.random((n, 2)) * 30], axis=1).round(1)
    boxes[rng.random(n) < 0.1, 2:] = boxes[rng.random(n) < 0.1, 2:].mean() if n > 50 else 20
    boxes[:, 2:] = np.maximum(boxes[:, :2], boxes[:, 2:])
    flat = rng.random(n) < 0.2
    boxes[flat, 2] = boxes[flat, 0]
    scores = rng.random(n).round(1)
    return torch.from_numpy(boxes.astype(np.float32)), torch.from_numpy(scores.astype(np.float32))


def in_one_matrix(boxes, scores, threshold, kind):
    """As a GPU does it without torchvision."""
    order = scores.argsort(descending=True, stable=True)
    ranked = boxes[order]
    before = overlaps(ranked[:, None], ranked[None], threshold, kind).triu(1)
    return order[survivors(before[None])[0]]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(0, 60),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
    kind=st.sampled_from(KINDS),
)
def test_suppression_is_the_plain_loop(plain, seed, n, threshold, kind):
    boxes, scores = drawn_boxes(seed, n)
    expected = plain.suppress(boxes.numpy(), scores.numpy(), threshold, kind)
    assert nms(boxes, scores, threshold, kind).tolist() == expected
    matrix = in_one_matrix(boxes, scores, threshold, kind).tolist()
    assert (sorted(matrix) if kind == "legacy" else matrix) == expected


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 30),
    kind=st.sampled_from(KINDS),
    own=st.booleans(),
)
def test_suppression_by_class_is_suppression_of_each_class(plain, seed, n, kind, own):
    classes = 5
    scores = torch.stack([drawn_boxes(seed + k, n)[1] for k in range(classes)], dim=1)
    boxes = drawn_boxes(seed, n)[0]
    if own:
        boxes = torch.stack([drawn_boxes(seed + k, n)[0] for k in range(classes)], dim=1)
    alive = nms_by_class(boxes, scores, 0.3, kind)
    for k in range(classes):
        ours = boxes[:, k] if own else boxes
        expected = plain.suppress(ours.numpy(), scores[:, k].numpy(), 0.3, kind)
        assert alive[:, k].nonzero()[:, 0].tolist() == sorted(expected)
    order = scores.T.argsort(dim=1, descending=True, stable=True)
    ranked = boxes.transpose(0, 1) if own else boxes[None]
    assert module._as_matrices(ranked, order, 0.3, kind).T.equal(alive)


def test_matrices_are_solved_some_classes_at_a_time(monkeypatch):
    boxes = drawn_boxes(1, 30)[0]
    scores = torch.rand(30, 7, generator=torch.Generator().manual_seed(0))
    order = scores.T.argsort(dim=1, descending=True, stable=True)
    at_once = module._as_matrices(boxes[None], order, 0.3, "legacy")
    monkeypatch.setattr(module, "_CLASSES_AT_ONCE", 3)
    monkeypatch.setattr(module, "_CLASSES_WITH_BOXES", 2)
    assert module._as_matrices(boxes[None], order, 0.3, "legacy").equal(at_once)
    assert 0 < at_once.float().mean() < 1
    own = boxes.expand(7, -1, -1)
    assert module._as_matrices(own, order, 0.3, "legacy").equal(at_once)


def test_the_limit_keeps_the_best():
    boxes, scores = drawn_boxes(3, 50)
    every = nms(boxes, scores, 0.5, "torchvision")
    assert nms(boxes, scores, 0.5, "torchvision", 7).equal(every[:7])


def test_boxes_of_no_area_suppress_each_other_only_in_legacy():
    boxes = torch.tensor([[3.0, 1, 3, 9], [3, 1, 3, 9]])
    assert iou(boxes[0], boxes[1]).isnan()
    assert len(nms(boxes, torch.ones(2), 0.5, "torchvision")) == 2
    assert len(nms(boxes, torch.ones(2), 0.5, "legacy")) == 1


def test_an_overlap_of_just_the_threshold():
    half = torch.tensor([[0.0, 0, 2, 1], [0, 0, 1, 1]])  # IoU 0.5
    assert len(nms(half, torch.ones(2), 0.5, "torchvision")) == 2
    legacy = torch.tensor([[0.0, 0, 1, 0], [0, 0, 0, 0]])  # 2 and 1 pixels
    assert len(nms(legacy, torch.ones(2), 0.5, "legacy")) == 1
    # 3/10 as float32 lies above the double 0.3, and torchvision compares as doubles
    third = torch.tensor([[0.0, 0, 10, 1], [0, 0, 3, 1]])
    assert len(nms(third, torch.ones(2), 0.3, "torchvision")) == 1
    assert len(nms(third, torch.ones(2), 0.7, "torchvision")) == 2


def test_decoding_and_clipping():
    box = torch.tensor([[10.0, 10, 19, 29]])  # 10 x 20 pixels, the last ones counted
    still = decode(torch.zeros(1, 4), box, (1.0, 1, 1, 1))
    assert still.tolist() == [[10, 10, 19, 29]]
    moved = decode(torch.tensor([[1.0, 0.5, np.log(2), 99.0]]), box, (10.0, 10, 5, 5))
    width, height = 10 * 2 ** (1 / 5), 20 * 62.5
    expected = [16 - width / 2, 21 - height / 2, 15 + width / 2, 20 + height / 2]
    assert moved[0].tolist() == pytest.approx(expected, abs=1e-3)
    assert clip(moved, (40, 18))[0].tolist() == pytest.approx([expected[0], 0, 17, 39])


@pytest.mark.shared
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
@pytest.mark.parametrize(("kind", "name"), [("torchvision", "tv"), ("legacy", "legacy_cpu")])
def test_the_references_suppression(ops, threshold, kind, name):
    boxes, scores = (torch.from_numpy(ops[f"nms_{part}"]) for part in ("boxes", "scores"))
    found = nms(boxes, scores, threshold, kind)
    assert found.tolist() == ops[f"nms_{name}_{threshold}"].tolist()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_suppresses_alike(kind):
    boxes, scores = drawn_boxes(5, 400)
    for threshold in (0.3, 0.5, 0.7):
        expected = nms(boxes, scores, threshold, kind).tolist()
        assert nms(boxes.cuda(), scores.cuda(), threshold, kind).tolist() == expected
    for shape in ([10, 1, 3, 1], [10, 1, 7, 1], [2, 1, 1, 1]):  # IoU 3/10, 7/10, 1/2
        tie = torch.tensor([[0.0, 0, *shape[:2]], [0, 0, *shape[2:]]])
        for threshold in (0.3, 0.5, 0.7):
            expected = nms(tie, torch.ones(2), threshold, kind).tolist()
            assert nms(tie.cuda(), torch.ones(2).cuda(), threshold, kind).tolist() == expected
    by_class = torch.rand(400, 300, generator=torch.Generator().manual_seed(0))
    alive = nms_by_class(boxes, by_class, 0.3, kind)
    assert nms_by_class(boxes.cuda(), by_class.cuda(), 0.3, kind).cpu().equal(alive)
