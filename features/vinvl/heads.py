"""What is in a box: the fourth stage describes it, linear layers name it, its attributes follow.

The fourth stage opens with two 1x1 convolutions. Convolving and pooling commute as long as no bias
comes in between (samples outside the map are 0, not the bias), so both run once on the map instead
of on every region, and their biases are added after pooling.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..regions import MAX_ATTRIBUTES
from .backbone import RES5, stage
from .checkpoint import Weights
from .config import STRIDE, VinVLConfig, on_cpu
from .roi_align import pool, region_weights

# Regions at once: on a CPU few enough for the memory, on a GPU enough to fill it.
_REGIONS_CPU, _REGIONS_GPU = 50, 512


@dataclass(frozen=True, slots=True)
class OpenedMap:
    """The map after the fourth stage's first 1x1 convolutions, without their biases: (C, h, w)."""

    narrow: Tensor
    shortcut: Tensor


class BoxHead:
    """Pools boxes and describes each by the mean over what the fourth stage makes of it."""

    def __init__(self, weights: Weights, config: VinVLConfig) -> None:
        self.blocks = stage(weights, RES5, 3, config)
        self.pooled_size = config.pooled_size
        self.dim = config.dim

    def open(self, c4: Tensor, sizes: list[tuple[int, int]]) -> list[OpenedMap]:
        """Run the opening convolutions on the maps (B, C, h, w).

        Args:
            sizes: height and width of each image's own part of the map, in cells.
        """
        first = self.blocks[0]
        assert first.downsample is not None, "the fourth stage changes the number of channels"
        narrow, shortcut = first.conv1.without_bias(c4), first.downsample.without_bias(c4)
        return [
            OpenedMap(narrow[k, :, :height, :width], shortcut[k, :, :height, :width])
            for k, (height, width) in enumerate(sizes)
        ]

    def __call__(self, opened: OpenedMap, boxes: Tensor) -> Tensor:
        """Describe boxes (n, 4) of one image: (n, D) float32, no number below 0."""
        features = boxes.new_empty(len(boxes), self.dim)
        step = _REGIONS_CPU if on_cpu(boxes.device) else _REGIONS_GPU
        for start in range(0, len(boxes), step):
            cells = self.res5(opened, boxes[start : start + step])
            features[start : start + step] = cells.mean(dim=(2, 3), dtype=torch.float32)
        return features

    def res5(self, opened: OpenedMap, boxes: Tensor) -> Tensor:
        """Pool boxes (n, 4) and run the fourth stage: (n, D, 7, 7)."""
        first, *rest = self.blocks
        assert first.downsample is not None, "the fourth stage changes the number of channels"
        stride = first.downsample.stride
        grid = region_weights(boxes, opened.narrow.shape[1:], self.pooled_size, 1 / STRIDE)
        narrow = pool(opened.narrow, *grid)
        shortcut = pool(opened.shortcut, *(weights[:, ::stride] for weights in grid))
        narrow.add_(first.conv1.bias[:, None, None]).relu_()
        x = first.finish(narrow, shortcut.add_(first.downsample.bias[:, None, None]))
        for block in rest:
            x = block(x)
        return x


class Linear:
    """A linear layer, always in float32."""

    def __init__(self, weights: Weights, name: str) -> None:
        self.weight = weights.plain(f"{name}.weight")
        self.bias = weights.plain(f"{name}.bias")

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


class ClassHead:
    """Says what a region is, and how its box would fit each class better."""

    def __init__(self, weights: Weights, config: VinVLConfig) -> None:
        prefix = "roi_heads.box.predictor"
        self.logits = Linear(weights, f"{prefix}.cls_score")
        self.deltas = (
            None if config.ignore_box_regression else Linear(weights, f"{prefix}.bbox_pred")
        )


class AttributeHead:
    """Says what a region is like, given its class."""

    def __init__(self, weights: Weights, config: VinVLConfig) -> None:
        prefix = "attribute.predictor"
        self.embedding = weights.plain(f"{prefix}.cls_embedding.weight")
        self.fc_attr = Linear(weights, f"{prefix}.fc_attr")
        self.attr_score = Linear(weights, f"{prefix}.attr_score")
        self.threshold = config.attribute_thresh

    def hidden(self, features: Tensor, labels: Tensor) -> Tensor:
        """Join features (n, D) and labels (n,) -> (n, attribute_width)."""
        return self.fc_attr(torch.cat([features, self.embedding[labels]], dim=1)).relu_()

    def __call__(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Name the best 16 attributes and their scores, (n, 16) each; score 0 is filler."""
        return self.best(self.attr_score(self.hidden(features, labels)))

    def best(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Choose from logits (n, attributes); attribute 0 stands for none."""
        scores = logits.softmax(dim=1)
        scores[:, 0] = 0
        scores = torch.where(scores > self.threshold, scores, 0)
        scores, labels = scores.sort(dim=1, descending=True, stable=True)
        missing = max(0, MAX_ATTRIBUTES - scores.shape[1])
        scores, labels = (functional.pad(x, (0, missing)) for x in (scores, labels))
        return labels[:, :MAX_ATTRIBUTES], scores[:, :MAX_ATTRIBUTES]
