"""Microsoft's X152-C4 object-attribute detector (VinVL), our own implementation.

Numbers equal those of the reference (scene_graph_benchmark) within float noise, and do not depend
on what else is in a batch. Importing this loads no torch; the first image does.
"""

from __future__ import annotations

from .config import VinVLConfig
from .detector import VinVL

__all__ = ["VinVL", "VinVLConfig"]
