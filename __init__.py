"""TOnICS: training with ontology-informed contrastive sampling (arXiv 2207.14525).

A toolkit that decides beforehand which image-caption pairs share a minibatch. See README.md.
"""

from __future__ import annotations

__version__ = "0.1.0"
