"""Recall at K between images and captions, counted as the field does and against ourselves.

Both directions; all captions of an image are positives, and the best placed one counts; every image
is a candidate, also one without captions, but only images with captions are queries. A rank is the
number of wrong candidates that score at least as high as the best right one: a tie is a loss, so a
model that maps everything to one point scores nothing. Scores are float32, accumulated in float64,
so they do not depend on how the matrix is cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import InputError

KS = (1, 5, 10)
_CHUNK = 256  # images scored at once against all captions


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """Retrieval in one direction.

    Attributes:
        queries: how many there were.
        r1, r5, r10: percentage of queries whose best right answer is among the first K.
        median_rank: of the best right answer, counted from 1.
        tie_rate: percentage of queries where a wrong candidate scores exactly as the best right
            one.
    """

    queries: int
    r1: float
    r5: float
    r10: float
    median_rank: float
    tie_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """Both directions, and the sum of the six recalls."""

    i2t: Direction
    t2i: Direction

    @property
    def rsum(self) -> float:
        """The six recalls added up (600 at most)."""
        return sum(d.r1 + d.r5 + d.r10 for d in (self.i2t, self.t2i))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranks:
    """Rank of the best right answer of each query, from 0, and whether a wrong one ties with it.

    Attributes:
        i2t, i2t_tied: one an image that has captions, by image.
        t2i, t2i_tied: one a caption.
    """

    i2t: np.ndarray
    i2t_tied: np.ndarray
    t2i: np.ndarray
    t2i_tied: np.ndarray


def recall(
    image_vectors: np.ndarray, text_vectors: np.ndarray, image_of_text: np.ndarray
) -> Retrieval:
    """Score retrieval in both directions.

    Args:
        image_vectors: (N, d). text_vectors: (M, d); both scored by their dot product.
        image_of_text: (M,) row in ``image_vectors`` of each caption's image.

    Raises:
        InputError: shapes do not fit, nothing to retrieve, or a vector is not finite.

    >>> vectors = np.eye(3, dtype=np.float32)
    >>> recall(vectors, vectors, np.arange(3)).rsum
    600.0
    """
    found = ranks(image_vectors, text_vectors, image_of_text)
    return Retrieval(
        i2t=_direction(found.i2t, found.i2t_tied), t2i=_direction(found.t2i, found.t2i_tied)
    )


def ranks(
    image_vectors: np.ndarray,
    text_vectors: np.ndarray,
    image_of_text: np.ndarray,
    *,
    chunk: int = _CHUNK,
) -> Ranks:
    """Rank every query's best right answer; memory is O(chunk x M).

    Args, Raises: as ``recall``.
    """
    images, texts, owner = _checked(image_vectors, text_vectors, image_of_text)
    right = np.einsum("md,md->m", images[owner], texts).astype(np.float32)
    best = np.full(len(images), -np.inf, np.float32)
    np.maximum.at(best, owner, right)
    i2t = np.zeros((2, len(images)), np.int64)
    t2i = np.zeros((2, len(texts)), np.int64)
    by_owner = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[by_owner], np.arange(len(images) + 1))
    for first in range(0, len(images), chunk):
        last = min(first + chunk, len(images))
        scores = (images[first:last] @ texts.T).astype(np.float32)
        own = by_owner[bounds[first] : bounds[last]]
        scores[owner[own] - first, own] = -np.inf  # a right answer is nobody's rival
        i2t[0, first:last] = (scores >= best[first:last, None]).sum(1)
        i2t[1, first:last] = (scores == best[first:last, None]).sum(1)
        t2i[0] += (scores >= right).sum(0)
        t2i[1] += (scores == right).sum(0)
    asked = bounds[1:] > bounds[:-1]
    return Ranks(i2t=i2t[0, asked], i2t_tied=i2t[1, asked] > 0, t2i=t2i[0], t2i_tied=t2i[1] > 0)


def _direction(rank: np.ndarray, tied: np.ndarray) -> Direction:
    r1, r5, r10 = (100 * float(np.mean(rank < k)) for k in KS)
    return Direction(
        queries=len(rank),
        r1=r1,
        r5=r5,
        r10=r10,
        median_rank=float(np.median(rank)) + 1,
        tie_rate=100 * float(np.mean(tied)),
    )


def _checked(images: Any, texts: Any, owner: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    images, texts = (np.asarray(v).astype(np.float32).astype(np.float64) for v in (images, texts))
    owner = np.asarray(owner)
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1]:
        found = f"image vectors {images.shape}, caption vectors {texts.shape}"
        raise InputError("retrieval", found, expected="(N, d) and (M, d)")
    if not len(texts) or owner.shape != (len(texts),):
        found = f"{len(texts)} captions, {owner.shape} numbers of their images"
        raise InputError(
            "retrieval", found, expected="at least one caption, and one number for each"
        )
    if owner.min() < 0 or owner.max() >= len(images):
        found = f"images {owner.min()} to {owner.max()} of captions"
        raise InputError("retrieval", found, expected=f"rows 0 to {len(images) - 1}")
    for name, vectors in (("image", images), ("caption", texts)):
        bad = ~np.isfinite(vectors).all(axis=1)
        if bad.any():
            found = (
                f"{int(bad.sum())} {name} vectors hold NaN or infinity, first row {bad.argmax()}"
            )
            raise InputError("retrieval", found, do="check the training loss in metrics.jsonl")
    return images, texts, owner.astype(np.int64)
