"""Where the cut-outs of a scene go, and the picture that results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .dealing import Hand
from .grounds import draw_ground
from .stamps import Stamp, open_stamp

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

# Long side of a thing of each size, as a share of the picture's short side. The true ratios would
# leave nothing to see of a bee beside an elephant.
NOMINAL = {"tiny": 0.25, "small": 0.32, "medium": 0.40, "large": 0.49, "huge": 0.60}
CANVASES = ((400, 300), (440, 330), (480, 360), (480, 320), (400, 320), (380, 360), (330, 440))
MIN_VISIBLE = 0.7
_LONGEST = 300  # pixels a cached cut-out may have: what the largest scene needs
_SEEN = 96  # alpha from which a pixel counts as part of the object
_TRIES = 24
_MOST_ENLARGED = 2.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """One cut-out in a finished scene.

    Attributes:
        object: its index among the scene's objects.
        box_xyxy: (x1, y1, x2, y2) of what is visible of it, in pixels, x2 and y2 exclusive.
        scale: how large it was drawn for a thing of its kind; 1 is ordinary.
        visible: the share of its pixels that nothing covers.
        in_sky: it is above the horizon.
    """

    object: int
    box_xyxy: tuple[int, int, int, int]
    scale: float
    visible: float
    in_sky: bool


@dataclass(slots=True, kw_only=True)
class _Cutout:
    image: Image
    left: int = 0
    top: int = 0
    object: int = 0
    scale: float = 1.0
    in_sky: bool = False

    @property
    def box(self) -> tuple[int, int, int, int]:
        return self.left, self.top, self.left + self.image.width, self.top + self.image.height

    @property
    def base(self) -> int:
        return self.top + self.image.height


class Studio:
    """Composes scenes; keeps every photograph decoded once, no larger than a scene can show it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cache: dict[str, Image] = {}

    def compose(self, hand: Hand, rng: np.random.Generator) -> tuple[Image, list[Placed], str]:
        """Paint one scene.

        Returns:
            the picture (RGB), its cut-outs in the order of ``hand.stamps``, the ground's tint.
        """
        from PIL import Image

        width, height = CANVASES[rng.integers(len(CANVASES))]
        horizon = int(height * rng.uniform(0.28, 0.42)) if hand.horizon else 0
        tints = list(hand.ground.tints)
        tint = tints[int(rng.integers(len(tints)))]
        ground = draw_ground(hand.ground, tint, width, height, horizon, rng)
        cutouts, masks = self._arrange(hand, width, height, horizon, rng)
        picture = Image.fromarray(ground)
        if hand.ground.name != "sky" and rng.random() < 0.75:
            picture = _with_shadows(picture, [c for c in cutouts if not c.in_sky], rng)
        for cutout in cutouts:
            picture.paste(cutout.image, (cutout.left, cutout.top), cutout.image)
        placed = [_placed(cutout, *mask) for cutout, mask in zip(cutouts, masks, strict=True)]
        return _exposed(picture, rng), sorted(placed, key=lambda p: (p.object, p.box_xyxy)), tint

    def _arrange(
        self, hand: Hand, width: int, height: int, horizon: int, rng: np.random.Generator
    ) -> tuple[list[_Cutout], list[tuple[NDArray[np.bool_], float]]]:
        """Place everything so that enough of each is visible; crowd less until it is."""
        closeness = 0.86 if sum(hand.counts) > 4 else 1.0
        scales = [_relative_size(rng) for _ in hand.stamps]
        while True:
            cutouts: list[_Cutout] = []
            for index in np.argsort([-NOMINAL[s.size] for s in hand.stamps], kind="stable"):
                stamp = hand.stamps[index]
                size = NOMINAL[stamp.size] * min(width, height) * scales[index] * closeness
                sky = hand.ground.name == "sky" or (hand.sky and set(stamp.places) <= {"s"})
                for _ in range(hand.counts[index]):
                    cutout = self._cutout(stamp, size, rng)
                    cutout.object, cutout.scale, cutout.in_sky = int(index), scales[index], sky
                    _place(cutout, cutouts, width, height, horizon, hand, rng)
                    cutouts.append(cutout)
            cutouts.sort(key=lambda c: (not c.in_sky, c.base))
            masks = _visible(cutouts, width, height)
            if all(share >= MIN_VISIBLE for _, share in masks):
                return cutouts, masks
            closeness *= 0.93

    def _cutout(self, stamp: Stamp, longest: float, rng: np.random.Generator) -> _Cutout:
        """Scale, flip and turn a photograph for one place."""
        from PIL import Image

        source = self._source(stamp.path)
        factor = min(longest * rng.uniform(0.94, 1.06) / max(source.size), _MOST_ENLARGED)
        shape = (max(8, round(source.width * factor)), max(8, round(source.height * factor)))
        image = source.resize(shape, Image.Resampling.BILINEAR)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if rng.random() < 0.6:
            angle = float(rng.uniform(-7, 7))
            image = image.rotate(angle, Image.Resampling.BICUBIC, expand=True)
            image = image.crop(image.getchannel("A").getbbox())
        return _Cutout(image=image)

    def _source(self, path: str) -> Image:
        if path not in self._cache:
            image = open_stamp(self._folder, path)
            image.thumbnail((_LONGEST, _LONGEST))
            self._cache[path] = image
        return self._cache[path]


