"""Recall at K between images and captions, counted as the field does and against ourselves.

Both directions; all captions of an image are positives, and the best placed one counts; every image
is a candidate, also one without captions, but only images with captions are queries. A rank is the
number of wrong candidates that score at least as high as the best right one: a tie is a loss, so a
model that maps everything to one point scores nothing. Scores are float32, accumulated in float64,
so they do not depend on how the matrix is cut: half precision would make ties of near misses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ...errors import InputError

KS = (1, 5, 10)
_CHUNK = 512  # images scored at once, against eight times as many captions


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
    return summarise(ranks(image_vectors, text_vectors, image_of_text))


def summarise(found: Ranks) -> Retrieval:
    """Count recalls from ranks."""
    return Retrieval(
        i2t=_direction(found.i2t, found.i2t_tied), t2i=_direction(found.t2i, found.t2i_tied)
    )


def fold_recall(
    image_vectors: np.ndarray, text_vectors: np.ndarray, image_of_text: np.ndarray, size: int
) -> Retrieval:
    """Average retrieval among every ``size`` consecutive images: COCO 1K is five folds of 5K.

    Args, Raises: as ``recall``; a last fold that is not full is left out.

    Returns:
        Means over the folds; ``queries`` are those of all folds together.
    """
    owner = np.asarray(image_of_text)
    found = []
    for rows in slices(len(image_vectors) // size * size, size):
        mine = np.flatnonzero((owner >= rows.start) & (owner < rows.stop))
        fold = (np.asarray(image_vectors)[rows], np.asarray(text_vectors)[mine])
        found.append(recall(*fold, owner[mine] - rows.start))
    return Retrieval(i2t=_mean([f.i2t for f in found]), t2i=_mean([f.t2i for f in found]))


def _mean(found: Sequence[Direction]) -> Direction:
    means = {f.name: float(np.mean([getattr(d, f.name) for d in found])) for f in fields(Direction)}
    queries = sum(d.queries for d in found)
    return Direction(**{**means, "queries": queries})  # type: ignore[arg-type]


def ranks(
    image_vectors: np.ndarray,
    text_vectors: np.ndarray,
    image_of_text: np.ndarray,
    *,
    chunk: int = _CHUNK,
) -> Ranks:
    """Rank every query's best right answer; beside the vectors, memory is O(chunk x chunk).

    Args, Raises: as ``recall``.
    """
    images, texts, owner = _checked(image_vectors, text_vectors, image_of_text)
    images = images.astype(np.float64)
    right = own_scores(images, texts, owner)
    best = np.full(len(images), -np.inf, np.float32)
    np.maximum.at(best, owner, right)
    i2t, t2i = np.zeros((2, len(images)), np.int64), np.zeros((2, len(texts)), np.int64)
    for columns in slices(len(texts), 8 * chunk):
        block, threshold = texts[columns].astype(np.float64).T, right[columns]
        for rows in slices(len(images), chunk):
            scores = (images[rows] @ block).astype(np.float32)
            own = np.flatnonzero((owner[columns] >= rows.start) & (owner[columns] < rows.stop))
            scores[owner[columns][own] - rows.start, own] = -np.inf  # nobody's rival
            i2t[:, rows] += _rivals(scores, best[rows, None], 1)
            t2i[:, columns] += _rivals(scores, threshold, 0)
    asked = np.bincount(owner, minlength=len(images)) > 0
    return Ranks(i2t=i2t[0, asked], i2t_tied=i2t[1, asked] > 0, t2i=t2i[0], t2i_tied=t2i[1] > 0)


def own_scores(images: np.ndarray, texts: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Score every caption with its own image: (M,) float32, accumulated in float64."""
    scores = np.empty(len(texts), np.float32)
    for rows in slices(len(texts), 2048):
        own, said = (v.astype(np.float64) for v in (images[owner[rows]], texts[rows]))
        scores[rows] = np.einsum("md,md->m", own, said)
    return scores


def slices(count: int, size: int) -> Iterator[slice]:
    """Cut rows ``0..count`` into slices of ``size``."""
    return (slice(first, min(first + size, count)) for first in range(0, count, size))


def _rivals(scores: np.ndarray, threshold: np.ndarray, axis: int) -> np.ndarray:
    """Count along an axis the scores at or above a threshold, and those that equal it: (2, n)."""
    reach = np.count_nonzero(scores >= threshold, axis=axis)
    return np.stack([reach, reach - np.count_nonzero(scores > threshold, axis=axis)])


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
    images, texts = (np.asarray(v, np.float32) for v in (images, texts))
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
