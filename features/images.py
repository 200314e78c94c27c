"""Opens images that strangers made: every photo becomes 8-bit RGB, or a reason why it cannot.

Pixels are those of the stored image; an EXIF rotation is ignored, as VinVL's extraction does. A
path may lead into a tar: ``FOLDER/00000.tar/000000017.jpg``.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import xxhash

from ..errors import InputError
from .tars import open_tar, split_member

if TYPE_CHECKING:
    from PIL import Image

# What photo collections hold. Pillow knows more, but some of it runs other programs (EPS).
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
_MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"RIFF": "WEBP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
_TAIL = 64
_CHUNK = 1 << 22
# What an image is called, by the ends of names: how images are told from what lies beside them.
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".jp2", ".avif")
)


class BadImage(InputError):
    """An image that cannot be used; ``reason`` is short, so that rejects can be counted by it."""

    @property
    def reason(self) -> str:
        """One of: no such file, cannot be read, empty file, not an image, too many pixels,
        truncated image, damaged image, unsupported pixel type."""
        return self.found.partition(" (")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """What is known of an image without decoding it.

    Attributes:
        width, height: of the stored image, before any EXIF rotation. bytes: of the file.
        xxh3: xxh3-128 of the file's bytes, as 32 hexadecimal digits.
    """

    width: int
    height: int
    bytes: int
    xxh3: str


def probe_image(path: str | Path, max_pixels: int) -> tuple[int, int]:
    """Read an image's size without decoding it, noticing what is obviously broken.

    A file that does not end as its format should is decoded after all, to be sure.

    Args:
        path: the image file, or a member of a tar.
        max_pixels: the most pixels, width times height, that are allowed.

    Returns:
        Width and height of the stored image, before any EXIF rotation.

    Raises:
        BadImage: it cannot be used.
    """
    with _source(path) as file:
        return _size(path, file, max_pixels)


def inspect_image(path: str | Path, max_pixels: int, data: bytes | None = None) -> Inspected:
    """Probe an image and hash its bytes, reading them once.

    Args:
        path: the image file, or a member of a tar.
        max_pixels: as for ``probe_image``.
        data: the bytes of the image, where somebody has them already.

    Raises:
        BadImage: it cannot be used.
    """
    with _source(path) if data is None else io.BytesIO(data) as file:
        state, size = xxhash.xxh3_128(), 0
        while chunk := _read(path, file, _CHUNK):
            state.update(chunk)
            size += len(chunk)
        file.seek(0)
        width, height = _size(path, file, max_pixels)
    return Inspected(width=width, height=height, bytes=size, xxh3=state.hexdigest())


def image_exists(path: str | Path) -> bool:
    """Whether there is such a file, or such a member in a tar."""
    parts = split_member(path)
    if parts is None:
        return os.path.isfile(path)
    try:
        return parts[1] in open_tar(parts[0]).members
    except OSError:
        return False


def open_image(path: str | Path, max_pixels: int) -> Image.Image:
    """Decode an image as RGB.

    Transparency is laid on white, 16-bit greys are scaled to 8 bits, and of an animation the first
    frame is taken.

    Args:
        path: the image file, or a member of a tar.
        max_pixels: the most pixels, width times height, that are allowed; checked in the header.

    Raises:
        BadImage: it cannot be used.
    """
    with _source(path) as file, _opened(path, file, max_pixels) as image:
        _decode(path, file, image)
        try:
            return _as_rgb(image)
        except ValueError as error:
            raise BadImage(path, f"unsupported pixel type ({image.mode})") from error


def _size(path: str | Path, file: BinaryIO, max_pixels: int) -> tuple[int, int]:
    with _opened(path, file, max_pixels) as image:
        if not _ends_well(file, image.format or ""):
            _decode(path, file, image)
        return image.size


def _source(path: str | Path) -> BinaryIO:
    """The bytes of an image: its file, or a member of a tar."""
    parts = split_member(path)
    try:
        if parts is None:
            return open(path, "rb")
        tar = open_tar(parts[0])
        member = tar.members.get(parts[1])
    except FileNotFoundError as error:
        raise BadImage(path, "no such file") from error
    except OSError as error:
        raise BadImage(path, f"cannot be read ({error.strerror})") from error
    if member is None:
        raise BadImage(path, "no such file (the tar has no such member)")
    return io.BytesIO(tar.read(member))


@contextlib.contextmanager
def _opened(path: str | Path, file: BinaryIO, max_pixels: int) -> Iterator[Image.Image]:
    """Read an image's header."""
    with _header(path, file, max_pixels) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise BadImage(
                path, f"too many pixels ({width} x {height})", expected=f"at most {max_pixels}"
            )
        yield image


def _header(path: str | Path, file: BinaryIO, max_pixels: int) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    _raise_pillow_limit(max_pixels)
    start = _read(path, file, 16)
    if not start:
        raise BadImage(path, "empty file")
    try:
        return Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        found = "too many pixels (a decompression bomb)"
        raise BadImage(path, found, expected=f"at most {max_pixels}") from error
    except MemoryError:
        raise
    except Exception as error:  # decoders of damaged files leak many kinds
        kind = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), "")
        unknown = isinstance(error, UnidentifiedImageError) and (
            not kind or (kind == "WEBP" and start[8:12] != b"WEBP")  # other RIFF files are sound
        )
        raise BadImage(path, "not an image" if unknown else _damage(file, kind, error)) from error


def _decode(path: str | Path, file: BinaryIO, image: Image.Image) -> None:
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # decoders of damaged files leak many kinds
        raise BadImage(path, _damage(file, image.format or "", error)) from error


def _damage(file: BinaryIO, kind: str, error: Exception) -> str:
    short = "truncated" in str(error) or not _ends_well(file, kind)
    return "truncated image" if short else f"damaged image ({error})"


def _read(path: str | Path, file: BinaryIO, size: int) -> bytes:
    try:
        return file.read(size)
    except OSError as error:  # a folder opens, but does not read
        raise BadImage(path, f"cannot be read ({error.strerror})") from error


def _ends_well(file: BinaryIO, kind: str) -> bool:
    """Tell whether a file ends as its format should; True where that is not known."""
    if file.closed:  # Pillow closes what it has read to the end
        return True
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(8)
    file.seek(max(0, size - _TAIL))
    tail = file.read()
    if kind in ("JPEG", "MPO"):
        return b"\xff\xd9" in tail
    if kind == "PNG":
        return b"IEND" in tail
    if kind == "GIF":
        return b";" in tail
    if kind == "WEBP":
        return int.from_bytes(head[4:8], "little") + 8 <= size
    if kind == "BMP":
        return int.from_bytes(head[2:6], "little") <= size
    return True


def _as_rgb(image: Image.Image) -> Image.Image:
    """Convert a decoded image; raises ValueError where Pillow knows no conversion."""
    from PIL import Image

    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode == "F":
        raise ValueError("floating point pixels have no known range")
    if image.mode.startswith("I"):
        return _grey_from_16_bits(image)
    if "transparency" not in image.info and image.mode[-1] not in "Aa":
        return image.convert("RGB")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def _grey_from_16_bits(image: Image.Image) -> Image.Image:
    import numpy as np
    from PIL import Image

    grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
    return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")


@functools.cache
def _raise_pillow_limit(max_pixels: int) -> None:
    """Let Pillow open what our own limit allows, and keep quiet about what it refuses anyway."""
    from PIL import Image

    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
