"""VinVL evaluated step by step, as one would write it down: what the detector is measured against.

It shares no code with ``tonics.features.vinvl`` but the config: batch norms are applied, the fourth
stage runs on every pooled region and once more on the final boxes for their attributes, and each
class has its own suppression. The pooling can be replaced, for a fair clock: this one is slow.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tonics.features.vinvl import VinVLConfig

Pool = Callable[[Tensor, Tensor], Tensor]  # (C, h, w), (n, 4) -> (n, C, 14, 14)


@dataclass(slots=True)
class PlainVinVL:
    """The model as functions over its state dict; one image at a time, float32, CPU.

    Attributes:
        seconds: CPU-seconds by part, summed over calls.
    """

    state: Mapping[str, Tensor]
    config: VinVLConfig
    pool: Pool | None = None
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> dict[str, np.ndarray]:
        """(3, H, W) -> features, boxes, labels, scores, attributes, attribute_scores."""
        c = self.config
        height, width = x.shape[1:]
        with self._part("backbone"):
            c4 = self._backbone(x[None])
        with self._part("proposals"):
            boxes = self._proposals(c4, width, height)
        features = self._box_features(c4, boxes)
        with self._part("post-processing"):
            p = torch.softmax(self._linear(features, "roi_heads.box.predictor.cls_score"), 1)
            per_class = boxes[:, None].expand(-1, p.shape[1], 4)
            if not c.ignore_box_regression:
                deltas = self._linear(features, "roi_heads.box.predictor.bbox_pred")
                deltas = deltas.view(len(boxes), -1, 4) / torch.tensor([10.0, 10.0, 5.0, 5.0])
                per_class = move(per_class, deltas)
                per_class = clip(per_class, width, height)
            rows, labels = self._filter(per_class, p)
        final, scores = per_class[rows, labels], p[rows, labels]
        again = self._box_features(c4, final, " again, for attributes")
        named = self.state["attribute.predictor.cls_embedding.weight"][labels]
        hidden = self._linear(torch.cat([again, named], 1), "attribute.predictor.fc_attr")
        hidden = F.relu(hidden)
        q = torch.softmax(self._linear(hidden, "attribute.predictor.attr_score"), 1)
        q[:, 0] = 0
        q[q <= c.attribute_thresh] = 0
        attribute_scores, attributes = q.topk(16)
        found = (features[rows], final, labels, scores, attributes, attribute_scores)
        names = ("features", "boxes", "labels", "scores", "attributes", "attribute_scores")
        return {name: value.numpy() for name, value in zip(names, found, strict=True)}

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.seconds[name] += time.process_time() - start

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def _norm(self, x: Tensor, name: str) -> Tensor:
        s = self.state
        scale = s[f"{name}.weight"] / s[f"{name}.running_var"].sqrt()
        shift = s[f"{name}.bias"] - s[f"{name}.running_mean"] * scale
        return x * scale[:, None, None] + shift[:, None, None]

    def _block(self, x: Tensor, name: str, stride: int) -> Tensor:
        s = self.state
        y = F.relu(self._norm(F.conv2d(x, s[f"{name}.conv1.weight"]), f"{name}.bn1"))
        y = F.conv2d(
            y, s[f"{name}.conv2.weight"], stride=stride, padding=1, groups=self.config.groups
        )
        y = F.relu(self._norm(y, f"{name}.bn2"))
        y = self._norm(F.conv2d(y, s[f"{name}.conv3.weight"]), f"{name}.bn3")
        if f"{name}.downsample.0.weight" in s:
            x = F.conv2d(x, s[f"{name}.downsample.0.weight"], stride=stride)
            x = self._norm(x, f"{name}.downsample.1")
        return F.relu(y + x)

    def _backbone(self, x: Tensor) -> Tensor:
        body = "backbone.body"
        x = F.conv2d(x, self.state[f"{body}.stem.conv1.weight"], stride=2, padding=3)
        x = F.max_pool2d(F.relu(self._norm(x, f"{body}.stem.bn1")), 3, 2, 1)
        for layer in (1, 2, 3):
            for block in range(self.config.depths[layer - 1]):
                stride = 2 if layer > 1 and block == 0 else 1
                x = self._block(x, f"{body}.layer{layer}.{block}", stride)
        return x

    def _proposals(self, c4: Tensor, width: int, height: int) -> Tensor:
        s, c = self.state, self.config
        hidden = F.relu(F.conv2d(c4, s["rpn.head.conv.weight"], s["rpn.head.conv.bias"], padding=1))
        logits = F.conv2d(hidden, s["rpn.head.cls_logits.weight"], s["rpn.head.cls_logits.bias"])
        deltas = F.conv2d(hidden, s["rpn.head.bbox_pred.weight"], s["rpn.head.bbox_pred.bias"])
        anchors, scores, moves = [], [], []
        shapes = [
            (round(math.sqrt(256 / r)), round(round(math.sqrt(256 / r)) * r), size / 16)
            for r in c.anchor_ratios
            for size in c.anchor_sizes
        ]
        for y in range(c4.shape[2]):
            for x in range(c4.shape[3]):
                for a, (w, h, by) in enumerate(shapes):
                    mx, my = 16 * x + 7.5, 16 * y + 7.5
                    rx, ry = (w * by - 1) / 2, (h * by - 1) / 2
                    anchors.append([mx - rx, my - ry, mx + rx, my + ry])
                    scores.append(logits[0, a, y, x])
                    moves.append(deltas[0, 4 * a : 4 * a + 4, y, x])
        score = torch.stack(scores).sigmoid()
        order = torch.sort(score, descending=True, stable=True).indices[: c.candidates]
        boxes = move(torch.tensor(anchors)[order], torch.stack(moves)[order])
        boxes = clip(boxes, width, height)
        kept = suppress(boxes.numpy(), score[order].numpy(), c.proposal_nms_thresh, c.nms)
        return boxes[kept[: c.proposals]]

    def _box_features(self, c4: Tensor, boxes: Tensor, note: str = "") -> Tensor:
        out = []
        for start in range(0, len(boxes), 50):
            with self._part("pooling" + note):
                x = (self.pool or pool)(c4[0], boxes[start : start + 50]).contiguous()
            with self._part("res5" + note):
                for block in range(self.config.depths[3]):
                    name = f"roi_heads.box.feature_extractor.head.layer4.{block}"
                    x = self._block(x, name, 1 if block else 2)
                out.append(x.mean(dim=(2, 3)))
        return torch.cat(out)

    def _filter(self, boxes: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """Choose (rows, labels) of the detections."""
        c, n = self.config, len(boxes)
        if c.nms_filter == 2:
            best = p[:, 1:].max(1)
            where = boxes[:, 1] if c.ignore_box_regression else boxes.mean(1)
            wide = (where[:, 2] >= where[:, 0]) & (where[:, 3] >= where[:, 1])
            rows = (wide & (best.values > 0.01 * c.score_thresh)).nonzero()[:, 0]
            kept = suppress(where[rows].numpy(), best.values[rows].numpy(), c.nms_thresh, c.nms)
            rows = rows[kept]
            rows = rows[best.values[rows].sort(descending=True, stable=True).indices]
            return self._between(rows, best.indices[rows] + 1, best.values[rows])
        thresh = c.class_nms_thresh if c.nms_filter == 1 else c.nms_thresh
        alive = torch.zeros_like(p, dtype=torch.bool)
        orders = {}
        for k in range(1, p.shape[1]):
            kept = suppress(boxes[:, k].numpy(), p[:, k].numpy(), thresh, c.nms)
            alive[kept, k] = True
            orders[k] = kept
        if c.nms_filter == 1:
            best = (alive * p).max(1)
            rows = best.values.sort(descending=True, stable=True).indices
            rows = rows[best.values[rows] > 0]
            return self._between(rows, best.indices[rows], best.values[rows])
        for halvings in range(11):
            least = c.score_thresh / 2**halvings
            chosen = [(r, k) for k, kept in orders.items() for r in kept if p[r, k] > least]
            if len(chosen) >= c.min_detections:
                break
        values = sorted((float(p[r, k]) for r, k in chosen), reverse=True)
        if len(chosen) > c.max_detections:
            chosen = [(r, k) for r, k in chosen if p[r, k] >= values[c.max_detections - 1]]
        assert n, "an image has proposals"
        found = torch.tensor(chosen, dtype=torch.int64).view(-1, 2)
        return found[:, 0], found[:, 1]

    def _between(self, rows: Tensor, labels: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        c = self.config
        enough = int((scores >= c.score_thresh).sum())
        count = min(max(enough, c.min_detections), c.max_detections)
        return rows[:count], labels[:count]


def move(boxes: Tensor, deltas: Tensor) -> Tensor:
    """Apply dx dy dw dh."""
    w, h = boxes[..., 2] - boxes[..., 0] + 1, boxes[..., 3] - boxes[..., 1] + 1
    mx = boxes[..., 0] + 0.5 * w + deltas[..., 0] * w
    my = boxes[..., 1] + 0.5 * h + deltas[..., 1] * h
    w = w * torch.exp(torch.clamp(deltas[..., 2], max=math.log(1000 / 16)))
    h = h * torch.exp(torch.clamp(deltas[..., 3], max=math.log(1000 / 16)))
    return torch.stack([mx - 0.5 * w, my - 0.5 * h, mx + 0.5 * w - 1, my + 0.5 * h - 1], -1)


def clip(boxes: Tensor, width: int, height: int) -> Tensor:
    """Push into the image."""
    most = torch.tensor([width - 1, height - 1, width - 1, height - 1], dtype=torch.float32)
    return torch.minimum(boxes.clamp(min=0), most)


def suppress(boxes: np.ndarray, scores: np.ndarray, threshold: float, kind: str) -> list[int]:
    """Suppress greedily; survivors best first, or ascending for "legacy"."""
    extra = np.float32(kind == "legacy")
    x1, y1, x2, y2 = boxes.T
    areas = (x2 - x1 + extra) * (y2 - y1 + extra)
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order):
        i, order = order[0], order[1:]
        kept.append(int(i))
        w = np.minimum(x2[i], x2[order]) - np.maximum(x1[i], x1[order]) + extra
        h = np.minimum(y2[i], y2[order]) - np.maximum(y1[i], y1[order]) + extra
        common = np.maximum(w, 0) * np.maximum(h, 0)
        with np.errstate(invalid="ignore"):
            iou = common / (areas[i] + areas[order] - common)
        gone = iou >= np.float32(threshold) if extra else iou.astype(np.float64) > threshold
        order = order[~gone]
    return sorted(kept) if extra else kept


def pool(c4: Tensor, boxes: Tensor, bins: int = 14, samples: int = 0) -> Tensor:
    """RoIAlign by looking up the four neighbours of every sample."""
    out = []
    height, width = c4.shape[1:]
    for box in (boxes / 16).tolist():
        (ys, hy, ky), (xs, hx, kx) = (
            _samples(box[axis], box[axis + 2], size, bins, samples)
            for axis, size in ((1, height), (0, width))
        )
        ny, nx = len(ys) // bins, len(xs) // bins
        y2, x2 = (ys + 1).clamp(max=height - 1), (xs + 1).clamp(max=width - 1)
        rows = c4[:, ys] * (1 - hy)[None, :, None] + c4[:, y2] * hy[None, :, None]
        cells = rows[:, :, xs] * (1 - hx) + rows[:, :, x2] * hx
        cells = cells * (ky[:, None] & kx[None, :])
        out.append(cells.view(-1, bins, ny, bins, nx).mean(dim=(2, 4)))
    return torch.stack(out) if out else c4.new_zeros(0, len(c4), bins, bins)


def _samples(
    low: float, high: float, size: int, bins: int, samples: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The cell left of every sample, how far beyond it, and whether the sample counts."""
    length = np.maximum(np.float32(high) - np.float32(low), np.float32(1))
    step = np.float32(length / bins)
    count = samples or math.ceil(step)
    places = [
        np.float32(low) + b * step + np.float32(k + 0.5) * step / count
        for b in range(bins)
        for k in range(count)
    ]
    at = torch.tensor(np.array(places, np.float32))
    counts = (at >= -1) & (at <= size)
    at = at.clamp(0, size - 1)
    cell = at.floor().long()
    return cell, at - cell, counts