def _relative_size(rng: np.random.Generator) -> float:
    """Draw how large a thing is for its kind: clearly small, ordinary, or clearly large."""
    draw = rng.random()
    if draw < 0.2:
        return float(rng.uniform(0.66, 0.76))
    if draw > 0.8:
        return float(rng.uniform(1.24, 1.36))
    return float(rng.uniform(0.88, 1.12))


def _place(
    cutout: _Cutout,
    others: Sequence[_Cutout],
    width: int,
    height: int,
    horizon: int,
    hand: Hand,
    rng: np.random.Generator,
) -> None:
    """Choose the place with the least overlap among some, on the ground or in the sky."""
    w, h = cutout.image.size
    if hand.ground.name == "sky":
        bases = h + 4, height - 4
    elif cutout.in_sky:
        bases = h + 2, max(h + 3, min(int(horizon * 0.92), height - 4))
    else:
        low = horizon + 0.12 * (height - horizon) if horizon else h + 4
        bases = max(int(low), h + 2), height - 4
    best, least = (0, 0), np.inf
    for _ in range(_TRIES):
        left = int(rng.integers(2, max(3, width - w - 1)))
        top = int(rng.integers(bases[0], max(bases[0] + 1, bases[1]))) - h
        covered = sum(_overlap((left, top, left + w, top + h), other.box) for other in others)
        if covered < least:
            best, least = (left, top), covered
        if covered == 0 or (covered < 0.1 and rng.random() < 0.3):
            break
    cutout.left, cutout.top = best


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """Measure the intersection of two boxes as a share of the smaller."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
    return max(across, 0) * max(down, 0) / min(areas)


def _visible(
    cutouts: Sequence[_Cutout], width: int, height: int
) -> list[tuple[NDArray[np.bool_], float]]:
    """Find what is seen of each cut-out, painted in this order: its mask, and its share."""
    owner = np.full((height, width), -1, np.int8)
    sizes = []
    for number, cutout in enumerate(cutouts):
        solid = np.asarray(cutout.image.getchannel("A")) >= _SEEN
        window = _window(owner, cutout)
        window[solid[: window.shape[0], : window.shape[1]]] = number
        sizes.append(int(solid.sum()))
    masks = [_window(owner, cutout) == number for number, cutout in enumerate(cutouts)]
    return [(m, int(m.sum()) / max(size, 1)) for m, size in zip(masks, sizes, strict=True)]


def _window(canvas: NDArray[Any], cutout: _Cutout) -> NDArray[Any]:
    left, top, right, bottom = cutout.box
    return canvas[top:bottom, left:right]


def _placed(cutout: _Cutout, mask: NDArray[np.bool_], visible: float) -> Placed:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (
        cutout.left + int(columns[0]),
        cutout.top + int(rows[0]),
        cutout.left + int(columns[-1]) + 1,
        cutout.top + int(rows[-1]) + 1,
    )
    return Placed(
        object=cutout.object,
        box_xyxy=box,
        scale=round(cutout.scale, 3),
        visible=round(visible, 3),
        in_sky=cutout.in_sky,
    )


def _with_shadows(picture: Image, standing: Sequence[_Cutout], rng: np.random.Generator) -> Image:
    """Darken the ground under what stands on it, softly."""
    from PIL import Image, ImageDraw, ImageFilter

    small = (picture.width // 4, picture.height // 4)
    light = Image.new("L", small, 255)
    draw = ImageDraw.Draw(light)
    lean = float(rng.uniform(-0.12, 0.12))
    for cutout in standing:
        left, _, right, bottom = (value / 4 for value in cutout.box)
        shift, thick = lean * (right - left), 0.075 * (right - left) + 1
        draw.ellipse(
            (left + shift, bottom - 1.5 * thick, right + shift, bottom + 0.7 * thick), fill=130
        )
    light = light.filter(ImageFilter.GaussianBlur(1.6)).resize(
        picture.size, Image.Resampling.BILINEAR
    )
    return Image.composite(picture, Image.new("RGB", picture.size, (18, 18, 24)), light)


def _exposed(picture: Image, rng: np.random.Generator) -> Image:
    """Give the whole picture one light: a little brighter or darker, warmer or colder."""
    gain = rng.uniform(0.88, 1.08) * rng.uniform(0.97, 1.03, 3)
    table = [min(255, int(value * g)) for g in gain for value in range(256)]
    return picture.point(table)
