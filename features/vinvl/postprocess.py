"""Which of the described boxes are detections: suppression, thresholds, and how many to keep.

The three ways are the reference's ``NMS_FILTER`` 0, 1 and 2; the filters 1 and 2 give detections
by score, filter 0 class by class. Background (class 0) takes part in the softmax only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .config import VinVLConfig
from .nms import nms, nms_by_class

_ATTEMPTS = 10  # to halve filter 0's threshold, when too few pass it
_FAST_SHARE = 0.01  # of the threshold: what filter 2 looks at


@dataclass(frozen=True, slots=True)
class Detections:
    """Proposals that were recognised.

    Attributes:
        rows: (n,) int64, the proposal each comes from; its feature is that proposal's.
        boxes: (n, 4) float32.
        labels: (n,) int64, 1 or more.
        scores: (n,) float32.
    """

    rows: Tensor
    boxes: Tensor
    labels: Tensor
    scores: Tensor


def detect(probabilities: Tensor, boxes: Tensor, config: VinVLConfig) -> Detections:
    """Find the detections among proposals.

    Args:
        probabilities: (n, classes), summing to 1.
        boxes: (n, 4), or (n, classes, 4) moved for every class.
    """
    found = (_per_class, _one_class_each, _fast)[config.nms_filter]
    return found(probabilities, boxes, config)


def name_given(probabilities: Tensor, boxes: Tensor) -> Detections:
    """Name boxes (n, 4) as they are: none moved, none dropped."""
    scores, labels = probabilities[:, 1:].max(dim=1)
    rows = torch.arange(len(boxes), device=boxes.device)
    return Detections(rows, boxes, labels + 1, scores)


def _one_class_each(probabilities: Tensor, boxes: Tensor, config: VinVLConfig) -> Detections:
    """Filter 1: every box takes the best class in which it survives."""
    classes = boxes if boxes.dim() == 2 else boxes[:, 1:]
    wanted = probabilities[:, 1:]
    alive = nms_by_class(classes, wanted, config.class_nms_thresh, config.nms)
    scores, labels = (wanted * alive).max(dim=1)
    order = scores.argsort(descending=True, stable=True)
    rows = order[: _wanted_count(scores, config)]
    rows = rows[scores[rows] > 0]
    return _chosen(rows, labels[rows] + 1, probabilities, boxes)


def _fast(probabilities: Tensor, boxes: Tensor, config: VinVLConfig) -> Detections:
    """Filter 2: every box takes its best class, and suppression looks at no classes.

    Boxes moved for every class suppress each other by their mean over the classes. What is
    returned is the box of the detected class, not, as by a slip in the reference, of another.
    """
    scores, labels = probabilities[:, 1:].max(dim=1)
    places = boxes if boxes.dim() == 2 else boxes.mean(dim=1)
    upright = (places[:, 2:] >= places[:, :2]).all(dim=1)
    rows = (upright & (scores > _FAST_SHARE * config.score_thresh)).nonzero()[:, 0]
    rows = rows[nms(places[rows], scores[rows], config.nms_thresh, config.nms)]
    rows = rows[scores[rows].argsort(descending=True, stable=True)]
    rows = rows[: _wanted_count(scores[rows], config)]
    return _chosen(rows, labels[rows] + 1, probabilities, boxes)


def _per_class(probabilities: Tensor, boxes: Tensor, config: VinVLConfig) -> Detections:
    """Filter 0: every class on its own, so that a box may appear under several."""
    classes = boxes if boxes.dim() == 2 else boxes[:, 1:]
    scores = probabilities[:, 1:].T
    alive = nms_by_class(classes, scores.T, config.nms_thresh, config.nms).T
    threshold = config.score_thresh
    for _ in range(_ATTEMPTS):
        if int((alive & (scores > threshold)).sum()) >= config.min_detections:
            break
        threshold /= 2
    labels, rows = (alive & (scores > threshold)).nonzero(as_tuple=True)
    if config.nms == "torchvision":  # within a class by score; legacy: in the order of proposals
        order = scores[labels, rows].argsort(descending=True, stable=True)
        order = order[labels[order].argsort(stable=True)]
        labels, rows = labels[order], rows[order]
    found = _chosen(rows, labels + 1, probabilities, boxes)
    if len(rows) <= config.max_detections:
        return found
    least = found.scores.kthvalue(len(rows) - config.max_detections + 1).values
    kept = found.scores >= least  # equal scores: more than the maximum may stay
    return Detections(rows[kept], found.boxes[kept], found.labels[kept], found.scores[kept])


def _wanted_count(scores: Tensor, config: VinVLConfig) -> int:
    """How many to keep: those that reach the threshold, within the minimum and the maximum."""
    enough = int((scores >= config.score_thresh).sum())
    return min(max(enough, config.min_detections), config.max_detections)


def _chosen(rows: Tensor, labels: Tensor, probabilities: Tensor, boxes: Tensor) -> Detections:
    own = boxes[rows] if boxes.dim() == 2 else boxes[rows, labels]
    return Detections(rows, own, labels, probabilities[rows, labels])
