"""From photos to inputs, as the reference makes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tonics.features.vinvl import VinVLConfig
from tonics.features.vinvl.preprocess import padded, resized_pixels, resized_size, to_input

Image = pytest.importorskip("PIL.Image")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((4096, 2730), (900, 600)),
        ((640, 480), (800, 600)),
        ((500, 375), (800, 600)),
        ((375, 500), (600, 800)),
        ((1000, 600), (1000, 600)),
        ((2000, 500), (1000, 250)),
        ((333, 500), (600, 900)),
        ((1024, 683), (899, 600)),
        ((800, 601), (798, 600)),
        ((30, 4000), (8, 1066)),
        ((1, 4000), (1, 4000)),  # the reference divides by zero
    ],
)
def test_sizes(size, expected):
    assert resized_size(*size, VinVLConfig()) == expected


def test_pixels_become_blue_first_without_their_mean():
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[1, 2] = (250, 100, 30)
    x = to_input(pixels, VinVLConfig())
    assert x.shape == (3, 2, 3)
    assert x[:, 1, 2].tolist() == pytest.approx([30 - 103.53, 100 - 116.28, 250 - 123.675])
    assert x[:, 0, 0].tolist() == pytest.approx([-103.53, -116.28, -123.675])


def test_an_exif_rotation_is_ignored(tmp_path):
    image = Image.new("RGB", (40, 20), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    with Image.open(tmp_path / "turned.jpg") as turned:
        assert resized_pixels(turned, VinVLConfig()).shape == (500, 1000, 3)


def test_other_modes_are_read_as_rgb():
    config = VinVLConfig(min_size=4, max_size=8)
    assert resized_pixels(Image.new("L", (4, 4), 7), config).tolist() == [[[7] * 3] * 4] * 4


def test_padding_is_zero_to_the_right_and_below():
    batch = padded([torch.ones(3, 2, 5), torch.full((3, 4, 3), 2.0)])
    assert batch.shape == (2, 3, 4, 5)
    assert batch.sum().item() == 3 * 2 * 5 + 2 * 3 * 4 * 3
    assert (batch[0, :, :2] == 1).all()
    assert (batch[1, :, :, :3] == 2).all()


@pytest.mark.shared
def test_the_references_input(golden, numbers):
    config = VinVLConfig(min_size=240, max_size=400)
    with Image.open(golden / "woman_fish.jpg") as image:
        x = to_input(resized_pixels(image, config), config)
    np.testing.assert_array_equal(x.numpy(), numbers["input"])
