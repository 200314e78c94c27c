"""How alike pairs are, in whole numbers, so that a plan has the same bytes wherever it is built.

Vectors are scaled to the length ``SCALE`` and rounded, which makes one of d numbers longer by at
most sqrt(d) / 2; joining two kinds rounds once more. No partial sum of a product of two vectors is
larger than the product of their lengths, a whole number below 2**24 up to d = ``MOST_NUMBERS`` of
each kind, which float32 holds exactly: whatever order a matrix product adds in, on any number of
threads, on a CPU or a GPU, it gives the same bits. Rounding costs about 1e-4 of a cosine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...errors import InputError, first_ten

Kind = Literal["text", "image", "both"]
SCALE = 4000
MOST_NUMBERS = 4096  # of a kind: (4000 + sqrt(4096) / 2 + sqrt(2 * 4096) / 2) ** 2 < 2 ** 24
_BLOCK = 512  # rows scaled at once: few enough for a processor's cache
_MOST_RANKED = 1 << 22  # products held at once


def kinds_of(similarity: Kind) -> tuple[str, ...]:
    """The vectors that a similarity compares: ``text``, ``image``, or ``both`` of them."""
    return ("text", "image") if similarity == "both" else (similarity,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """Vectors as whole numbers.

    Attributes:
        codes: (k, d) int16, each of length ``SCALE`` up to rounding; zeros stay zeros.
        index: (n,) which of them each row has; None: row r has ``codes[r]``.
    """

    codes: np.ndarray
    index: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> np.ndarray:
        """(len(rows), d) int16."""
        return self.codes[rows if self.index is None else self.index[rows]]


@dataclass(frozen=True, slots=True)
class Similarity:
    """How alike rows are: the mean of the cosines of one or two kinds of vectors."""

    parts: tuple[Codes, ...]

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Vectors ready for products: (len(rows), d) float32 whole numbers."""
        if len(self.parts) == 1:
            return self.parts[0].take(rows).astype(np.float32)
        shrink = np.float32(1 / np.sqrt(len(self.parts)))
        wide = [part.take(rows) * shrink for part in self.parts]
        return np.rint(np.concatenate(wide, axis=1, dtype=np.float32))

    def along(self, rows: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Products with a vector of whole numbers, as long as those of rows: (n,) float32."""
        wide = direction.astype(np.float32)
        starts = range(0, len(rows), _BLOCK)
        return np.concatenate([self.take(rows[at : at + _BLOCK]) @ wide for at in starts])


def encode(where: str, read: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> Codes:
    """Scale and round vectors, a block at a time.

    Args:
        where: what they are called in messages.
        read: maps numbers to vectors (k, d). rows: (n,) the numbers to read.

    Raises:
        InputError: a vector is not finite; the message lists the first ten numbers.
    """
    codes: np.ndarray | None = None
    bad: list[object] = []
    for at in range(0, len(rows), _BLOCK):
        part = rows[at : at + _BLOCK]
        wide = np.asarray(read(part), np.float64)
        if wide.shape[1] > MOST_NUMBERS:
            found = f"vectors of {wide.shape[1]} numbers"
            raise InputError(where, found, expected=f"{MOST_NUMBERS} at most")
        if codes is None:
            codes = np.empty((len(rows), wide.shape[1]), np.int16)
        length = np.sqrt((wide * wide).sum(axis=1))
        finite = np.isfinite(length)
        bad.extend(part[~finite].tolist())
        scale = np.where(finite & (length > 0), SCALE / np.where(length > 0, length, 1), 0)
        codes[at : at + len(part)] = np.rint(np.where(finite[:, None], wide, 0) * scale[:, None])
    if bad:
        raise InputError(
            where,
            f"{len(bad):,} vectors are not finite (NaN or infinite): {first_ten(bad)}",
            expected="finite numbers",
            do="compute them again; a half-precision encoder may have overflowed",
        )
    return Codes(codes=codes if codes is not None else np.empty((0, 1), np.int16))


def whole(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors (k, d) to the length ``SCALE`` and round them; zeros stay zeros.

    Sums of at most 2**20 whole vectors give the same on every machine: they are brought below 2**14
    first, so that the squares of d <= 2**13 numbers add up exactly, in any order.
    """
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=1)
    small = np.rint(vectors * (2.0**14 / largest))
    length = np.sqrt((small * small).sum(axis=1, keepdims=True))
    return np.rint(small * (SCALE / np.where(length > 0, length, 1)))


def rank(vectors: np.ndarray, seeds: np.ndarray, first: int, last: int) -> np.ndarray:
    """The nearest others of some vectors, ties by position.

    Args:
        vectors: (m, d) float32 whole numbers. seeds: (k,) positions among them.
        first, last: which ranks to return, from 0, the seed itself not counted.

    Returns:
        (k, min(last, m - 1) - first) int64 positions, nearest first.
    """
    if min(last, len(vectors) - 1) <= first:
        return np.empty((len(seeds), 0), np.int64)
    return nearest(vectors[seeds] @ vectors.T, seeds, first, last)


def nearest(products: np.ndarray, seeds: np.ndarray, first: int, last: int) -> np.ndarray:
    """The same as ``rank``, from products (k, m) of the seeds with all; these are overwritten."""
    count = products.shape[1]
    last = min(last, count - 1)
    products[np.arange(len(seeds)), seeds] = SCALE * SCALE * 2  # the seed comes first
    key = products.astype(np.int64) * count
    key += np.arange(count - 1, -1, -1)
    if last + 1 < count:
        key = np.partition(key, count - last - 1, axis=1)[:, count - last - 1 :]
    key.sort(axis=1)
    return count - 1 - key[:, ::-1][:, first + 1 :] % count


def seeds_at_once(count: int) -> int:
    """How many seeds to rank among ``count`` vectors at once."""
    return max(1, min(256, _MOST_RANKED // max(count, 1)))
