"""Planned batches as ready tensors, in exactly the planned order.

from tonics.train.stream import CachedTexts, fits, packed, resident, stream
"""

from .batch import Batch
from .pack_tars import Pack
from .packed import packed
from .reading import PlanSource, ReadAhead, check_images, pinned_memory, stream
from .resident import fits, resident
from .texts import (
    Cached,
    CachedStates,
    CachedTexts,
    Texts,
    TokenisedTexts,
    positions,
    texts_of,
)

__all__ = [
    "Batch",
    "Cached",
    "CachedStates",
    "CachedTexts",
    "Pack",
    "PlanSource",
    "ReadAhead",
    "Texts",
    "TokenisedTexts",
    "check_images",
    "fits",
    "packed",
    "pinned_memory",
    "positions",
    "resident",
    "stream",
    "texts_of",
]
