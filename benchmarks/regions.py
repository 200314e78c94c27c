"""Made-up regions for programs that need a feature store: only their sizes matter."""

from __future__ import annotations

import numpy as np

from tonics.features.regions import MAX_ATTRIBUTES, Regions


def made_up_regions(rng: np.random.Generator, count: int, dim: int) -> Regions:
    """Regions of one image: ``count`` of ``dim`` random numbers, best first."""
    return Regions(
        features=rng.random((count, dim), np.float32).astype(np.float16),
        boxes=np.tile(np.array([1, 1, 50, 50], np.float32), (count, 1)),
        labels=np.zeros(count, np.uint16),
        scores=np.linspace(1, 0.5, count, dtype=np.float32),
        attributes=np.zeros((0, MAX_ATTRIBUTES), np.uint16),
        attribute_scores=np.zeros((0, MAX_ATTRIBUTES), np.float16),
        width=100,
        height=100,
    )
