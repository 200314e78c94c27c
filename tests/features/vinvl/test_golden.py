"""Every stage gives the reference's numbers, for its small model with weights by recipe."""

from __future__ import annotations

import base64
import dataclasses
import json

import numpy as np
import pytest
import torch

from tonics.features.vinvl import VinVL
from tonics.features.vinvl.boxes import CLASS_WEIGHTS, clip, decode
from tonics.features.vinvl.heads import OpenedMap
from tonics.features.vinvl.postprocess import detect
from tonics.features.vinvl.proposals import propose
from tonics.features.vinvl.roi_align import roi_align

pytestmark = pytest.mark.shared
NAMES = {"torchvision": "tv", "legacy": "legacy"}
# facts of the golden files: how far other hardware may be off
C4, BOXES, FEATURES, LOGITS, SCORES = 1e-4, 2e-3, 2e-4, 1e-3, 5e-5


def close(found, expected, tolerance):
    np.testing.assert_allclose(np.asarray(found), expected, rtol=0, atol=tolerance)


def same_boxes(found, expected, tolerance=BOXES):
    """Compare (n, k) as sets of rows: neighbours in rank may swap."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    distance = np.abs(found[:, None] - expected[None]).max(axis=2)
    assert (distance.min(axis=0) < tolerance).all()
    assert (distance.min(axis=1) < tolerance).all()


def partners(boxes, labels, scores, expected_boxes, expected_labels, expected_scores, reach=BOXES):
    """Find, for every expected detection, the one of ours: same label, box within reach.

    Ranks must agree only where the scores differ by more than twice the tolerance.
    """
    assert len(boxes) == len(expected_boxes)
    distance = np.abs(boxes[None] - expected_boxes[:, None]).max(axis=2)
    distance[expected_labels[:, None] != labels[None]] = np.inf
    distance += np.abs(expected_scores[:, None] - scores[None])  # one box under several classes
    ours = distance.argmin(axis=1)
    assert distance[np.arange(len(ours)), ours].max() < reach + SCORES
    assert len(set(ours.tolist())) == len(ours)
    close(scores[ours], expected_scores, SCORES)
    for k in np.flatnonzero(ours != np.arange(len(ours))):
        between = expected_scores[[k, ours[k]]]
        assert abs(between[0] - between[1]) <= 2 * SCORES, "another order"
    return ours


@pytest.fixture(scope="module")
def x(numbers):
    return torch.from_numpy(numbers["input"])


@pytest.fixture(scope="module")
def opened(reference, numbers) -> OpenedMap:
    return reference.model.box_head.open(torch.from_numpy(numbers["c4"]), [(15, 23)])[0]


def test_the_map(reference, numbers, x):
    close(reference.model.backbone(x[None]), numbers["c4"], C4)


def test_the_proposal_head(reference, numbers):
    logits, deltas = reference.model.rpn(torch.from_numpy(numbers["c4"]))
    close(logits, numbers["rpn_logits"], LOGITS)
    close(deltas, numbers["rpn_deltas"], LOGITS)


@pytest.mark.parametrize("kind", NAMES)
def test_proposals(reference, numbers, kind):
    config = dataclasses.replace(reference.config, nms=kind)
    outputs = (torch.from_numpy(numbers[f"rpn_{part}"][0]) for part in ("logits", "deltas"))
    boxes, scores = propose(*outputs, reference.model.rpn.anchors, (240, 360), config)
    same_boxes(boxes, numbers[f"proposals_{NAMES[kind]}"])
    close(scores, numbers[f"objectness_{NAMES[kind]}"], SCORES)


def test_pooled_regions_and_what_describes_them(reference, numbers, opened):
    boxes = torch.from_numpy(numbers["proposals"])
    pooled = roi_align(torch.from_numpy(numbers["c4"][0]), boxes[:2], 14, 1 / 16)
    close(pooled, numbers["pooled_first2"], FEATURES)
    head = reference.model.box_head
    close(head.res5(opened, boxes[:2]), numbers["res5_first2"], FEATURES)
    close(head(opened, boxes), numbers["roi_features"], FEATURES)


def test_regions_in_chunks_are_the_same(reference, numbers, opened, monkeypatch):
    from tonics.features.vinvl import heads

    boxes = torch.from_numpy(numbers["proposals"])
    monkeypatch.setattr(heads, "_REGIONS_CPU", 7)
    close(reference.model.box_head(opened, boxes), numbers["roi_features"], FEATURES)


def test_predictions(golden_state, numbers):
    from tonics.features.vinvl.checkpoint import Weights
    from tonics.features.vinvl.config import VinVLConfig
    from tonics.features.vinvl.heads import ClassHead

    prefix = "roi_heads.box.predictor"
    state = {k: torch.from_numpy(v) for k, v in golden_state.items() if k.startswith(prefix)}
    weights = Weights(state, "cpu", torch.float32)
    head = ClassHead(weights, VinVLConfig(ignore_box_regression=False))
    features = torch.from_numpy(numbers["roi_features"])
    close(head.logits(features), numbers["cls_logits"], LOGITS)
    close(head.deltas(features), numbers["box_deltas"], LOGITS)


def variants():
    for kind in NAMES:
        for nms_filter in (0, 1, 2):
            for ignore in (True, False):
                yield kind, nms_filter, ignore, "", {}
            yield kind, nms_filter, True, "_min", {"score_thresh": 0.9999}
            low = {"score_thresh": 0.05, "max_detections": 20}
            yield kind, nms_filter, True, "_max20", low


@pytest.mark.parametrize(("kind", "nms_filter", "ignore", "suffix", "changed"), list(variants()))
def test_post_processing(reference, numbers, kind, nms_filter, ignore, suffix, changed):
    config = dataclasses.replace(reference.config, nms=kind, nms_filter=nms_filter, **changed)
    boxes = torch.from_numpy(numbers["proposals"])
    if not ignore:
        deltas = torch.from_numpy(numbers["box_deltas"]).view(len(boxes), -1, 4)
        boxes = clip(decode(deltas, boxes[:, None], CLASS_WEIGHTS), (240, 360))
    found = detect(torch.from_numpy(numbers["cls_logits"]).softmax(dim=1), boxes, config)
    prefix = f"pp_{NAMES[kind]}_f{nms_filter}_ign{int(ignore)}{suffix}"
    labels, scores = (numbers[f"{prefix}_{part}"] for part in ("labels", "scores"))
    if nms_filter == 2 and not ignore:  # the reference returns boxes of other proposals
        np.testing.assert_array_equal(found.labels, labels)
        close(found.scores, scores, SCORES)
        close(found.boxes, boxes[found.rows, found.labels], 0)
    else:
        ours = (found.boxes.numpy(), found.labels.numpy(), found.scores.numpy())
        partners(*ours, numbers[f"{prefix}_boxes"], labels, scores)


def same_detections(regions, numbers, prefix):
    """Compare all but features; returns the places of the expected detections among ours."""
    expected = [numbers[f"{prefix}_{part}"] for part in ("boxes", "labels", "scores")]
    ours = partners(regions.boxes, regions.labels, regions.scores, *expected)
    scores = numbers[f"{prefix}_attr_scores"]
    close(regions.attribute_scores[ours], scores, SCORES)
    real = scores > 0  # the others are filler
    expected = numbers[f"{prefix}_attr_labels"][real]
    np.testing.assert_array_equal(regions.attributes[ours][real], expected)
    return ours


def test_extraction(reference, numbers, x):
    regions = reference.detect_tensor(x)
    assert (len(regions), regions.features.dtype) == (19, np.float32)
    ours = same_detections(regions, numbers, "fe")
    close(regions.features[ours], numbers["fe_box_features"], FEATURES)
    head = reference.model.attribute_head
    labels = torch.from_numpy(numbers["fe_labels"])
    hidden = head.hidden(torch.from_numpy(numbers["fe_box_features"]), labels)
    close(hidden, numbers["fe_attr_feature"], LOGITS)
    close(head.attr_score(hidden), numbers["fe_attr_logits"], LOGITS)


def test_the_demo_moves_boxes_and_looks_at_them_again(golden, golden_state, reference, numbers, x):
    config = dataclasses.replace(reference.config, ignore_box_regression=False)
    demo = VinVL.from_state_dict(golden_state, golden / "labelmap_tiny.json", config)
    same_detections(demo.detect_tensor(x), numbers, "demo")


def test_a_photo_in_its_own_pixels(golden, reference, numbers):
    """Against arrays of the reference, and the file its extraction wrote."""
    Image = pytest.importorskip("PIL.Image")
    with Image.open(golden / "woman_fish.jpg") as image:
        (regions,) = reference([image])
    regions.check("woman_fish", 2048)
    assert [regions.height, regions.width] == numbers["orig_hw"].tolist()
    scale = 4096 / 360
    expected = [numbers[f"fe_{part}"] for part in ("boxes_orig", "labels", "scores")]
    ours = partners(regions.boxes, regions.labels, regions.scores, *expected, BOXES * scale)
    close(regions.geometry[ours], numbers["fe_feat2054"][:, 2048:], 1e-5)
    row = (golden / "tsv_tiny" / "predictions.tsv").read_text().split("\t")[1]
    objects = json.loads(row)["objects"]
    assert len(objects) == len(regions)
    for k, wanted in zip(ours, objects, strict=True):
        assert reference.vocabulary.labels[regions.labels[k]].name == wanted["class"]
        assert abs(regions.scores[k] - wanted["conf"]) < SCORES
        close(regions.boxes[k], wanted["rect"], BOXES * scale)
        feature = np.frombuffer(base64.b64decode(wanted["feature"]), "<f4")
        np.testing.assert_allclose(regions.features[k], feature, rtol=1e-3, atol=FEATURES)
        named = [reference.vocabulary.attributes[a] for a in regions.attributes[k]]
        real = np.array(wanted["attr_scores"]) > 0
        assert [n for n, r in zip(named, real, strict=True) if r] == [
            n for n, r in zip(wanted["attributes"], real, strict=True) if r
        ]


def test_proposals_given_back_as_boxes_keep_their_features(reference, numbers, x):
    regions = reference.detect_tensor(x, boxes=numbers["proposals"])
    close(regions.features, numbers["roi_features"], FEATURES)
    probabilities = torch.from_numpy(numbers["cls_logits"]).softmax(dim=1).numpy()
    np.testing.assert_array_equal(regions.labels, probabilities[:, 1:].argmax(axis=1) + 1)
    close(regions.scores, probabilities[:, 1:].max(axis=1), SCORES)


def test_detections_given_back_as_boxes_keep_their_attributes(reference, numbers, x):
    regions = reference.detect_tensor(x, boxes=numbers["fe_boxes"])
    alike = regions.labels == numbers["fe_labels"]  # some are detections of their second class
    assert alike.sum() >= 10
    close(regions.features, numbers["fe_box_features"], FEATURES)
    scores = numbers["fe_attr_scores"][alike]
    close(regions.attribute_scores[alike], scores, SCORES)
    real = scores > 0
    assert real.any()
    expected = numbers["fe_attr_labels"][alike]
    np.testing.assert_array_equal(regions.attributes[alike][real], expected[real])
