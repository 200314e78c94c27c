"""The index of a feature store: where in which shard every image lies, as numpy columns."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from ..artifact import atomic_file
from ..errors import FormatError, InputError
from .schema import INDEX_NAME, INDEX_SCHEMA, check_version, index_schema
from .shard import Shard, ShardBatch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Index:
    """Columns of N images, sorted by image, and the facts about the store as a whole.

    Attributes:
        image: (N,) int64, rising.
        file: (N,) int32, position in ``files``.
        batch: (N,) int32, record batch within the file.
        row: (N,) int32, row within the record batch.
        first_region: (N,) int64, within the record batch.
        num_regions: (N,) int32.
        width, height: (N,) int32, pixels of the stored image.
        files: (name, size in bytes) of every shard.
        dim: D, the numbers in one region's feature.
        content_hash: of the rows, however they are cut into shards.
        vocabulary_hash: of vocabulary.json's content.
    """

    image: np.ndarray
    file: np.ndarray
    batch: np.ndarray
    row: np.ndarray
    first_region: np.ndarray
    num_regions: np.ndarray
    width: np.ndarray
    height: np.ndarray
    files: tuple[tuple[str, int], ...]
    dim: int
    content_hash: str
    vocabulary_hash: str

    @classmethod
    def of(cls, folder: Path, shards: list[Shard], vocabulary_hash: str) -> Index:
        """Index shards of one folder.

        Raises:
            FormatError: a batch is damaged, or an image is in two places.
        """
        columns = _collect(shards)
        _check_unique(folder, [shard.path.name for shard in shards], columns)
        size = (columns["image"], columns["width"], columns["height"])
        return cls(
            content_hash=content_hash(*size, columns.pop("xxh3")),
            vocabulary_hash=vocabulary_hash,
            files=tuple((shard.path.name, shard.path.stat().st_size) for shard in shards),
            dim=shards[0].dim,
            **columns,
        )

    def write(self, folder: Path) -> None:
        """Write ``index.arrow``, atomically."""
        names = ("files", "dim", "content_hash", "vocabulary_hash")
        schema = index_schema(**{name: getattr(self, name) for name in names})
        arrays = [pa.array(getattr(self, field.name), field.type) for field in schema]
        with (
            atomic_file(folder / INDEX_NAME) as tmp,
            pa.ipc.new_file(str(tmp), schema) as writer,
        ):
            writer.write_batch(pa.record_batch(arrays, schema=schema))

    @classmethod
    def read(cls, folder: Path) -> Index:
        """Map ``index.arrow``.

        Raises:
            InputError: there is none.
            FormatError: it is damaged or of another version.
        """
        path = folder / INDEX_NAME
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            check_version(path, reader.schema)
            if not reader.schema.equals(INDEX_SCHEMA) or reader.num_record_batches != 1:
                raise FormatError(path, "other columns than an index has", do="run 'tonics run'")
            return cls._of_batch(reader.get_batch(0), reader.schema.metadata)
        except FileNotFoundError as error:
            expected = "a folder with index.arrow and its shards"
            do = "run 'tonics extract', or 'tonics features import'"
            raise InputError(folder, "no feature store", expected=expected, do=do) from error
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise FormatError(path, f"damaged ({error})", do="run 'tonics run'") from error

    @classmethod
    def _of_batch(cls, record_batch: pa.RecordBatch, metadata: dict[bytes, bytes]) -> Index:
        record_batch.validate()
        columns = {name: record_batch.column(name) for name in INDEX_SCHEMA.names}
        return cls(
            files=tuple((str(name), int(size)) for name, size in json.loads(metadata[b"files"])),
            dim=int(metadata[b"dim"]),
            content_hash=metadata[b"content_hash"].decode(),
            vocabulary_hash=metadata[b"vocabulary_hash"].decode(),
            **{name: column.to_numpy(zero_copy_only=True) for name, column in columns.items()},
        )

    def rows(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find images: (B,) int64 places in the columns, and (B,) bool whether they are there."""
        rows = np.searchsorted(self.image, images)
        if not len(self.image):
            return rows, np.zeros(len(images), bool)
        rows = np.minimum(rows, len(self.image) - 1)
        return rows, self.image[rows] == images

    def agrees(self, file: int, number: int, batch: ShardBatch) -> bool:
        """Tell whether a record batch holds what is said of it here."""
        rows, there = self.rows(batch.images)
        if not there.all():
            return False
        columns = batch_columns(batch, file, number)
        names = (name for name in INDEX_SCHEMA.names if name != "image")
        return all(np.array_equal(getattr(self, name)[rows], columns[name]) for name in names)


def content_hash(
    images: np.ndarray, widths: np.ndarray, heights: np.ndarray, hashes: np.ndarray
) -> str:
    """Hash a store's content: images (N,) int64 rising, sizes (N,) int32, xxh3 (N, 16) uint8."""
    state = xxhash.xxh3_128()
    for array, dtype in ((images, "<i8"), (widths, "<i4"), (heights, "<i4"), (hashes, "u1")):
        state.update(array.astype(dtype).tobytes())
    return state.hexdigest()


def batch_columns(batch: ShardBatch, file: int, number: int) -> dict[str, np.ndarray]:
    """Say of every row of a record batch what the index says."""
    return {
        "image": batch.images,
        "file": np.full(len(batch), file, np.int32),
        "batch": np.full(len(batch), number, np.int32),
        "row": np.arange(len(batch), dtype=np.int32),
        "first_region": batch.offsets[:-1],
        "num_regions": np.diff(batch.offsets).astype(np.int32),
        "width": batch.widths,
        "height": batch.heights,
    }


def _collect(shards: list[Shard]) -> dict[str, np.ndarray]:
    """Concatenate the index's columns, and the rows' hashes as ``xxh3``, sorted by image."""
    types = {field.name: field.type.to_pandas_dtype() for field in INDEX_SCHEMA}
    parts = {name: [np.zeros(0, dtype)] for name, dtype in types.items()}
    parts["xxh3"] = [np.zeros((0, 16), np.uint8)]
    for file, shard in enumerate(shards):
        for number in range(shard.num_batches):
            batch = shard.batch(number)
            columns = batch_columns(batch, file, number) | {"xxh3": batch.hashes}
            for name, column in columns.items():
                parts[name].append(column)
    columns = {name: np.concatenate(part) for name, part in parts.items()}
    order = np.argsort(columns["image"], kind="stable")
    return {name: column[order] for name, column in columns.items()}


def _check_unique(folder: Path, names: list[str], columns: dict[str, np.ndarray]) -> None:
    twice = np.flatnonzero(columns["image"][1:] == columns["image"][:-1])
    if len(twice):
        at = int(twice[0])
        one, other = (names[file] for file in columns["file"][at : at + 2])
        found = f"image {int(columns['image'][at])} is in {one} and again in {other}"
        raise FormatError(folder, found, expected="every image once")
