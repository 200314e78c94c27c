"""What one line of a feature file says, and how a family of files is described.

A family is one module with one ``FORMAT``; its ``read`` turns a line (and, where the family keeps
boxes and labels in a second file, the line that belongs to it) into a ``Row``, or raises
``BadLine``.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..regions import MAX_REGIONS

GEOMETRY = 6  # x1/W y1/H x2/W y2/H w/W h/H, which Oscar's users append to the features
FLOATS, INTEGERS = "<f4", "<i8"
MAX_PIXELS = (1 << 31) - 1  # of an image's side: what the stores' int32 holds


class BadLine(ValueError):
    """A line that cannot be used.

    Args:
        reason: one of a few words, counted.
        detail: what is there.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}" if detail else reason)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.reason, self.detail))


@dataclass(frozen=True, slots=True, kw_only=True)
class Object:
    """A region as families that write JSON name it."""

    name: str
    score: float
    box: tuple[float, float, float, float]
    attributes: tuple[str, ...] = ()
    attribute_scores: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """The n regions of one image as a file has them; what it does not say is None, or 0.

    Attributes:
        features: (n, D) float32, without geometry.
        geometry: (n, 6) float32, ``GEOMETRY``.
        boxes: (n, 4) float32, x1 y1 x2 y2 in pixels.
        scores: (n,) float32.
        objects: n names with boxes and scores, from families that name labels.
        labels: (n,) int64 from families that number them; the first real label is 0.
        attributes: (n, k) int64, likewise; k is 1 or more.
        attribute_scores: (n, k) float32.
        width, height: of the image, in pixels.
    """

    features: np.ndarray
    geometry: np.ndarray | None = None
    boxes: np.ndarray | None = None
    scores: np.ndarray | None = None
    objects: Sequence[Object] | None = None
    labels: np.ndarray | None = None
    attributes: np.ndarray | None = None
    attribute_scores: np.ndarray | None = None
    width: int = 0
    height: int = 0

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mate:
    """The second file of a family, with boxes and labels.

    Attributes:
        path: where it is, given the path of the first.
        by_row: its k-th line belongs to the first file's k-th; else the image id tells.
    """

    path: Callable[[Path], Path]
    by_row: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureFormat:
    """A family of feature files: one line an image, its id first, columns parted by tabs.

    Attributes:
        about: the family in a few words.
        matches: whether a file's first line, as columns, is of this family.
        read: a line and its mate (None where there is no second file) as columns -> Row.
        objects: reads only the names of a line, for families that name labels.
        first_number: the number of the first real label, for families that number labels.
        mate: the second file, if the family has one.
    """

    about: str
    matches: Callable[[Sequence[bytes]], bool]
    read: Callable[[Sequence[bytes], Sequence[bytes] | None], Row]
    objects: Callable[[Sequence[bytes], Sequence[bytes] | None], Sequence[Object]] | None = None
    first_number: int | None = None
    mate: Mate | None = None


def columns_of(line: bytes) -> list[bytes]:
    """Cut a line into its columns."""
    return line.rstrip(b"\r\n").split(b"\t")


def check_columns(columns: Sequence[bytes], expected: int) -> None:
    """Refuse a line of another number of columns."""
    if len(columns) != expected:
        raise BadLine("wrong column count", f"{len(columns)} columns, expected {expected}")


def whole_number(cell: bytes, what: str, most: int = MAX_PIXELS) -> int:
    """Read a whole number that is not negative.

    >>> whole_number(b" 36 ", "num_boxes")
    36
    """
    text = cell.strip()
    if not text.isdigit() or len(text) > 10 or int(text) > most:
        raise BadLine("bad number", f"{what} is {shown(cell)}")
    return int(text)


def count_of(cell: bytes) -> int:
    """Read the number of regions."""
    return whole_number(cell, "num_boxes", MAX_REGIONS)


def decode(text: bytes | str, what: str) -> bytes:
    """Decode base64; a character that is not of its alphabet is an error, not skipped."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:  # binascii.Error, and text that is not ASCII
        raise BadLine("bad base64", f"{what}: {error}") from error


def numbers(cell: bytes, what: str, dtype: str, rows: int, width: int) -> np.ndarray:
    """Decode (rows, width) numbers.

    Args:
        width: numbers a row; 0: as many as there are.
    """
    return shaped(decode(cell.strip(), what), what, dtype, rows, width)


def shaped(data: bytes, what: str, dtype: str, rows: int, width: int) -> np.ndarray:
    """View bytes as (rows, width) numbers; see ``numbers``."""
    found, rest = divmod(len(data), rows * np.dtype(dtype).itemsize) if rows else (0, len(data))
    if rest or (rows and (not found or (width and found != width))):
        each = f"{width} numbers" if width else "as many numbers"
        detail = f"{what}: {len(data)} bytes, expected {rows} regions of {each}"
        raise BadLine("length does not fit num_boxes", detail)
    return np.frombuffer(data, dtype).reshape(rows, found or width)


def shown(cell: bytes, limit: int = 40) -> str:
    """Show a cell in a message.

    >>> shown(b"abc" * 40)[-4:]
    "...'"
    """
    text = cell[:limit].decode("utf-8", "backslashreplace")
    return repr(text + "..." if len(cell) > limit else text)


def names_in(objects: Sequence[Object]) -> Iterator[tuple[str, Sequence[str]]]:
    """Each object's label, and its attributes that are no filler."""
    for one in objects:
        real = zip(one.attributes, one.attribute_scores, strict=True)
        yield one.name, [name for name, score in real if score > 0]
