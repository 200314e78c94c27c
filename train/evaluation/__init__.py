"""How good a model is: retrieval, counted as the field does and against ourselves."""

from .retrieval import recall
from .runs import embed_images, embed_texts, evaluate, load_model

__all__ = ["embed_images", "embed_texts", "evaluate", "load_model", "recall"]
