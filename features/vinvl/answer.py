"""What was found in an image, as the ``Regions`` that everything else reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..regions import Regions
from .given import scaled

if TYPE_CHECKING:
    import torch

    from .model import Found


def raw(found: Found, size: tuple[int, int]) -> Regions:
    """Turn what was found into regions, numbers as they are; size is width and height."""
    return Regions(
        features=found.features.cpu().numpy(),
        boxes=found.boxes.cpu().numpy(),
        labels=found.labels.cpu().numpy().astype(np.uint16),
        scores=found.scores.cpu().numpy(),
        attributes=found.attributes.cpu().numpy().astype(np.uint16),
        attribute_scores=found.attribute_scores.cpu().numpy(),
        width=size[0],
        height=size[1],
    )


def stored(
    found: Found, x: torch.Tensor, size: tuple[int, int], given: np.ndarray | None
) -> Regions | None:
    """Turn what was found in an input into regions a store takes, in pixels of the image.

    A proposal can be so thin that its right side lies a fraction of a pixel left of the left one;
    it is given no width here.

    Returns:
        None where a feature is beyond float16.
    """
    regions = raw(found, size)
    if (regions.features > np.finfo(np.float16).max).any():
        return None
    boxes = given
    if boxes is None:
        boxes = scaled(regions.boxes, (x.shape[2], x.shape[1]), size)
        boxes = np.clip(boxes, 0, np.array([*size, *size], np.float32))
        boxes[:, 2:] = np.maximum(boxes[:, :2], boxes[:, 2:])
    return Regions(
        features=regions.features.astype(np.float16),
        boxes=boxes,
        labels=regions.labels,
        scores=regions.scores,
        attributes=regions.attributes,
        attribute_scores=regions.attribute_scores.astype(np.float16),
        width=size[0],
        height=size[1],
    )
