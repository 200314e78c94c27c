"""How good a model is: retrieval, counted as the field does and against ourselves."""

from .queries import QUERIES_SCHEMA, Queries
from .retrieval import fold_recall, recall
from .runs import embed_images, embed_queries, embed_texts, evaluate, load_model, score_run
from .same_object import SAME_OBJECT_SCHEMA
from .scoring import Scores, score

__all__ = [
    "QUERIES_SCHEMA",
    "SAME_OBJECT_SCHEMA",
    "Queries",
    "Scores",
    "embed_images",
    "embed_queries",
    "embed_texts",
    "evaluate",
    "fold_recall",
    "load_model",
    "recall",
    "score",
    "score_run",
]
