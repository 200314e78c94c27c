"""The index of a feature store: where in which shard every image lies, as numpy columns."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from .. import __version__
from ..artifact import atomic_file, hash_bytes
from ..errors import FormatError, InputError
from .schema import INDEX_NAME, INDEX_SCHEMA, INDEX_VERSION, REBUILD, check_version, index_schema
from .shard import Shard, ShardBatch, open_file


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
        image_key: (N,) uint64, ``image_key`` of the source's image_id, 0 where it is not known.
        files: (name, size in bytes) of every shard.
        dim: D, the numbers in one region's feature.
        content_hash: of the rows, however they are cut into shards; keys do not count.
        vocabulary_hash: of vocabulary.json's content.
        keys_hash: of ``image_key``.
    """

    image: np.ndarray
    file: np.ndarray
    batch: np.ndarray
    row: np.ndarray
    first_region: np.ndarray
    num_regions: np.ndarray
    width: np.ndarray
    height: np.ndarray
    image_key: np.ndarray
    files: tuple[tuple[str, int], ...]
    dim: int
    content_hash: str
    vocabulary_hash: str
    keys_hash: str

    @classmethod
    def of(
        cls,
        folder: Path,
        shards: list[Shard],
        vocabulary_hash: str,
        keys: Callable[[np.ndarray], np.ndarray],
    ) -> Index:
        """Index shards of one folder.

        Args:
            keys: gives (N,) image numbers their ``image_key`` column.

        Raises:
            FormatError: a batch is damaged, or an image is in two places.
        """
        columns = _collect(shards)
        _check_unique(folder, [shard.path.name for shard in shards], columns)
        size = (columns["image"], columns["width"], columns["height"])
        image_key = keys(columns["image"])
        return cls(
            image_key=image_key,
            keys_hash=hash_keys(image_key),
            content_hash=content_hash(*size, columns.pop("xxh3")),
            vocabulary_hash=vocabulary_hash,
            files=tuple((shard.path.name, shard.path.stat().st_size) for shard in shards),
            dim=shards[0].dim,
            **columns,
        )

    def write(self, folder: Path) -> None:
        """Write ``index.arrow``, atomically."""
        facts = {
            "tonics": __version__,
            "dim": str(self.dim),
            "content_hash": self.content_hash,
            "vocabulary_hash": self.vocabulary_hash,
            "keys_hash": self.keys_hash,
            "files": json.dumps(self.files),
        }
        columns = {field.name: getattr(self, field.name) for field in INDEX_SCHEMA}
        schema = index_schema(facts)
        schema = index_schema(facts | {"xxh3": _own_hash(schema.metadata, columns)})
        arrays = [pa.array(columns[field.name], field.type) for field in schema]
        with (
            atomic_file(folder / INDEX_NAME) as tmp,
            pa.ipc.new_file(str(tmp), schema) as writer,
        ):
            writer.write_batch(pa.record_batch(arrays, schema=schema))

    @classmethod
    def read(cls, folder: Path) -> Index:
        """Map ``index.arrow``, and check it against its own hash.

        Columns that this release does not know are ignored.

        Raises:
            InputError: there is none.
            FormatError: it is damaged or of another version.
        """
        path = folder / INDEX_NAME
        with reading_index(folder):
            reader = open_file(path)
            check_version(path, reader.schema, INDEX_VERSION)
            _check_columns(path, reader.schema)
            columns = index_columns(reader)
            metadata = reader.schema.metadata
            if metadata[b"xxh3"].decode() != _own_hash(metadata, columns):
                raise FormatError(path, "was altered", do=REBUILD)
            return cls(
                files=files_of(metadata),
                dim=int(metadata[b"dim"]),
                content_hash=metadata[b"content_hash"].decode(),
                vocabulary_hash=metadata[b"vocabulary_hash"].decode(),
                keys_hash=metadata[b"keys_hash"].decode(),
                **columns,
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
        return all(np.array_equal(getattr(self, name)[rows], columns[name]) for name in columns)


@contextlib.contextmanager
def reading_index(folder: Path) -> Iterator[None]:
    """Turn what goes wrong while an index is read into errors that say what to do."""
    path = folder / INDEX_NAME
    try:
        yield
    except FileNotFoundError as error:
        expected = "a folder with index.arrow and its shards"
        do = "run 'tonics extract'"
        raise InputError(folder, "no feature store", expected=expected, do=do) from error
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise FormatError(path, f"damaged ({error})", do=REBUILD) from error


def index_columns(reader: pa.ipc.RecordBatchFileReader) -> dict[str, np.ndarray]:
    """View the columns of an index that this release knows."""
    if reader.num_record_batches != 1:
        raise ValueError(f"{reader.num_record_batches} record batches")
    batch = reader.get_batch(0)
    batch.validate()
    names = [name for name in INDEX_SCHEMA.names if name in batch.schema.names]
    return {name: batch.column(name).to_numpy(zero_copy_only=True) for name in names}


def files_of(metadata: Mapping[bytes, bytes]) -> tuple[tuple[str, int], ...]:
    """Read the list of shards: (name, size in bytes)."""
    return tuple((str(name), int(size)) for name, size in json.loads(metadata[b"files"]))


def _own_hash(metadata: Mapping[bytes, bytes], columns: Mapping[str, np.ndarray]) -> str:
    """Hash an index: everything it says of the store, and its columns of this version."""
    state = xxhash.xxh3_128()
    facts = sorted((key, value) for key, value in metadata.items() if key != b"xxh3")
    parts: list[bytes | memoryview] = [part for fact in facts for part in fact]
    parts += [
        np.ascontiguousarray(columns[name]).view(np.uint8).data for name in INDEX_SCHEMA.names
    ]
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.hexdigest()


def image_key(image_id: str) -> int:
    """The 64-bit hash by which a store and a plan recognise the source's name of an image.

    >>> image_key("a.jpg") == image_key("b.jpg")
    False
    """
    return xxhash.xxh3_64_intdigest(image_id.encode("utf-8", "surrogatepass"))


def image_keys_of(images: np.ndarray, image_ids: Mapping[int, str]) -> np.ndarray:
    """Key every image: (N,) uint64, 0 for those without a name."""
    names = (image_ids.get(image) for image in images.tolist())
    keys = (0 if name is None else image_key(name) for name in names)
    return np.fromiter(keys, np.uint64, len(images))


def hash_keys(keys: np.ndarray) -> str:
    """Hash the images' keys, (N,) uint64."""
    return hash_bytes(keys.astype("<u8").tobytes())


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
    fields = (field for field in INDEX_SCHEMA if field.name != "image_key")
    types = {field.name: field.type.to_pandas_dtype() for field in fields}
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


def _check_columns(path: Path, schema: pa.Schema) -> None:
    for field in INDEX_SCHEMA:
        there = [f.type for f in schema if f.name == field.name]
        if there != [field.type]:
            found = f"column {field.name!r} is {', '.join(map(str, there)) or 'missing'}"
            raise FormatError(path, found, expected=str(field.type), do=REBUILD)


def _check_unique(folder: Path, names: list[str], columns: dict[str, np.ndarray]) -> None:
    twice = np.flatnonzero(columns["image"][1:] == columns["image"][:-1])
    if len(twice):
        at = int(twice[0])
        one, other = (names[file] for file in columns["file"][at : at + 2])
        found = f"image {int(columns['image'][at])} is in {one} and again in {other}"
        raise FormatError(folder, found, expected="every image once")
