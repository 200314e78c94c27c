"""The files of a feature store, declared once for writer and reader.

A store is a folder: ``NNNNN.arrow`` shards, ``index.arrow`` and ``vocabulary.json``. The Arrow
files are uncompressed IPC files, so that a column can be read where it lies in the mapped file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from ..errors import FormatError
from .regions import MAX_ATTRIBUTES

FORMAT = "tonics-features"
VERSION = 1
INDEX_NAME = "index.arrow"
VOCABULARY_NAME = "vocabulary.json"


def shard_schema(dim: int) -> pa.Schema:
    """Declare the columns of a shard whose features have ``dim`` numbers; one row an image."""

    def per_region(item: pa.DataType, size: int = 0) -> pa.DataType:
        return pa.large_list(pa.list_(item, size) if size else item)

    columns = {
        "image": pa.int64(),
        "num_regions": pa.int16(),
        "width": pa.int32(),  # of the stored image in pixels, before any EXIF rotation
        "height": pa.int32(),
        "features": per_region(pa.float16(), dim),
        "boxes": per_region(pa.float32(), 4),  # x1 y1 x2 y2, pixels of the stored image
        "labels": per_region(pa.uint16()),  # positions in vocabulary.json
        "scores": per_region(pa.float32()),
        "attributes": per_region(pa.uint16(), MAX_ATTRIBUTES),  # empty lists: a detector without
        "attribute_scores": per_region(pa.float16(), MAX_ATTRIBUTES),
        "xxh3": pa.binary(16),  # Regions.xxh3 of the row
    }
    return _schema(columns, {"format": FORMAT, "version": str(VERSION)})


def index_schema(
    *,
    files: Sequence[tuple[str, int]],
    dim: int,
    content_hash: str,
    vocabulary_hash: str,
    keys_hash: str,
) -> pa.Schema:
    """Declare the index of a store whose shards are ``files`` (name, size in bytes)."""
    facts: dict[str | bytes, str | bytes] = {
        "dim": str(dim),
        "content_hash": content_hash,
        "vocabulary_hash": vocabulary_hash,
        "keys_hash": keys_hash,
        "files": json.dumps(files),
    }
    return INDEX_SCHEMA.with_metadata(INDEX_SCHEMA.metadata | facts)


def check_version(path: Path, schema: pa.Schema) -> None:
    """Refuse a file of another format or version.

    Raises:
        FormatError: the message says whether the file or this tonics is the older one.
    """
    metadata = schema.metadata or {}
    version = metadata.get(b"version", b"").decode()
    if metadata.get(b"format") != FORMAT.encode() or not version.isdigit():
        raise FormatError(path, "not a file of a tonics feature store", do="run 'tonics run'")
    if int(version) > VERSION:
        do = "upgrade tonics, or rebuild the store with 'tonics run --rebuild extract'"
        raise FormatError(
            path,
            f"format version {version} is newer than this tonics",
            expected=str(VERSION),
            do=do,
        )
    if int(version) < VERSION:
        do = "rebuild the store with 'tonics run --rebuild extract'"
        raise FormatError(
            path, f"format version {version} is too old", expected=str(VERSION), do=do
        )


def _schema(columns: dict[str, pa.DataType], metadata: dict[str, str]) -> pa.Schema:
    return pa.schema(
        [pa.field(n, t, nullable=False) for n, t in columns.items()], metadata=metadata
    )


# One row an image, sorted by image, in a single record batch: every column is a numpy view.
INDEX_SCHEMA = _schema(
    {
        "image": pa.int64(),
        "file": pa.int32(),  # position in the metadata's list of files
        "batch": pa.int32(),  # record batch within the file
        "row": pa.int32(),  # row within the record batch
        "first_region": pa.int64(),  # within the record batch
        "num_regions": pa.int32(),
        "width": pa.int32(),
        "height": pa.int32(),
        "image_key": pa.uint64(),  # xxh3-64 of the source's image_id; 0 where it is not known
    },
    {"format": FORMAT, "version": str(VERSION)},
)
