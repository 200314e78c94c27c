"""RoIAlign: the mean of bilinear samples under each cell of a region (He et al., 1703.06870).

Samples form a grid, so the mean is separable: a (bins, h) matrix from the left and a (w, bins) one
from the right. That makes a region two matrix products, whatever its number of samples.
Not "aligned": no shift by half a pixel, as in the reference.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .config import on_cpu


def axis_weights(low: Tensor, high: Tensor, bins: int, extent: int, samples: int = 0) -> Tensor:
    """Weigh the cells of one axis for every bin of every region.

    Args:
        low, high: (n,) where regions begin and end, in cells; made one cell long at least.
        bins: cells of the pooled region.
        extent: cells of the map. Samples further than one cell outside give 0, others are moved in.
        samples: of a bin; 0: as many as cells it covers, rounded up.

    Returns:
        (n, bins, extent) float32.
    """
    length = (high - low).clamp(min=1)
    counts = torch.full_like(length, samples) if samples else (length / bins).ceil()
    step = (length / bins)[:, None]
    start = low[:, None] + torch.arange(bins, device=low.device) * step
    cells = torch.arange(extent, device=low.device, dtype=low.dtype)
    weights = low.new_zeros(len(low), bins, extent)
    for sample in range(int(counts.max()) if len(counts) else 0):
        at = start + (sample + 0.5) * step / counts[:, None]
        counted = (at >= -1) & (at <= extent) & (sample < counts)[:, None]
        distance = (at.clamp(0, extent - 1)[..., None] - cells).abs_()
        weights += (1 - distance).clamp_(min=0) * counted[..., None]
    return weights / counts[:, None, None]


def roi_align(
    cells: Tensor, boxes: Tensor, bins: int, scale: float, *, samples: int = 0, every: int = 1
) -> Tensor:
    """Pool regions of one image.

    Args:
        cells: (C, h, w), the image's own map without padding; best with channels last in memory.
        boxes: (n, 4) float32, in pixels.
        bins: cells along each side of a pooled region.
        scale: cells a pixel.
        samples: along each side of a bin; 0: as many as cells it covers, rounded up.
        every: keep every so-many-th bin only, beginning with the first.

    Returns:
        (n, C, bins, bins), channels last in memory.
    """
    down, across = region_weights(boxes, cells.shape[1:], bins, scale, samples)
    return pool(cells, down[:, ::every], across[:, ::every])


def region_weights(
    boxes: Tensor, size: Sequence[int], bins: int, scale: float, samples: int = 0
) -> tuple[Tensor, Tensor]:
    """Weigh the cells of a map of this height and width: (n, bins, h) down, (n, bins, w) across."""
    low_x, low_y, high_x, high_y = (boxes * scale).unbind(1)
    down = axis_weights(low_y, high_y, bins, size[0], samples)
    return down, axis_weights(low_x, high_x, bins, size[1], samples)


def pool(cells: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Pool (C, h, w) with weights of ``region_weights``: (n, C, bins, bins), channels last."""
    rows = cells.permute(1, 2, 0).contiguous()
    multiply = _region_by_region if on_cpu(cells.device) else _together
    return multiply(rows, down.to(rows.dtype), across.to(rows.dtype)).permute(0, 3, 1, 2)


def _region_by_region(rows: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Multiply with the part of the map (h, w, C) that a region covers -> (n, bins, bins, C)."""
    bins, channels = down.shape[1], rows.shape[2]
    out = rows.new_empty(len(down), bins, bins, channels)
    for number, (top, bottom, left, right) in enumerate(_covered(down, across)):
        part = rows[top:bottom, left:right]
        flat = down[number, :, top:bottom] @ part.flatten(1)
        columns = flat.view(bins, right - left, channels)
        torch.matmul(across[number, :, left:right], columns, out=out[number])
    return out


def _covered(down: Tensor, across: Tensor) -> list[list[int]]:
    """List the first and one past the last cell, down and across, with a weight: (n, 4)."""
    ends = []
    for weights in (down, across):
        used = weights.amax(dim=1) > 0
        ends.append(used.int().argmax(dim=1))
        ends.append(weights.shape[2] - used.flip(1).int().argmax(dim=1))
    return torch.stack(ends, dim=1).tolist()


def _together(rows: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Multiply with the whole map, all regions in two products -> (n, bins, bins, C)."""
    height, width, channels = rows.shape
    flat = down.reshape(-1, height) @ rows.view(height, -1)
    columns = flat.view(len(down), -1, width, channels)
    return torch.matmul(across[:, None], columns)
