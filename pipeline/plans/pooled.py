"""One vector an image: the mean of its regions, seen from the mean of all images.

Sums of half-precision numbers are exact in double precision, so that a mean does not depend on the
order of adding; the mean of all images is summed in the order of their numbers. Raw means of a
detector's features all point one way (cosines of 0.9 between any two images); without what they
have in common, they tell images apart.
"""

from __future__ import annotations

import numpy as np

from ...features import FeatureStore

_IMAGES = 256  # read at once
_REGIONS = 50  # the detector's best of an image


def pooled_images(store: FeatureStore, images: np.ndarray) -> np.ndarray:
    """Average the regions of each image, and take away the mean of all these images.

    Args:
        images: (n,) image numbers, increasing.

    Returns:
        (n, D) float32; zeros for an image without regions, not finite where its regions are not.
    """
    pooled = np.zeros((len(images), store.dim), np.float32)
    for at in range(0, len(images), _IMAGES):
        batch = store.gather(images[at : at + _IMAGES], max_regions=_REGIONS)
        starts, counts = batch.cu_seqlens[:-1], np.diff(batch.cu_seqlens)
        has = counts > 0
        if has.any():
            sums = np.add.reduceat(batch.features, starts[has], axis=0, dtype=np.float64)
            pooled[at : at + _IMAGES][has] = sums / counts[has, None]
    _subtract_mean(pooled)
    return pooled


def _subtract_mean(pooled: np.ndarray) -> None:
    """Take away the mean of the rows that are finite and not zero, from these, in place."""
    total, count = np.zeros(pooled.shape[1]), 0
    blocks = [pooled[at : at + _IMAGES] for at in range(0, len(pooled), _IMAGES)]
    seen = [np.any(block != 0, axis=1) & np.isfinite(block).all(axis=1) for block in blocks]
    for block, has in zip(blocks, seen, strict=True):
        total += block[has].sum(axis=0, dtype=np.float64)
        count += int(np.count_nonzero(has))
    for block, has in zip(blocks, seen, strict=True):
        block[has] -= total / max(1, count)
