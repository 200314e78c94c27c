"""Photographs drawn by code, under the names of real ones, so that these tests need no package."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageDraw

STAMPS = {
    "animals/mammals/dogs/dog.png": ("A dog.", (90, 110), "gray"),
    "animals/mammals/equines/horse.png": ("A horse.", (160, 110), "sienna"),
    "animals/mammals/cats/tiger_sumatran.png": ("A Sumatran tiger.", (150, 70), "orange"),
    "animals/birds/duck.png": ("A duck.", (100, 80), "green"),
    "animals/birds/owl.png": ("An owl.", (90, 95), "white"),
    "animals/fish/coraltrout.png": ("A coral trout.", (140, 60), "teal"),
    "food/fruit/apple_red.png": ("A red apple.", (50, 50), "red"),
    "food/fruit/banana.png": ("A banana.", (32, 70), "yellow"),
    "household/arttools/scissors_small_open.png": ("A pair of open scissors.", (60, 60), "silver"),
    "household/dishes/mug.png": ("A mug.", (90, 90), "white"),
    "plants/trees/holm_oak.png": ("A holm oak.", (200, 190), "darkgreen"),
    "vehicles/auto/sedan.png": ("A sedan car.", (200, 60), "blue"),
    "vehicles/emergency/firetruck.png": ("A fire truck.", (300, 120), "red"),
    "vehicles/flight/planes/747.png": ("An airplane.", (260, 100), "lightblue"),
    "vehicles/ship/walnutBoat.png": ("A walnut sailboat.", (100, 200), "peru"),
    # These two are on the list of what is left out.
    "household/tools/measuring_tape_mirror.png": ("A tape.", (60, 40), "red"),
    "animals/birds/cartoon/tux.png": ("Tux.", (60, 80), "black"),
}
USED = 15


@pytest.fixture(scope="session")
def stamps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of drawn stamps with their descriptions."""
    folder = tmp_path_factory.mktemp("stamps")
    for path, (description, size, color) in STAMPS.items():
        draw_stamp(folder / path, size, color)
        text = f"{description}\nde.utf8=Etwas anderes.\n"
        (folder / path).with_suffix(".txt").write_text(text, encoding="utf-8")
    return folder


def draw_stamp(path: Path, size: tuple[int, int], color: str) -> None:
    """Draw an ellipse on nothing."""
    image = Image.new("RGBA", (size[0] + 8, size[1] + 8), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((4, 4, size[0] + 3, size[1] + 3), fill=color, outline="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
