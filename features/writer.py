"""Writes a feature store: shards from rows, then the index over all shards of the folder."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..errors import FormatError, InputError
from .detector import Vocabulary
from .index import Index, image_keys_of
from .layout import Layout
from .regions import Regions
from .schema import VOCABULARY_NAME, shard_schema
from .shard import Shard

BATCH_BYTES = 64 << 20
_ROW_BYTES = 64  # the fixed columns and offsets, so that images without regions count too


def write_shard(
    path: Path,
    rows: Iterable[tuple[int, Regions]],
    *,
    dim: int,
    batch_bytes: int = BATCH_BYTES,
    ordered: bool = True,
) -> int:
    """Write one shard; equal rows give equal bytes.

    Args:
        path: where to write, normally the temporary path of ``artifact.atomic_file``.
        rows: (image, regions) in increasing order of image; consumed one batch at a time.
        dim: D, the numbers in one region's feature.
        batch_bytes: a record batch is closed by the row that brings it to this size.
        ordered: refuse rows out of order; without it they may come in any (the index sorts them).

    Returns:
        The number of rows.

    Raises:
        InputError: a row that the format does not allow, or rows out of order.
    """
    schema, written = shard_schema(dim), 0
    layout = Layout.of(schema)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for batch in _batches(_checked(rows, dim, ordered), batch_bytes):
            columns = _record_batch(batch, schema)
            writer.write_batch(columns, custom_metadata=layout.padding(columns, file.tell()))
            written += len(batch)
    return written


def write_index(
    folder: Path, vocabulary: Vocabulary, image_ids: Mapping[int, str] | None = None
) -> None:
    """Write ``vocabulary.json`` and ``index.arrow`` over the folder's ``NNNNN.arrow`` shards.

    Numbers may have gaps and a shard may be empty. The store can be opened from here on.

    Args:
        image_ids: the source's name of each image number, so that a plan of another dataset or
            numbering is noticed; numbers the store does not hold are fine.

    Raises:
        FormatError: no shard, a damaged one, shards that differ in D, an image in two shards, or a
            label that the vocabulary does not have.
    """
    shards = [Shard(path) for path in shard_paths(folder)]
    for shard in shards:
        if shard.dim != shards[0].dim:
            expected = f"{shards[0].dim} as in {shards[0].path.name}"
            raise FormatError(shard.path, f"features have {shard.dim} numbers", expected=expected)
        _check_labels(shard, vocabulary)
    keys = functools.partial(image_keys_of, image_ids=image_ids or {})
    index = Index.of(folder, shards, vocabulary.content_hash(), keys)
    vocabulary.write(folder / VOCABULARY_NAME)
    index.write(folder)


def _checked(
    rows: Iterable[tuple[int, Regions]], dim: int, ordered: bool
) -> Iterator[tuple[int, Regions]]:
    last = -1
    for image, regions in rows:
        if ordered and image <= last:
            raise InputError(
                f"image {image}", f"comes after image {last}", expected="rising numbers"
            )
        regions.check(f"image {image}", dim)
        yield image, regions
        last = image


def _batches(
    rows: Iterable[tuple[int, Regions]], batch_bytes: int
) -> Iterator[list[tuple[int, Regions]]]:
    batch: list[tuple[int, Regions]] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += _ROW_BYTES + row[1].nbytes
        if size >= batch_bytes:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _record_batch(rows: list[tuple[int, Regions]], schema: pa.Schema) -> pa.RecordBatch:
    regions = [r for _, r in rows]
    scalars = {
        "image": [image for image, _ in rows],
        "num_regions": [len(r) for r in regions],
        "width": [r.width for r in regions],
        "height": [r.height for r in regions],
        "xxh3": [r.xxh3() for r in regions],
    }
    arrays = []
    for field in schema:
        if field.name in scalars:
            arrays.append(pa.array(scalars[field.name], field.type))
        else:
            arrays.append(_ragged([getattr(r, field.name) for r in regions], field.type))
    return pa.record_batch(arrays, schema=schema)


def _ragged(parts: list[np.ndarray], kind: pa.LargeListType) -> pa.LargeListArray:
    """Pack one array a row into a list column."""
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    values = pa.array(np.concatenate(parts).reshape(-1))
    if pa.types.is_fixed_size_list(kind.value_type):
        values = pa.FixedSizeListArray.from_arrays(values, type=kind.value_type)
    return pa.LargeListArray.from_arrays(pa.array(offsets), values, type=kind)


def shard_paths(folder: Path) -> list[Path]:
    """List a folder's ``NNNNN.arrow`` shards by number.

    Raises:
        FormatError: there is none.
    """
    names = [p for p in folder.iterdir() if re.fullmatch(r"\d+\.arrow", p.name)]
    if not names:
        raise FormatError(folder, "no NNNNN.arrow shard to index", do="run 'tonics extract'")
    return sorted(names, key=lambda p: (int(p.stem), p.name))


def _check_labels(shard: Shard, vocabulary: Vocabulary) -> None:
    for number in range(shard.num_batches):
        batch = shard.batch(number)
        used = batch.attributes[batch.attribute_scores > 0]  # the others are filler
        for what, numbers, names in (
            ("label", batch.labels, vocabulary.labels),
            ("attribute", used, vocabulary.attributes),
        ):
            if numbers.size and int(numbers.max()) >= len(names):
                found = f"{what} {int(numbers.max())} in batch {number}"
                raise FormatError(
                    shard.path, found, expected=f"one of the vocabulary's {len(names)}"
                )
