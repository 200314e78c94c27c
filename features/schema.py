"""The files of a feature store, declared once for writer and reader.

A store is a folder: ``NNNNN.arrow`` shards, ``index.arrow`` and ``vocabulary.json``. The Arrow
files are uncompressed IPC files, so that a column can be read where it lies in the mapped file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from ..errors import FormatError
from .regions import MAX_ATTRIBUTES

FORMAT = "tonics-features"
SHARD_VERSION = 1
# The store's version: it rises with the shards' as well, so that a store is old as long as any file
# of it is (migrate.py brings the index up to date last).
INDEX_VERSION = 2
INDEX_NAME = "index.arrow"
VOCABULARY_NAME = "vocabulary.json"
# What to do: a file that is gone or cut short is noticed by any run; one that was altered has to be
# found first.
REMAKE = "'tonics run' makes it anew"
REBUILD = "'tonics verify', then 'tonics run', makes just the damaged part anew"


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
    return _schema(columns, {"format": FORMAT, "version": str(SHARD_VERSION)})


def index_schema(facts: Mapping[str, str]) -> pa.Schema:
    """Declare an index with what it says of the store as a whole."""
    encoded = {key.encode(): value.encode() for key, value in facts.items()}
    return INDEX_SCHEMA.with_metadata({**INDEX_SCHEMA.metadata, **encoded})


def check_version(path: Path, schema: pa.Schema, version: int) -> None:
    """Refuse a file of another format or version.

    Raises:
        FormatError: the message says which tonics to install, or how to migrate.
    """
    metadata = schema.metadata or {}
    found = version_of(schema)
    if found is None:
        raise FormatError(path, "not a file of a tonics feature store", do=REBUILD)
    if found > version:
        writer = plain_version(metadata.get(b"tonics", b"").decode(errors="replace"))
        by = f" (written by tonics {writer})" if writer else ""
        do = f"pip install 'tonics>={writer}'" if writer else "install a newer tonics"
        text = f"format version {found}{by} is newer than this tonics reads"
        raise FormatError(path, text, expected=str(version), do=do)
    if found < version:
        do = f"tonics.features.migrate.migrate_store({str(path.parent)!r}) migrates it in place"
        if path.parent.parent.name == "features":  # as in a dataset, whose manifests know of it
            do = f"run 'tonics features migrate {path.parent.name}'"
        raise FormatError(
            path, f"format version {found} is an older one", expected=str(version), do=do
        )


def version_of(schema: pa.Schema) -> int | None:
    """Read the format version of a store's file; None when it is another format's."""
    metadata = schema.metadata or {}
    version = metadata.get(b"version", b"").decode(errors="replace")
    ours = metadata.get(b"format") == FORMAT.encode() and version.isascii() and version.isdigit()
    return int(version) if ours else None


def plain_version(text: str) -> str:
    """Let a version number through, and nothing else: it goes into a command to paste.

    >>> plain_version("0.2.0rc1"), plain_version("1; rm -rf")
    ('0.2.0rc1', '')
    """
    return text if re.fullmatch(r"[0-9]+(\.[0-9a-z]+)*", text) else ""


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
    {"format": FORMAT, "version": str(INDEX_VERSION)},
)
