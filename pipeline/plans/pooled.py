"""One vector an image: the mean of its regions, seen from the mean of all images.

Sums of half-precision numbers are exact in double precision, so that the result does not depend on
the order of adding. Raw means of a detector's features all point one way (cosines of 0.9 between
any two images); without what they have in common, they tell images apart.
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
    seen = np.any(pooled != 0, axis=1) & np.all(np.isfinite(pooled), axis=1)
    if seen.any():
        pooled[seen] -= pooled[seen].mean(axis=0, dtype=np.float64)
    return pooled
