"""Boxes a user gives: checked, and brought from one size of their image to another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import InputError

GivenBoxes = Sequence["np.ndarray | None"]
SLACK_PX = 2.0  # float noise, and a side more or less; as where features are imported


def check_given(
    boxes: GivenBoxes | None, sizes: Sequence[tuple[int, int]]
) -> list[np.ndarray | None]:
    """Check what is given for images of these sizes (width, height); float32, None where nothing.

    What lies up to ``SLACK_PX`` outside an image is cut off.

    Raises:
        InputError: not one entry an image, no (n, 4) numbers, or a box that leaves its image
            by more.
    """
    if boxes is None:
        return [None] * len(sizes)
    if len(boxes) != len(sizes):
        found = f"{len(boxes)} entries for {len(sizes)} images"
        raise InputError("given boxes", found, expected="one (n, 4) array or None for each image")
    return [
        None if own is None else _checked(own, size, f"given boxes of image {k}")
        for k, (own, size) in enumerate(zip(boxes, sizes, strict=True))
    ]


def _checked(boxes: np.ndarray, size: tuple[int, int], where: str) -> np.ndarray:
    try:
        given = np.array(boxes, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(where, f"no numbers ({error})", expected="an (n, 4) array") from error
    if given.shape == (0,):
        given = given.reshape(0, 4)
    if given.ndim != 2 or given.shape[1] != 4:
        raise InputError(where, f"shape {given.shape}", expected="(n, 4): x1 y1 x2 y2")
    low, high = given[:, :2], given[:, 2:]
    inside = np.clip(given, 0, np.array([*size, *size], np.float32))
    good = (low <= high).all(axis=1) & (np.abs(inside - given) <= SLACK_PX).all(axis=1)
    if not good.all():
        row = int(good.argmin())
        expected = f"x1 <= x2, y1 <= y2, inside the {size[0]} x {size[1]} image"
        raise InputError(where, f"row {row} is {given[row].tolist()}", expected=expected)
    return inside


def scaled(boxes: np.ndarray, size: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """Bring boxes (n, 4) from an image of one size (width, height) to another."""
    x, y = new[0] / size[0], new[1] / size[1]
    return boxes * np.array([x, y, x, y], np.float32)
