"""The whole model, from preprocessed images to what was found in them, on one device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .backbone import Backbone, halved
from .boxes import CLASS_WEIGHTS, clip, decode
from .checkpoint import Weights
from .config import VinVLConfig
from .exact import exact_float32
from .heads import AttributeHead, BoxHead, ClassHead, OpenedMap
from .postprocess import Detections, detect, name_given
from .preprocess import padded
from .proposals import ProposalHead, propose

_TO_CELLS = 4  # halvings from pixels to cells of the map


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
        sound: () bool, whether every number on the way was finite; if not, the rest means nothing.
    """

    features: Tensor
    boxes: Tensor
    labels: Tensor
    scores: Tensor
    attributes: Tensor
    attribute_scores: Tensor
    sound: Tensor


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

        Returns:
            What was found in each; where ``sound`` is false, one must not use it.
        """
        given = given or [None] * len(inputs)
        sizes = [(x.shape[1], x.shape[2]) for x in inputs]
        search = any(boxes is None for boxes in given)
        with exact_float32(inputs[0].device):
            c4 = self.backbone(padded(list(inputs)).to(self.dtype), sizes)
            outputs = self.rpn(c4) if search else ()
            cells = [halved(size, _TO_CELLS) for size in sizes]
            opened = self.box_head.open(c4, cells)
            found = []
            for k, (boxes, (h, w)) in enumerate(zip(given, cells, strict=True)):
                if boxes is None:
                    own = [output[k, :, :h, :w] for output in outputs]
                    found.append(self._search(opened[k], own, sizes[k]))
                else:
                    found.append(self._describe(opened[k], boxes))
            return found

    def _search(self, opened: OpenedMap, outputs: list[Tensor], size: tuple[int, int]) -> Found:
        """Describe the proposals of an image's own part of the map; keep those that are something.

        Args:
            outputs: logits and deltas of the anchors.
        """
        (logits, deltas), sound = usable(*outputs)
        boxes, _ = propose(logits, deltas, self.rpn.anchors, size, self.config)
        features, features_sound = self._features(opened, boxes)
        (logits,), logits_sound = usable(self.class_head.logits(features))
        probabilities, sound = logits.softmax(dim=1), sound & features_sound & logits_sound
        if self.class_head.deltas is None:
            detections = detect(probabilities, boxes, self.config)
            own = features[detections.rows]
            return self._found(own, own, detections, sound)
        (deltas,), deltas_sound = usable(self.class_head.deltas(features))
        deltas = deltas.view(len(boxes), -1, 4)
        moved = clip(decode(deltas, boxes[:, None], CLASS_WEIGHTS), size)
        detections = detect(probabilities, moved, self.config)
        looked_at_again, again_sound = self._features(opened, detections.boxes)
        sound = sound & deltas_sound & again_sound
        return self._found(features[detections.rows], looked_at_again, detections, sound)

    def _describe(self, opened: OpenedMap, boxes: Tensor) -> Found:
        """Describe boxes (n, 4) as they are given."""
        features, sound = self._features(opened, boxes)
        (logits,), logits_sound = usable(self.class_head.logits(features))
        detections = name_given(logits.softmax(dim=1), boxes)
        return self._found(features, features, detections, sound & logits_sound)

    def _features(self, opened: OpenedMap, boxes: Tensor) -> tuple[Tensor, Tensor]:
        (features,), sound = usable(self.box_head(opened, boxes))
        return features, sound

    def _found(
        self, features: Tensor, for_attributes: Tensor, detections: Detections, sound: Tensor
    ) -> Found:
        attributes, scores = self.attribute_head(for_attributes, detections.labels)
        return Found(
            features=features,
            boxes=detections.boxes,
            labels=detections.labels,
            scores=detections.scores,
            attributes=attributes,
            attribute_scores=scores,
            sound=sound,
        )


def usable(*outputs: Tensor) -> tuple[list[Tensor], Tensor]:
    """Put 0 for what is not finite, so that one can go on without waiting for the device.

    Returns:
        The outputs, and () bool: whether nothing had to be replaced.
    """
    sound = torch.stack([x.isfinite().all() for x in outputs]).all()
    return [x.nan_to_num(nan=0, posinf=0, neginf=0) for x in outputs], sound
