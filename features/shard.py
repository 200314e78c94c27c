"""One shard file, mapped: numpy views on its record batches, nothing copied."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..errors import FormatError, TonicsError
from .readahead import read_at_random
from .regions import Regions
from .schema import REBUILD, REMAKE, SHARD_VERSION, check_version, shard_schema


def open_file(path: Path, *, at_random: bool = False) -> pa.ipc.RecordBatchFileReader:
    """Map an Arrow file.

    The map outlives its file descriptor: a store of a thousand shards holds none open.

    Args:
        at_random: whoever reads asks for the bytes beforehand, so that the kernel need not guess.
    """
    with pa.memory_map(str(path)) as file:
        whole = file.read_buffer()
    if at_random:
        read_at_random(whole.address, whole.size)
    return pa.ipc.open_file(pa.BufferReader(whole))


class Shard:
    """A memory-mapped shard.

    Args:
        at_random: see ``open_file``.

    Raises:
        FormatError: the file is missing, damaged, of another version, or has other columns.
    """

    def __init__(self, path: Path, *, at_random: bool = False) -> None:
        self.path = path
        try:
            self._reader = open_file(path, at_random=at_random)
            check_version(path, self._reader.schema, SHARD_VERSION)
            self.dim = self._check_columns()
        except FileNotFoundError as error:
            raise FormatError(path, "is missing", do=REMAKE) from error
        except (pa.ArrowException, OSError, ValueError) as error:
            raise FormatError(path, f"damaged ({error})", do=REBUILD) from error
        self.num_batches: int = self._reader.num_record_batches

    def batch(self, number: int) -> ShardBatch:
        """Map one record batch.

        Raises:
            FormatError: its bytes are not a record batch of this schema.
        """
        try:
            record_batch = self._reader.get_batch(number)
            record_batch.validate()
            return ShardBatch.of(record_batch)
        except (pa.ArrowException, OSError, ValueError) as error:
            found = f"batch {number} is damaged ({error})"
            raise FormatError(self.path, found, do=REBUILD) from error

    def verify(self) -> list[str]:
        """Compare every row with its hash.

        Returns:
            One line for each damage, naming shard, batch and image; empty when all is well.
        """
        problems = []
        for number in range(self.num_batches):
            try:
                batch = self.batch(number)
                altered = (batch.digests() != batch.hashes).any(axis=1)
                problems += [
                    f"{self.path}: batch {number}: image {image} was altered"
                    for image in batch.images[altered].tolist()
                ]
            except FormatError as error:
                problems.append(without_advice(error))
        return problems

    def _check_columns(self) -> int:
        """Compare the columns with the format's; return D."""
        schema = self._reader.schema
        try:
            dim: int = schema.field("features").type.value_type.list_size
        except (KeyError, AttributeError) as error:
            found = "column 'features' is not a list of fixed-size vectors"
            raise FormatError(self.path, found, do=REBUILD) from error
        for field in shard_schema(dim):
            found_field = schema.field(field.name) if field.name in schema.names else None
            if found_field is None or found_field.type != field.type:
                found = "is missing" if found_field is None else f"is {found_field.type}"
                found = f"column {field.name!r} {found}"
                raise FormatError(self.path, found, expected=str(field.type), do=REBUILD)
        return dim


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShardBatch:
    """Read-only numpy views on one record batch of R rows; they keep the file mapped.

    Attributes:
        images: (R,) int64.
        widths, heights: (R,) int32.
        hashes: (R, 16) uint8, what was written as each row's xxh3.
        offsets: (R + 1,) int64, row r owns regions ``offsets[r]:offsets[r + 1]``.
        features, boxes, labels, scores: one row a region, dtypes as in ``Regions``.
        attribute_offsets: (R + 1,) int64, the same for attributes; a row may have none.
        attributes, attribute_scores: one row a region that has attributes.
    """

    images: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    hashes: np.ndarray
    offsets: np.ndarray
    features: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    attribute_offsets: np.ndarray
    attributes: np.ndarray
    attribute_scores: np.ndarray

    @classmethod
    def of(cls, record_batch: pa.RecordBatch) -> ShardBatch:
        """View a record batch.

        Raises:
            ValueError: its list columns do not agree on how many regions a row has.
        """
        flat = {name: _numbers(record_batch.column(name)) for name in ("image", "width", "height")}
        ragged = {name: _ragged(record_batch.column(name)) for name in _RAGGED}
        offsets = _shared_offsets({name: ragged[name][0] for name in _RAGGED[:4]})
        counts = _numbers(record_batch.column("num_regions"))
        if not np.array_equal(np.diff(offsets), counts):
            raise ValueError("num_regions differs from the lists")
        return cls(
            images=flat["image"],
            widths=flat["width"],
            heights=flat["height"],
            hashes=_digests(record_batch.column("xxh3")),
            offsets=offsets,
            attribute_offsets=_shared_offsets({name: ragged[name][0] for name in _RAGGED[4:]}),
            **{name: values for name, (_, values) in ragged.items()},
        )

    def __len__(self) -> int:
        return len(self.images)

    def digests(self) -> np.ndarray:
        """Hash every row as it is now, (R, 16) uint8."""
        found = b"".join(self.regions(row).xxh3() for row in range(len(self)))
        return np.frombuffer(found, np.uint8).reshape(-1, 16)

    def regions(self, row: int) -> Regions:
        """View one image."""
        part = slice(self.offsets[row], self.offsets[row + 1])
        attribute_part = slice(self.attribute_offsets[row], self.attribute_offsets[row + 1])
        return Regions(
            features=self.features[part],
            boxes=self.boxes[part],
            labels=self.labels[part],
            scores=self.scores[part],
            attributes=self.attributes[attribute_part],
            attribute_scores=self.attribute_scores[attribute_part],
            width=int(self.widths[row]),
            height=int(self.heights[row]),
        )


def without_advice(error: TonicsError) -> str:
    """What is wrong: in a list of damages, the advice belongs at its end, once."""
    return f"{error.where}: {error.found}"


_RAGGED = ("features", "boxes", "labels", "scores", "attributes", "attribute_scores")


def _numbers(column: pa.Array) -> np.ndarray:
    values: np.ndarray = column.to_numpy(zero_copy_only=True)
    return values


def _ragged(column: pa.LargeListArray) -> tuple[np.ndarray, np.ndarray]:
    """View a list column as (offsets, values); vectors become the rows of a matrix."""
    offsets, items = _numbers(column.offsets), column.values
    if not pa.types.is_fixed_size_list(items.type):
        return offsets, _numbers(items)
    size = items.type.list_size
    flat = _numbers(items.values)  # of the whole buffer: a slice keeps its offset
    return offsets, flat.reshape(-1, size)[items.offset : items.offset + len(items)]


def _digests(column: pa.FixedSizeBinaryArray) -> np.ndarray:
    """View a column of 16-byte values as (R, 16) uint8."""
    flat = np.frombuffer(column.buffers()[1], np.uint8)
    return flat[column.offset * 16 : (column.offset + len(column)) * 16].reshape(-1, 16)


def _shared_offsets(offsets: dict[str, np.ndarray]) -> np.ndarray:
    (first_name, first), *others = offsets.items()
    for name, other in others:
        if not np.array_equal(first, other):
            raise ValueError(f"the lists of {first_name!r} and {name!r} differ in length")
    return first
