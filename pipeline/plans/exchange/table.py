"""Batches as a parquet table with a row a pair: for people with no TOnICS installed, and from them.

A table that is written holds the columns of ``SCHEMA``, in training order, ``epoch`` where it is
asked for, and says in its metadata what it is. How others' are read: ``listed``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ....artifact import atomic_file
from ....errors import InputError

SCHEMA = pa.schema(
    [
        ("batch", pa.int64()),
        ("position", pa.int32()),
        ("pair_key", pa.string()),
        ("image_id", pa.string()),
    ]
)
EPOCH = pa.field("epoch", pa.int32())
MEANING = {
    "batch": "number of the global batch; batches are trained on in this order",
    "position": "place in the batch, from 0; rank r of W takes [r*B/W, (r+1)*B/W)",
    "pair_key": "image_id#k: the k-th caption of the image in its source, from 0",
    "image_id": "what the source calls the image",
    "epoch": "epoch of the batch, from 0",
}
ROWS_AT_ONCE = 1 << 20
_DICTIONARY_BYTES = 1 << 26  # no row group's strings come to as much


def batches_table(
    batch: np.ndarray,
    size: int,
    pair_key: pa.Array,
    image_id: pa.Array | None,
    epoch: np.ndarray | None = None,
) -> pa.Table:
    """The rows of some batches.

    Args:
        batch: (n,) numbers. pair_key, image_id: n * size texts. epoch: (n,), where it is wanted.
    """
    columns = {
        "batch": np.repeat(batch, size),
        "position": np.tile(np.arange(size, dtype=np.int32), len(batch)),
        "pair_key": pair_key,
    }
    fields = [SCHEMA.field(name) for name in columns]
    if image_id is not None:
        columns["image_id"], fields = image_id, list(SCHEMA)
    if epoch is not None:
        columns["epoch"], fields = np.repeat(epoch, size), [*fields, EPOCH]
    return pa.table(columns, schema=pa.schema(fields))


def write_batches(path: Path, tables: Iterable[pa.Table], about: Mapping[str, object]) -> int:
    """Write tables of whole batches, a row group each, and return how many rows that were.

    Args:
        about: what the metadata says, each key with ``tonics.`` before it.
    """
    rows, writer = 0, None
    with atomic_file(path) as tmp:
        try:
            for table in tables:
                if writer is None:
                    writer = _open_writer(tmp, table.schema, about)
                writer.write_table(table, row_group_size=table.num_rows)
                rows += table.num_rows
        finally:
            if writer is not None:
                writer.close()
    return rows


def _open_writer(path: Path, schema: pa.Schema, about: Mapping[str, object]) -> pq.ParquetWriter:
    columns = json.dumps({name: MEANING[name] for name in schema.names})
    said = {f"tonics.{key}": str(value) for key, value in {**about, "columns": columns}.items()}
    return pq.ParquetWriter(
        path,
        schema.with_metadata(said),
        compression="zstd",
        dictionary_pagesize_limit=_DICTIONARY_BYTES,
    )


def read_about(path: Path) -> dict[str, str]:
    """What the metadata of a table says (``write_batches``); of somebody else's: nothing.

    Raises:
        InputError: it is no parquet file.
    """
    found = open_table(path).schema_arrow.metadata or {}
    said = {key.decode(): value.decode("utf-8", "replace") for key, value in found.items()}
    return {k.removeprefix("tonics."): v for k, v in said.items() if k.startswith("tonics.")}


def open_table(path: Path) -> pq.ParquetFile:
    """Open a table, to be read.

    Raises:
        InputError: there is none, or it is no parquet file.
    """
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "no such file"
        raise InputError(path, found, expected="a parquet file of batches")
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        expected = "a parquet file of batches, as 'tonics plans export' writes"
        raise InputError(path, f"not a parquet file ({error})", expected=expected) from error
