"""All scores of two sets of vectors: what ``eval.json`` says, and how every query went."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from .queries import Queries
from .retrieval import Direction, Retrieval, fold_recall, ranks, summarise
from .same_object import WAYS, choose, sets_hash

# 2: a format is named; folds, same-object choices. 3: hashes of the query set and of the sets.
EVAL_FORMAT, EVAL_VERSION = "tonics-eval", 3
FOLDS = 5
FOLD_IMAGES = 1000  # COCO's: 5,000 images are also scored as five folds of 1,000
CHOICES = {way: f"same_object_{way}".replace("same_object_random", "random") for way in WAYS}
RESULTS_SCHEMA = pa.schema(
    [
        ("pair", pa.int64()),
        ("image", pa.int64()),
        ("t2i_rank", pa.int32()),  # images that score at least as high as the caption's own
        ("i2t_rank", pa.int32()),  # of the caption's image: the same for all its captions
        *((name, pa.bool_()) for name in CHOICES.values()),  # null: the caption has no set
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """What vectors are worth.

    Attributes:
        report: percentages and counts; the body of ``eval.json``.
        results: a row a caption (``RESULTS_SCHEMA``), in the order of the query set.
    """

    report: dict[str, Any]
    results: pa.Table


def score(
    queries: Queries,
    image_vectors: np.ndarray,
    text_vectors: np.ndarray,
    sets: pa.Table | None = None,
    *,
    fold_images: int = FOLD_IMAGES,
) -> Scores:
    """Score retrieval in both directions, folds and same-object choices.

    Args:
        image_vectors: (N, d) in the order of ``queries.images``. text_vectors: (M, d) in the order
            of ``queries.pairs``; scored by their dot product.
        sets: columns ``SAME_OBJECT_SCHEMA``, or None.
        fold_images: a set of exactly five times as many images is also scored in folds.

    Raises:
        InputError: shapes do not fit, nothing to retrieve, or a vector is not finite.
    """
    found = ranks(image_vectors, text_vectors, queries.owner)
    report = {
        "images": len(queries.images),
        "captions": len(queries.pairs),
        **_retrieval(summarise(found)),
    }
    if len(queries.images) == FOLDS * fold_images:
        means = fold_recall(image_vectors, text_vectors, queries.owner, fold_images)
        report["folds"] = {"folds": FOLDS, "images": fold_images, **_retrieval(means)}
    choices = choose(queries, image_vectors, text_vectors, sets) if sets is not None else None
    nothing = pa.nulls(len(queries.pairs), pa.bool_())
    columns = {name: nothing for name in CHOICES.values()}
    if choices is not None and sets is not None:
        report["same_object"] = {**choices.report(), "sets": sets_hash(sets)}
        unasked = ~choices.asked
        columns = {n: pa.array(choices.right[w], mask=unasked) for w, n in CHOICES.items()}
    numbers = {
        "pair": queries.pairs,
        "image": queries.images[queries.owner],
        "t2i_rank": found.t2i,
        "i2t_rank": found.i2t[queries.owner],
    }
    return Scores(report=report, results=pa.table({**numbers, **columns}).cast(RESULTS_SCHEMA))


def _retrieval(found: Retrieval) -> dict[str, Any]:
    directions = {"i2t": _rounded(found.i2t), "t2i": _rounded(found.t2i)}
    return {**directions, "rsum": round(found.rsum, 2)}


def _rounded(direction: Direction) -> dict[str, Any]:
    return {key: round(value, 2) for key, value in asdict(direction).items()}
