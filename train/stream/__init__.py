"""Planned batches as ready tensors, in exactly the planned order.

from tonics.train.stream import CachedTexts, stream
"""

from .batch import Batch
from .reading import PlanSource, ReadAhead, check_images, pinned_memory, stream
from .texts import Cached, CachedStates, CachedTexts, Texts, TokenisedTexts, positions

__all__ = [
    "Batch",
    "Cached",
    "CachedStates",
    "CachedTexts",
    "PlanSource",
    "ReadAhead",
    "Texts",
    "TokenisedTexts",
    "check_images",
    "pinned_memory",
    "positions",
    "stream",
]
