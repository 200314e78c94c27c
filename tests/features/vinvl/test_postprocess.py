"""Which boxes become detections, in cases small enough to do by hand."""

from __future__ import annotations

import torch

from tonics.features.vinvl import VinVLConfig
from tonics.features.vinvl.heads import AttributeHead
from tonics.features.vinvl.postprocess import detect, name_given

APART = torch.tensor([[0.0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]])


def test_a_box_takes_its_second_class_where_the_first_is_suppressed():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9]])
    p = torch.tensor([[0.0, 0.9, 0.1], [0.0, 0.7, 0.3]])
    found = detect(p, boxes, VinVLConfig())
    assert found.labels.tolist() == [1, 2]
    assert found.rows.tolist() == [0, 1]
    assert found.scores.tolist() == [p[0, 1], p[1, 2]]


def test_a_box_suppressed_in_every_class_is_gone_whatever_the_minimum():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9]])
    found = detect(torch.tensor([[0.1, 0.5, 0.4], [0.7, 0.2, 0.1]]), boxes, VinVLConfig())
    assert found.rows.tolist() == [0]


def test_the_minimum_takes_what_is_below_the_threshold_and_the_maximum_cuts():
    p = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.0, 0.8], [0.7, 0.3, 0.0]])
    found = detect(p, APART, VinVLConfig(min_detections=3))
    assert found.rows.tolist() == [1, 2, 0]
    found = detect(p, APART, VinVLConfig(min_detections=0, max_detections=1))
    assert found.rows.tolist() == [1]
    found = detect(p, APART, VinVLConfig(min_detections=0))
    assert found.rows.tolist() == [1, 2]


def test_one_box_under_several_classes():
    p = torch.tensor([[0.1, 0.5, 0.4], [0.2, 0.3, 0.5], [0.9, 0.1, 0.0]])
    found = detect(p, APART, VinVLConfig(nms_filter=0, min_detections=0))
    assert found.labels.tolist() == [1, 1, 2, 2]
    assert found.rows.tolist() == [0, 1, 1, 0]


def test_equal_scores_may_pass_the_maximum_of_filter_0():
    p = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.1, 0.9]])
    config = VinVLConfig(nms_filter=0, min_detections=0, max_detections=2)
    assert len(detect(p, APART, config).rows) == 3


def test_the_fast_filter_drops_what_is_thinner_than_nothing():
    boxes = APART.clone()
    boxes[0, 2] = -0.5
    p = torch.tensor([[0.1, 0.9], [0.2, 0.8], [0.9995, 0.0005]])
    found = detect(p, boxes, VinVLConfig(nms_filter=2))
    assert found.rows.tolist() == [1]


def test_moved_boxes_are_those_of_the_detected_class():
    p = torch.tensor([[0.1, 0.2, 0.7], [0.2, 0.8, 0.0]])
    moved = torch.arange(24, dtype=torch.float32).view(2, 3, 4)
    for nms_filter in (0, 1, 2):
        found = detect(p, moved, VinVLConfig(nms_filter=nms_filter, score_thresh=0.5))
        for row, label, box in zip(found.rows, found.labels, found.boxes, strict=True):
            assert box.equal(moved[row, label])
        assert {(0, 2), (1, 1)} <= set(zip(found.rows.tolist(), found.labels.tolist(), strict=True))


def test_given_boxes_keep_their_order_and_the_background_no_say():
    found = name_given(torch.tensor([[0.9, 0.06, 0.04], [0.0, 0.2, 0.8]]), APART[:2])
    assert (found.labels.tolist(), found.rows.tolist()) == ([1, 2], [0, 1])


def test_attributes_at_the_threshold_are_filler():
    head = object.__new__(AttributeHead)
    head.threshold = 0.25
    logits = torch.tensor([[8.0, 1, 1, 1, 1], [0.0, 9, 0, 0, 0]])
    labels, scores = head.best(logits - torch.tensor([[100.0, 0, 0, 0, 0]]))
    assert scores[0].sum() == 0  # four of exactly 0.25
    assert labels[1, 0] == 1
    assert labels.shape == scores.shape == (2, 16)
    assert (scores[1] > 0).sum() == 1


def test_a_score_of_just_the_threshold():
    """Filters 1 and 2 count it among the good ones, filter 0 does not."""
    p = torch.tensor([[0.5, 0.5], [0.75, 0.25], [0.875, 0.125]])
    config = {"score_thresh": 0.25, "min_detections": 0}
    rows = {
        k: detect(p, APART, VinVLConfig(nms_filter=k, **config)).rows.tolist() for k in (0, 1, 2)
    }
    assert rows == {0: [0], 1: [0, 1], 2: [0, 1]}


def test_halving_stops_where_there_are_enough_above_the_threshold():
    """At 0.25 there are two, of which one is just at it: it takes 0.125 to have two."""
    p = torch.tensor([[0.5, 0.5], [0.75, 0.25], [0.8, 0.2]])
    config = VinVLConfig(nms_filter=0, score_thresh=0.5, min_detections=2)
    assert detect(p, APART, config).rows.tolist() == [0, 1, 2]
    config = VinVLConfig(nms_filter=0, score_thresh=0.4, min_detections=2)
    assert detect(p, APART, config).rows.tolist() == [0, 1]


def test_the_fast_filter_looks_at_what_is_above_a_hundredth_of_the_threshold():
    """A hundredth of 0.25, as float32, is a score; it must be passed, whatever the minimum."""
    least = float(torch.tensor(0.01 * 0.25))
    score_thresh = least / 0.01
    assert 0.01 * score_thresh == least
    p = torch.tensor([[0.5, 0.5], [1 - 2 * least, 2 * least], [1 - least, least]])
    found = detect(p, APART, VinVLConfig(nms_filter=2, score_thresh=score_thresh))
    assert found.rows.tolist() == [0, 1]
