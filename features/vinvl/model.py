"""The whole model, from preprocessed images to what was found in them, on one device."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import TonicsError
from .backbone import Backbone, halved
from .boxes import CLASS_WEIGHTS, clip, decode
from .checkpoint import Weights
from .config import WHERE, VinVLConfig
from .heads import AttributeHead, BoxHead, ClassHead, OpenedMap
from .postprocess import Detections, detect, name_given
from .preprocess import padded
from .proposals import ProposalHead, propose

_HALVINGS = 4  # from pixels to cells of the map


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found in one image, on the model's device.

    Attributes:
        features: (n, D) float32.
        boxes: (n, 4) float32, pixels of the input.
        labels: (n,) int64.
        scores: (n,) float32.
        attributes: (n, 16) int64.
        attribute_scores: (n, 16) float32.
    """

    features: Tensor
    boxes: Tensor
    labels: Tensor
    scores: Tensor
    attributes: Tensor
    attribute_scores: Tensor


class Model:
    """Backbone, proposals, heads and post-processing; the parts can be called on their own."""

    def __init__(self, weights: Weights, config: VinVLConfig) -> None:
        self.config = config
        self.backbone = Backbone(weights, config)
        self.rpn = ProposalHead(weights, config)
        self.box_head = BoxHead(weights, config)
        self.class_head = ClassHead(weights, config)
        self.attribute_head = AttributeHead(weights, config)
        self.dtype = self.backbone.stem.weight.dtype

    @torch.inference_mode()
    def detect(
        self, inputs: Sequence[Tensor], given: Sequence[Tensor | None] | None = None
    ) -> list[Found]:
        """Find regions in images that are computed together, padded to the largest.

        Args:
            inputs: (3, h, w) float32 each, on the model's device.
            given: boxes (n, 4) to describe instead of searching for some; None for an image to
                search.

        Raises:
            TonicsError: the features are not finite.
        """
        given = given or [None] * len(inputs)
        sizes = [(x.shape[1], x.shape[2]) for x in inputs]
        with _exact(self.dtype):
            c4 = self.backbone(padded(list(inputs)).to(self.dtype), sizes)
            logits, deltas = self.rpn(c4) if None in given else (c4, c4)
            cells = [halved(size, _HALVINGS) for size in sizes]
            opened = self.box_head.open(c4, cells)
            found = []
            for k, (boxes, (h, w)) in enumerate(zip(given, cells, strict=True)):
                if boxes is None:
                    own = (logits[k, :, :h, :w], deltas[k, :, :h, :w])
                    boxes, _ = propose(*own, self.rpn.anchors, sizes[k], self.config)
                    found.append(self._search(opened[k], boxes, sizes[k]))
                else:
                    found.append(self._describe(opened[k], boxes))
            return found

    def _search(self, opened: OpenedMap, boxes: Tensor, size: tuple[int, int]) -> Found:
        """Describe proposals (n, 4), and keep those that are something."""
        features = self._features(opened, boxes)
        probabilities = self.class_head.logits(features).softmax(dim=1)
        if self.class_head.deltas is None:
            detections = detect(probabilities, boxes, self.config)
            own = features[detections.rows]
            return self._found(own, own, detections)
        deltas = self.class_head.deltas(features).view(len(boxes), -1, 4)
        moved = clip(decode(deltas, boxes[:, None], CLASS_WEIGHTS), size)
        detections = detect(probabilities, moved, self.config)
        looked_at_again = self._features(opened, detections.boxes)
        return self._found(features[detections.rows], looked_at_again, detections)

    def _describe(self, opened: OpenedMap, boxes: Tensor) -> Found:
        """Describe boxes (n, 4) as they are given."""
        features = self._features(opened, boxes)
        probabilities = self.class_head.logits(features).softmax(dim=1)
        return self._found(features, features, name_given(probabilities, boxes))

    def _features(self, opened: OpenedMap, boxes: Tensor) -> Tensor:
        features = self.box_head(opened, boxes)
        if not bool(features.isfinite().all()):
            found = f"features in {self.dtype} are NaN or infinite"
            do = "set precision = 'bfloat16' or 'float32', or check the checkpoint"
            raise TonicsError(WHERE, found, do=do)
        return features

    def _found(self, features: Tensor, for_attributes: Tensor, detections: Detections) -> Found:
        attributes, scores = self.attribute_head(for_attributes, detections.labels)
        return Found(
            features=features,
            boxes=detections.boxes,
            labels=detections.labels,
            scores=detections.scores,
            attributes=attributes,
            attribute_scores=scores,
        )


def _exact(dtype: torch.dtype) -> contextlib.AbstractContextManager[None]:
    """Keep a GPU from rounding float32 convolutions to TF32, when float32 was asked for."""
    if dtype != torch.float32:
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False)
