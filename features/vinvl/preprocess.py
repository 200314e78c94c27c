"""From a photo to the model's input: resized by PIL, blue first, mean subtracted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from .config import VinVLConfig

if TYPE_CHECKING:
    from PIL import Image

_PADDED_AREA = 1.25  # of a GPU's batch over that of its images, at most


def resized_size(width: int, height: int, config: VinVLConfig) -> tuple[int, int]:
    """Tell the size, width and height, an image is resized to.

    The long side is truncated, and can pass ``max_size`` by rounding, both as in the reference.

    >>> resized_size(1024, 683, VinVLConfig()), resized_size(30, 4000, VinVLConfig())
    ((899, 600), (8, 1066))
    """
    short, long = min(width, height), max(width, height)
    size = config.min_size
    if long / short * size > config.max_size:
        size = max(1, round(config.max_size * short / long))
    if short == size:
        return width, height
    if width < height:
        return size, int(size * height / width)
    return int(size * width / height), size


def resized_pixels(image: Image.Image, config: VinVLConfig) -> np.ndarray:
    """Resize an image to (h, w, 3) uint8, red first; an EXIF rotation is ignored."""
    from PIL import Image

    rgb = image if image.mode == "RGB" else image.convert("RGB")
    size = resized_size(*rgb.size, config)
    if size != rgb.size:
        rgb = rgb.resize(size, Image.Resampling.BILINEAR)
    return np.array(rgb)


def to_input(pixels: np.ndarray, config: VinVLConfig, device: str = "cpu") -> torch.Tensor:
    """Turn (h, w, 3) uint8 into the (3, h, w) float32 the model takes."""
    bgr = torch.from_numpy(pixels).to(device).permute(2, 0, 1).flip(0).float()
    return bgr - torch.tensor(config.pixel_mean, device=device)[:, None, None]


def padded(inputs: list[torch.Tensor]) -> torch.Tensor:
    """Stack (3, h, w) inputs as (B, 3, H, W), zeros to the right and below."""
    if len(inputs) == 1:
        return inputs[0][None]
    height, width = (max(x.shape[axis] for x in inputs) for axis in (1, 2))
    batch = inputs[0].new_zeros(len(inputs), 3, height, width)
    for row, x in zip(batch, inputs, strict=True):
        row[:, : x.shape[1], : x.shape[2]] = x
    return batch


def similar_shapes(sizes: Sequence[tuple[int, int]], config: VinVLConfig) -> list[list[int]]:
    """Group images, by number, so that padding each group to its largest wastes little.

    >>> similar_shapes([(800, 600), (600, 800), (800, 602)], VinVLConfig())
    [[1], [2, 0]]
    """
    groups: list[list[int]] = []
    for k in sorted(range(len(sizes)), key=lambda k: (sizes[k][0] / sizes[k][1], sizes[k], k)):
        group = [*groups[-1], k] if groups else [k]
        width, height = (max(sizes[j][axis] for j in group) for axis in (0, 1))
        area = sum(sizes[j][0] * sizes[j][1] for j in group)
        fits = len(group) <= config.padded_batch
        if len(group) > 1 and fits and width * height * len(group) <= _PADDED_AREA * area:
            groups[-1] = group
        else:
            groups.append([k])
    return groups
