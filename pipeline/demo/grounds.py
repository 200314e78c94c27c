"""What the objects stand on: grass, sand, a table ..., drawn with noise and seen in perspective."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Field = NDArray[np.float32]

TILE = 512
_FAR = 0.12  # how far the horizon is: the distance there is 1 / _FAR times that at the lower edge


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """A kind of background.

    Attributes:
        accepts: the letters of the places (see ``Stamp.places``) it offers.
        backdrop: what is seen above the horizon: "sky", "sea" (and sky), "wall", "room" (a wall
            farther back), "brick", or "" for no horizon.
        share: how many of 30 scenes have it.
        tints: colours it comes in, by the word a caption may use; RGB factors.
    """

    name: str
    accepts: str
    backdrop: str
    share: int
    tints: dict[str, tuple[float, float, float]]


_PLAIN = {"": (1.0, 1.0, 1.0)}
_DYES = {
    "red": (0.80, 0.24, 0.22),
    "blue": (0.30, 0.42, 0.72),
    "green": (0.32, 0.56, 0.36),
    "gray": (0.58, 0.58, 0.58),
}
GROUNDS = {
    ground.name: ground
    for ground in (
        Ground(name="grass", accepts="g", backdrop="sky", share=5, tints=_PLAIN),
        Ground(name="sand", accepts="gb", backdrop="sea", share=3, tints=_PLAIN),
        Ground(name="snow", accepts="g", backdrop="sky", share=2, tints=_PLAIN),
        Ground(name="road", accepts="g", backdrop="sky", share=3, tints=_PLAIN),
        Ground(name="dirt", accepts="g", backdrop="sky", share=2, tints=_PLAIN),
        Ground(name="water", accepts="wb", backdrop="sky", share=4, tints=_PLAIN),
        Ground(name="table", accepts="t", backdrop="room", share=3, tints=_PLAIN),
        Ground(name="tablecloth", accepts="t", backdrop="room", share=1, tints=_DYES),
        Ground(name="floor", accepts="i", backdrop="wall", share=2, tints=_PLAIN),
        Ground(name="tiles", accepts="i", backdrop="wall", share=1, tints=_PLAIN),
        Ground(name="carpet", accepts="i", backdrop="wall", share=2, tints=_DYES),
        Ground(name="wall", accepts="gi", backdrop="brick", share=1, tints=_PLAIN),
        Ground(name="sky", accepts="s", backdrop="", share=1, tints=_PLAIN),
    )
}


def draw_ground(
    ground: Ground, tint: str, width: int, height: int, horizon: int, rng: np.random.Generator
) -> Pixels:
    """Draw an empty scene.

    Args:
        horizon: the row where the ground begins; 0 shows the ground alone, seen from above.

    Returns:
        (height, width, 3) uint8.
    """
    picture = np.empty((height, width, 3), np.uint8)
    if ground.name == "sky":
        return _sky(width, height, rng, low=1.6)
    if horizon:
        picture[:horizon] = _backdrop(ground.backdrop, width, horizon, rng)
    seen = _seen_from_side if horizon else _seen_from_above
    surface = seen(_tile(ground.name), width, height - horizon, rng)
    light = rng.uniform(0.9, 1.06) * rng.uniform(0.98, 1.02, 3)
    dye = np.asarray(ground.tints[tint], np.float32)
    if ground.name == "tablecloth":  # the white of its checks stays white under every dye
        surface = 255 * dye + surface * (1 - dye)
    else:
        surface = surface * dye
    picture[horizon:] = np.clip(surface * light.astype(np.float32), 0, 255)
    return picture


def _seen_from_side(tile: Pixels, width: int, rows: int, rng: np.random.Generator) -> Field:
    distance = 1.0 / (np.linspace(0, 1, rows, dtype=np.float32) + _FAR)
    zoom, shift = rng.uniform(0.9, 1.5), rng.integers(0, TILE, 2)
    along = (distance * 150 * zoom + shift[0]).astype(np.int32) % TILE
    columns = np.arange(width, dtype=np.float32) - width * rng.uniform(0.35, 0.65)
    across = (np.outer(distance, columns) * zoom + TILE // 2).astype(np.int32) % TILE
    near = tile[along[:, None], across].astype(np.float32)
    haze = np.clip((distance - 2.0) * 0.11, 0, 0.75)[:, None, None]
    light = np.linspace(1.06, 0.94, rows, dtype=np.float32)[:, None, None]
    return (near * (1 - haze) + tile.mean((0, 1), dtype=np.float32) * haze) * light


def _seen_from_above(tile: Pixels, width: int, rows: int, rng: np.random.Generator) -> Field:
    zoom, shift = rng.uniform(0.8, 1.3), rng.integers(0, TILE, 2)
    down = (np.arange(rows) * zoom + shift[0]).astype(np.int32) % TILE
    across = (np.arange(width) * zoom + shift[1]).astype(np.int32) % TILE
    if rng.random() < 0.5:
        return tile[across[None, :], down[:, None]].astype(np.float32)
    return tile[down[:, None], across[None, :]].astype(np.float32)


def _backdrop(kind: str, width: int, rows: int, rng: np.random.Generator) -> Pixels:
    if kind == "wall":
        return _painted_wall(width, rows, rng, skirting=max(3, rows // 14))
    if kind == "room":
        return _painted_wall(width, rows, rng, skirting=0)
    if kind == "brick":
        return np.clip(_seen_from_above_upright(_tile("brick"), width, rows, rng), 0, 255)
    picture = _sky(width, rows, rng, low=1.0)
    if kind == "sea":
        band = max(4, int(rows * rng.uniform(0.12, 0.3)))
        sea = _seen_from_side(_tile("water"), width, band, rng)
        picture[-band:] = np.clip(sea * 0.97, 0, 255)
        picture[-2:] = (236, 240, 238)
    else:
        _hills(picture, rng)
    return picture


def _seen_from_above_upright(
    tile: Pixels, width: int, rows: int, rng: np.random.Generator
) -> Field:
    shift = rng.integers(0, TILE, 2)
    down, across = (np.arange(rows) + shift[0]) % TILE, (np.arange(width) + shift[1]) % TILE
    return tile[down[:, None], across[None, :]] * np.float32(rng.uniform(0.85, 1.1))


def _sky(width: int, rows: int, rng: np.random.Generator, low: float) -> Pixels:
    height = np.linspace(1, 0, rows, dtype=np.float32)[:, None, None] / low
    blue, pale = np.array([92, 150, 214], np.float32), np.array([206, 224, 240], np.float32)
    color = blue * height + pale * (1 - height)
    shift, amount = rng.integers(0, TILE, 2), rng.uniform(0.0, 0.9)
    down, across = (np.arange(rows) * 2 + shift[0]) % TILE, (np.arange(width) + shift[1]) % TILE
    cloud = np.clip(_noise(2.4, 11, 1.0)[down[:, None], across] * 0.8 + 0.1, 0, 1) * amount
    return (color + (np.float32(250) - color) * cloud[:, :, None]).astype(np.uint8)


def _hills(picture: Pixels, rng: np.random.Generator) -> None:
    """Draw a line of far trees or hills along the lower edge, or nothing."""
    rows, width, _ = picture.shape
    if rng.random() < 0.3:
        return
    top = rows * rng.uniform(0.08, 0.28)
    row, column = rng.integers(0, TILE, 2)
    ridge = _noise(2.0, 23, 1.0)[row, (np.arange(width) + column) % TILE]
    height = np.clip(top * (1 + 0.25 * ridge), 0, rows).astype(np.int32)
    inside = np.arange(rows)[:, None] >= rows - height[None, :]
    color = np.array([(74, 96, 66), (96, 116, 110), (120, 134, 150)][rng.integers(0, 3)])
    grain = _noise(0.8, 31, 1.0)[:rows, :width] * 9
    picture[inside] = np.clip(color + grain[inside][:, None], 0, 255)


def _painted_wall(width: int, rows: int, rng: np.random.Generator, skirting: int) -> Pixels:
    paints = [(226, 218, 200), (198, 210, 214), (214, 200, 190), (182, 196, 178), (230, 230, 226)]
    light = np.linspace(0.9, 1.05, width, dtype=np.float32)[:: rng.choice([-1, 1])]
    wall = np.array(paints[rng.integers(0, len(paints))], np.float32) * light[None, :, None]
    wall = wall + _noise(1.4, 41, 1.0)[:rows, :width, None] * 2.0
    if skirting:
        wall[-skirting:] = np.float32(244) * light[None, :, None]
        wall[-skirting] = wall[-skirting] * 0.75
    wall[-1] *= 0.7
    return np.clip(wall, 0, 255).astype(np.uint8)


@functools.cache
def _noise(slope: float, seed: int, stretch: float) -> Field:
    """Make a (TILE, TILE) field that tiles, mean 0, deviation 1, amplitude as frequency**-slope.

    A stretch above 1 draws it out along the rows' direction.
    """
    rng = np.random.default_rng([7, seed])
    down, across = np.fft.fftfreq(TILE)[:, None] * stretch, np.fft.rfftfreq(TILE)[None, :]
    frequency = np.hypot(down, across)
    frequency[0, 0] = 1.0
    waves = np.fft.rfft2(rng.standard_normal((TILE, TILE))) * frequency**-slope
    waves[0, 0] = 0.0
    field = np.fft.irfft2(waves, (TILE, TILE))
    return (field / field.std()).astype(np.float32)


@functools.cache
def _tile(name: str) -> Pixels:
    """Draw the (TILE, TILE, 3) tile of a surface, once a process; rows run away from the eye."""
    return np.clip(_PAINTERS[name](), 0, 255).astype(np.uint8)


def _colored(color: tuple[int, int, int], *parts: Field) -> Field:
    return np.asarray(color, np.float32) + sum(parts[1:], parts[0])[:, :, None]


def _grass() -> Field:
    blades, patches = _noise(0.5, 1, 0.6) * 17, _noise(1.8, 2, 1.0)
    green = _colored((84, 126, 52), blades)
    return green + patches[:, :, None] * np.array([9, 5, 3], np.float32)


def _sand() -> Field:
    return _colored((212, 188, 142), _noise(0.3, 3, 1.0) * 9, _noise(1.5, 4, 0.5) * 7)


def _snow() -> Field:
    drifts = _noise(2.0, 5, 0.7)[:, :, None] * np.array([8, 6, 4], np.float32)
    return _colored((232, 237, 244), _noise(0.4, 6, 1.0) * 4) + drifts


def _road() -> Field:
    asphalt = _colored((98, 98, 101), _noise(0.2, 7, 1.0) * 11, _noise(1.6, 8, 1.0) * 5)
    asphalt[: TILE // 2, 248:262] = asphalt[: TILE // 2, 248:262] * 0.15 + 195
    asphalt[:, 4:10] = asphalt[:, 4:10] * 0.15 + 190
    return asphalt


def _dirt() -> Field:
    return _colored((134, 101, 70), _noise(0.7, 9, 1.0) * 15, _noise(1.7, 10, 1.0) * 9)


def _water() -> Field:
    waves = _noise(1.3, 12, 0.35)
    crests = np.clip(waves - 0.9, 0, None)[:, :, None] * np.float32(34)
    return _colored((52, 112, 142), waves * 14, _noise(0.5, 13, 0.4) * 4) + crests


def _planks(color: tuple[int, int, int], width: int, length: int, seed: int) -> Field:
    rng = np.random.default_rng([9, seed])
    wood = _colored(color, _noise(1.0, seed, 12.0) * 10, _noise(0.4, seed + 1, 5.0) * 5)
    for left in range(0, TILE, width):
        start = rng.integers(0, length)
        for top in range(-start, TILE, length):
            rows, columns = slice(max(top, 0), top + length), slice(left, left + width)
            wood[rows, columns] *= rng.uniform(0.86, 1.1)
            wood[max(top, 0) : max(top, 0) + 2, columns] *= 0.6
        wood[:, left : left + 2] *= 0.55
    return wood


def _table() -> Field:
    return _planks((158, 106, 62), 128, TILE, 14)


def _floor() -> Field:
    return _planks((190, 146, 98), 64, 256, 16)


def _tiles() -> Field:
    stone = _colored((216, 214, 208), _noise(1.4, 18, 1.0) * 5)
    rows, columns = np.arange(TILE) // 128, np.arange(TILE) // 128
    stone *= np.where((rows[:, None] + columns) % 2, 1.0, 0.80)[:, :, None]
    joint = np.arange(TILE) % 128 < 4
    stone[joint], stone[:, joint] = 150, 150
    return stone


def _carpet() -> Field:
    return _colored((205, 205, 205), _noise(0.1, 19, 1.0) * 16, _noise(1.8, 20, 1.0) * 8)


def _tablecloth() -> Field:
    band = (np.arange(TILE) // 32 % 2).astype(np.float32)
    weave = (band[:, None] + band)[:, :, None] * np.float32(110)
    return _colored((12, 12, 12), _noise(0.2, 21, 1.0) * 6) + weave


def _brick() -> Field:
    wall = _colored((160, 84, 66), _noise(0.6, 22, 1.0) * 12, _noise(1.8, 24, 1.0) * 8)
    rng = np.random.default_rng([9, 24])
    for course, top in enumerate(range(0, TILE, 32)):
        for left in range(-32 * (course % 2), TILE, 64):
            brick = (slice(top, top + 32), slice(max(left, 0), left + 64))
            wall[brick] *= rng.uniform(0.82, 1.12)
            wall[top : top + 32, max(left, 0) : max(left, 0) + 3] = (186, 178, 168)
        wall[top : top + 3] = (186, 178, 168)
    return wall


def _pavement() -> Field:
    stone = _colored((168, 166, 162), _noise(0.3, 25, 1.0) * 8, _noise(1.8, 26, 1.0) * 6)
    joint = np.arange(TILE) % 256 < 4
    stone[joint] *= 0.7
    stone[:, joint] *= 0.7
    return stone


_PAINTERS: dict[str, Callable[[], Field]] = {
    "grass": _grass,
    "sand": _sand,
    "snow": _snow,
    "road": _road,
    "dirt": _dirt,
    "water": _water,
    "table": _table,
    "tablecloth": _tablecloth,
    "floor": _floor,
    "tiles": _tiles,
    "carpet": _carpet,
    "wall": _pavement,
    "brick": _brick,
}
