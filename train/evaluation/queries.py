"""What is asked: captions and their images, in the order everything else refers to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ...artifact import hash_rows
from ...errors import InputError, first_ten

QUERIES_SCHEMA = pa.schema(
    [
        ("pair", pa.int64()),  # number in the dataset
        ("pair_key", pa.string()),
        ("image", pa.int64()),  # number in the dataset; a smaller one came first in the sources
        ("image_id", pa.string()),
        ("caption", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Queries:
    """A query set: M captions of N images.

    Attributes:
        pairs: (M,) pair numbers, in the order of the set's rows.
        images: (N,) image numbers, ascending: the order of the sources.
        owner: (M,) row in ``images`` of each caption's image.
    """

    pairs: np.ndarray
    images: np.ndarray
    owner: np.ndarray

    @classmethod
    def of(cls, table: pa.Table) -> Queries:
        """Read a table with at least the columns ``pair`` and ``image``."""
        images, owner = np.unique(table.column("image").to_numpy(), return_inverse=True)
        return cls(pairs=table.column("pair").to_numpy(), images=images, owner=owner)

    def rows_of(self, pairs: np.ndarray) -> np.ndarray:
        """Find the rows of pairs, -1 for those that are not asked."""
        order = np.argsort(self.pairs, kind="stable")
        at = np.searchsorted(self.pairs, pairs, sorter=order)
        rows = order[np.minimum(at, len(order) - 1)]
        return np.where(self.pairs[rows] == pairs, rows, -1)


def queries_hash(queries: pa.Table) -> str:
    """Hash a query set (columns ``QUERIES_SCHEMA``): what tells its results from another one's."""
    return hash_rows(queries, QUERIES_SCHEMA.names)


def image_rows(queries: pa.Table) -> pa.Table:
    """A row an image: image, image_id, in the order of ``Queries.images``."""
    images = queries.group_by("image", use_threads=False).aggregate([("image_id", "first")])
    return images.sort_by("image").rename_columns(["image", "image_id"])


def aligned(
    what: str, vectors: np.ndarray, wanted: Sequence[str], given: Sequence[str] | None
) -> np.ndarray:
    """Put somebody's vectors in the order of a query set.

    Args:
        what: for messages: the file they came from.
        wanted: the ids of the query set, in its order.
        given: the id of every row, else rows are in that order already; ids that nobody asks for
            are passed over.

    Raises:
        InputError: too few or too many rows, an id twice, or none for an id that is asked for.
    """
    if vectors.ndim != 2:
        raise InputError(what, f"an array of shape {vectors.shape}", expected="(rows, numbers)")
    expected = len(wanted) if given is None else len(given)
    if len(vectors) != expected:
        of = "the query set's rows" if given is None else "ids"
        do = "" if given is not None else "name the rows with --image-ids, --pair-keys"
        raise InputError(what, f"{len(vectors):,} rows", expected=f"{expected:,}, as {of}", do=do)
    if given is None:
        return vectors
    row = {name: number for number, name in enumerate(given)}
    if len(row) != len(given):
        raise InputError(what, f"{len(given) - len(row)} ids come twice")
    if missing := [name for name in wanted if name not in row]:
        raise InputError(what, f"no row for {len(missing):,} ids: {first_ten(missing)}")
    return vectors[[row[name] for name in wanted]]
