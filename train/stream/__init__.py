"""Planned batches as ready tensors, in exactly the planned order.

from tonics.train.stream import CachedTexts, stream
"""

from .batch import Batch
from .reading import PlanSource, ReadAhead, check_images, pinned_memory, stream
from .texts import CachedTexts, Texts, TokenisedTexts, positions, texts_of

__all__ = [
    "Batch",
    "CachedTexts",
    "PlanSource",
    "ReadAhead",
    "Texts",
    "TokenisedTexts",
    "check_images",
    "pinned_memory",
    "positions",
    "stream",
    "texts_of",
]
