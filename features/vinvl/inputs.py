"""What a caller hands over to be looked at: checked before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError

if TYPE_CHECKING:
    import torch


def check_images(images: Any) -> None:
    """Demand a list of PIL images.

    Raises:
        InputError: one image, paths, arrays, or anything else.
    """
    from PIL import Image

    do = "open files with PIL.Image.open, and turn arrays with PIL.Image.fromarray"
    if not isinstance(images, list | tuple):
        found = f"the images are a {type(images).__name__}"
        raise InputError("VinVL", found, expected="a list of PIL images: detector([image])", do=do)
    for k, image in enumerate(images):
        if not isinstance(image, Image.Image):
            found = f"image {k} is a {type(image).__name__}"
            raise InputError("VinVL", found, expected="a PIL image", do=do)


def check_tensors(inputs: Any) -> list[torch.Tensor]:
    """Take preprocessed images, tensors or arrays, as tensors where they are.

    Raises:
        InputError: something else, another shape, or whole numbers.
    """
    if not isinstance(inputs, Iterable):
        found = f"the inputs are a {type(inputs).__name__}"
        raise InputError("detect_tensors", found, expected="a list of float32 (3, H, W)")
    return [_tensor(x) for x in inputs]


def _tensor(x: Any) -> torch.Tensor:
    import torch

    if isinstance(x, np.ndarray) and x.dtype.kind == "f":
        x = torch.from_numpy(x.astype(np.float32))
    good = isinstance(x, torch.Tensor) and x.is_floating_point() and x.dim() == 3
    if not good or x.shape[0] != 3 or min(x.shape) < 1:
        found = f"a {type(x).__name__}"
        if isinstance(x, torch.Tensor | np.ndarray):
            found = f"{x.dtype} of shape {tuple(x.shape)}"
        raise InputError("detect_tensor", found, expected="float32 (3, H, W)")
    return x
