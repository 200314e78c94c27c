"""What an image is: regions, the detectors that find them, and the store that keeps them."""

from __future__ import annotations

from .regions import RegionBatch, RegionBuffer, Regions
from .store import FeatureStore

__all__ = ["FeatureStore", "RegionBatch", "RegionBuffer", "Regions"]
