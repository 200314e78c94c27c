"""Plan builders: which pairs share a batch. One file each, one signature, one row in ``BUILDERS``.

eligible.py   which pairs a plan may use, and what must not meet in a batch
fill.py       rows in some order -> batches of exactly B without conflicts, and what is left
random.py     a uniform draw
ontology.py   every batch from one object's subtree
curriculum.py phases, epochs and passes -> all batches of a plan, and its remainder
quality.py    how alike the captions of a batch are, beside random batches
"""

from __future__ import annotations

from . import ontology, random
from .builder import Builder

BUILDERS: dict[str, Builder] = {b.name: b for b in (random.BUILDER, ontology.BUILDER)}

__all__ = ["BUILDERS", "Builder"]
