"""Can a model tell images of one kind of object apart, and not just one kind from another?

Every caption is put to its own image and to others that show its main object, and the image to
captions that name it; a twin of the same size is drawn from all images, so that what is hard about
the choice, and not the number of candidates, shows. The sets are made once a dataset
(``evaluation/SPLIT.same-object.parquet``); a choice is right when the true candidate scores higher
than every other one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...artifact import hash_rows, hash_strings
from ...errors import InputError
from .queries import Queries
from .retrieval import slices

SAME_OBJECT_SCHEMA = pa.schema(
    [
        ("pair", pa.int64()),  # the caption that is asked, and with it its image
        ("object", pa.string()),  # synset of the caption's main object
        ("pairs", pa.list_(pa.int64())),  # captions that name it, one each of other images
        ("random_pairs", pa.list_(pa.int64())),  # captions of other images, whatever they show
    ]
)
WAYS = ("t2i", "i2t", "random_t2i", "random_i2t")
_ROWS = 1024  # candidates scored at once


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choices:
    """How the choices went, by caption of the query set.

    Attributes:
        asked: (M,) bool: the caption has a set with at least one other candidate.
        right: by way (``WAYS``), (M,) bool; False where it was not asked.
        candidates: mean number of candidates, the true one included.
    """

    asked: np.ndarray
    right: dict[str, np.ndarray]
    candidates: float

    def report(self) -> dict[str, float]:
        """Accuracies in percent, the queries, and what guessing would give."""
        found = {way: round(100 * float(self.right[way][self.asked].mean()), 2) for way in WAYS}
        chance = round(100 / self.candidates, 2)
        return {"queries": int(self.asked.sum()), **found, "chance": chance}


def choose(
    queries: Queries, image_vectors: np.ndarray, text_vectors: np.ndarray, sets: pa.Table
) -> Choices | None:
    """Let vectors choose among the candidates of every caption; None when there is no choice.

    Candidates that the query set lacks (images without features) are left out, in both the sets of
    an object and their random twins.

    Args:
        image_vectors: (N, d). text_vectors: (M, d). sets: columns ``SAME_OBJECT_SCHEMA``.
    """
    if sets.schema.names != SAME_OBJECT_SCHEMA.names:
        found, expected = str(sets.schema.names), str(SAME_OBJECT_SCHEMA.names)
        raise InputError("same-object sets", f"columns {found}", expected=expected)
    rows = queries.rows_of(sets.column("pair").to_numpy())
    vectors = (image_vectors, text_vectors)
    others = [_others(queries, rows, sets.column(name)) for name in ("pairs", "random_pairs")]
    asked = np.zeros(len(queries.pairs), bool)
    both = np.isin(rows, others[0][0]) & np.isin(rows, others[1][0]) & (rows >= 0)
    asked[rows[both]] = True
    if not asked.any():
        return None
    right: dict[str, np.ndarray] = {}
    for prefix, (asks, candidates) in zip(("", "random_"), others, strict=True):
        t2i, i2t = _beaten(queries, *vectors, asks, candidates)
        right |= {f"{prefix}t2i": asked & t2i, f"{prefix}i2t": asked & i2t}
    mean = float(np.isin(others[0][0], np.flatnonzero(asked)).sum() / asked.sum()) + 1
    return Choices(asked=asked, right=right, candidates=mean)


def sets_hash(sets: pa.Table) -> str:
    """Hash who stands beside whom: choices among other candidates cannot be compared."""
    lists = [sets.column(name) for name in ("pairs", "random_pairs")]
    parts = [pa.table({"n": pc.list_value_length(c)}) for c in lists]
    parts += [pa.table({"n": pc.list_flatten(c)}) for c in lists]
    return hash_strings([hash_rows(sets, ["pair"]), *(hash_rows(part, ["n"]) for part in parts)])


def _others(
    queries: Queries, rows: np.ndarray, lists: pa.ChunkedArray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of captions that are asked, and of a candidate of each; both (candidates,)."""
    lists = lists.combine_chunks()
    asks = np.repeat(rows, np.diff(lists.offsets.to_numpy()))
    candidates = queries.rows_of(lists.flatten().to_numpy())
    known = (asks >= 0) & (candidates >= 0)
    return asks[known], candidates[known]


def _beaten(
    queries: Queries,
    image_vectors: np.ndarray,
    text_vectors: np.ndarray,
    asks: np.ndarray,
    candidates: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each caption's own image, and its image's own caption, beat all others: (M,) bool.

    A tie is a loss. Scores are float32, accumulated in float64.
    """
    t2i, i2t = np.ones((2, len(queries.pairs)), bool)
    for part in slices(len(asks), _ROWS):
        asked, other = asks[part], candidates[part]
        text, image = text_vectors[asked], image_vectors[queries.owner[asked]]
        right = _scores(image, text)
        lost = _scores(image_vectors[queries.owner[other]], text) >= right
        t2i[asked[lost]] = False
        lost = _scores(image, text_vectors[other]) >= right
        i2t[asked[lost]] = False
    return t2i, i2t


def _scores(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    wide = (np.asarray(v, np.float32).astype(np.float64) for v in (images, texts))
    return np.einsum("nd,nd->n", *wide).astype(np.float32)
