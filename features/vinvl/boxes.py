"""Arithmetic of boxes x1 y1 x2 y2: overlap, decoding, clipping. All in float32.

Where the reference counts a box's last pixel (width = x2 - x1 + 1) so do we: in decoding, in
clipping and in legacy overlaps, but nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Kind = Literal["torchvision", "legacy"]
PROPOSAL_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
CLASS_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
_MAX_LOG_SCALE = math.log(1000 / 16)


def iou(one: Tensor, other: Tensor, *, legacy: bool = False) -> Tensor:
    """Intersection over union of boxes (..., 4) that broadcast; NaN for two of no area.

    Args:
        legacy: count the last pixel too.
    """
    extra = 1.0 if legacy else 0.0
    width = torch.minimum(one[..., 2], other[..., 2]) - torch.maximum(one[..., 0], other[..., 0])
    height = torch.minimum(one[..., 3], other[..., 3]) - torch.maximum(one[..., 1], other[..., 1])
    common = (width + extra).clamp_(min=0).mul_((height + extra).clamp_(min=0))
    areas = [
        (b[..., 2] - b[..., 0] + extra) * (b[..., 3] - b[..., 1] + extra) for b in (one, other)
    ]
    return common / (areas[0] + areas[1] - common)


def overlaps(one: Tensor, other: Tensor, threshold: float, kind: Kind) -> Tensor:
    """Tell which boxes, of (..., 4) that broadcast, overlap so much that one suppresses the other.

    "torchvision" asks for more than the threshold as a double, "legacy" for the threshold as a
    float or more.
    """
    if kind == "legacy":
        return iou(one, other, legacy=True) >= float(np.float32(threshold))
    limit = np.float32(threshold)
    if float(limit) > threshold:  # the largest float32 that is not above the double
        limit = np.nextafter(limit, np.float32(-np.inf))
    return iou(one, other) > float(limit)


def decode(deltas: Tensor, boxes: Tensor, weights: Sequence[float]) -> Tensor:
    """Move boxes (..., 4) as the deltas dx dy dw dh (..., 4), which broadcast, say."""
    width, height = boxes[..., 2] - boxes[..., 0] + 1, boxes[..., 3] - boxes[..., 1] + 1
    x, y = boxes[..., 0] + 0.5 * width, boxes[..., 1] + 0.5 * height
    dx, dy, dw, dh = (deltas[..., k] / weights[k] for k in range(4))
    x, y = dx * width + x, dy * height + y
    width = dw.clamp(max=_MAX_LOG_SCALE).exp() * width
    height = dh.clamp(max=_MAX_LOG_SCALE).exp() * height
    corners = (x - 0.5 * width, y - 0.5 * height, x + 0.5 * width - 1, y + 0.5 * height - 1)
    return torch.stack(corners, dim=-1)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Push boxes (..., 4) into an image of this height and width: x to [0, width - 1]."""
    height, width = size
    x, y = boxes[..., 0::2].clamp(0, width - 1), boxes[..., 1::2].clamp(0, height - 1)
    return torch.stack((x[..., 0], y[..., 0], x[..., 1], y[..., 1]), dim=-1)
