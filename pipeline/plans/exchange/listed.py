"""Batches as a table of somebody else's lists them: read, checked for form, put into order.

Needed are the columns ``batch`` and ``pair_key``; ``position``, ``image_id`` and ``epoch`` may be
there. Whether a plan may consist of such batches says ``imported``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ....artifact import hash_bytes, hash_json, hash_rows
from ....errors import InputError, first_ten
from . import table
from .table import EPOCH, SCHEMA, batches_table, open_table

_TEXTS, _NEEDED = ("pair_key", "image_id"), ("batch", "pair_key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """Batches as a table lists them, in training order.

    Attributes:
        batch: (n,) int64 what the table calls each. epoch: (n,) int32, from 0 without gaps, or
            None where there is no such column.
        keys: the different pair_keys, in order of first appearance. image_id: that of each key, or
            None where there is no such column.
        key: (n, B) int32 index into ``keys``.
    """

    batch: np.ndarray
    epoch: np.ndarray | None
    keys: pa.Array
    image_id: pa.Array | None
    key: np.ndarray

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def size(self) -> int:
        """Pairs in a batch."""
        return int(self.key.shape[1])

    @property
    def epochs(self) -> int:
        """How many epochs there are; 1 where the table says nothing."""
        return 1 if self.epoch is None else int(self.epoch[-1]) + 1

    def tables(self) -> Iterable[pa.Table]:
        """The same as tables of whole batches, to be written."""
        per_table = max(1, table.ROWS_AT_ONCE // self.size)
        for start in range(0, len(self), per_table):
            some = slice(start, start + per_table)
            index = pa.array(self.key[some].reshape(-1))
            epoch = None if self.epoch is None else self.epoch[some]
            image_id = None if self.image_id is None else self.image_id.take(index)
            yield batches_table(self.batch[some], self.size, self.keys.take(index), image_id, epoch)

    def content_hash(self) -> str:
        """Hash what is listed, whatever file it lies in."""
        epoch = np.zeros(0) if self.epoch is None else self.epoch
        columns = [(self.batch, "<i8"), (epoch, "<i4"), (self.key, "<i4")]
        parts = [hash_bytes(np.ascontiguousarray(c, kind).data.cast("B")) for c, kind in columns]
        texts = {"keys": self.keys}
        if self.image_id is not None:
            texts["image_id"] = self.image_id
        return hash_json([list(self.key.shape), *parts, hash_rows(pa.table(texts), list(texts))])


def read_batches(path: Path) -> Listed:
    """Read a table of batches.

    Batches come in ascending order of (``epoch``,) ``batch``, pairs in that of ``position`` or,
    without that column, of the file. Other columns are ignored.

    Raises:
        InputError: it is no such table, or its batches are not all of one size of two or more.
    """
    columns = _Columns.read(path)
    numbers = [columns.numbers[n] for n in ("epoch", "batch", "position") if n in columns.numbers]
    if not _in_order(numbers):
        columns = columns.take(np.lexsort(numbers[::-1]))
    if "position" in columns.numbers:
        _check_positions(path, columns.numbers)
    named = [columns.numbers[n] for n in ("epoch", "batch") if n in columns.numbers]
    starts = np.flatnonzero(np.concatenate([[True], ~_ties(named)]))
    size = _common_size(path, columns.numbers["batch"][starts], starts, len(named[0]))
    first, key = _by_appearance(columns.texts["pair_key"])
    image_id = _image_id_of_keys(path, columns) if "image_id" in columns.texts else None
    epoch = None
    if "epoch" in columns.numbers:
        _, dense = np.unique(columns.numbers["epoch"][starts], return_inverse=True)
        epoch = dense.astype(np.int32)
    return Listed(
        batch=columns.numbers["batch"][starts],
        epoch=epoch,
        keys=columns.values["pair_key"].take(pa.array(first)),
        image_id=None if image_id is None else image_id.take(pa.array(first)),
        key=key.reshape(-1, size),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """A table as arrays: numbers int64, texts as int32 indices into their different values."""

    numbers: dict[str, np.ndarray]
    texts: dict[str, np.ndarray]
    values: dict[str, pa.Array]

    @classmethod
    def read(cls, path: Path) -> _Columns:
        """Read a file some rows at a time; texts are never all in memory."""
        file = open_table(path)
        names = _checked_names(path, file.schema_arrow)
        numbers: dict[str, list[np.ndarray]] = {n: [] for n in names if n not in _TEXTS}
        texts = {n: _Texts() for n in names if n in _TEXTS}
        at = 0
        try:
            for rows in file.iter_batches(4 * table.ROWS_AT_ONCE, columns=names):
                kinds = [pa.string() if name in texts else pa.int64() for name in names]
                columns = [rows.column(n).cast(kind) for n, kind in zip(names, kinds, strict=True)]
                _check_nulls(path, names, columns, at)
                for name, column in zip(names, columns, strict=True):
                    if name in texts:
                        texts[name].add(column)
                    else:
                        numbers[name].append(column.to_numpy())
                at += rows.num_rows
        except (pa.ArrowException, OSError) as error:
            raise InputError(path, f"cannot be read ({error})") from error
        if not at:
            raise InputError(path, "holds no rows", expected="a row a pair of each batch")
        return cls(
            numbers={name: np.concatenate(parts) for name, parts in numbers.items()},
            texts={name: np.concatenate(text.parts) for name, text in texts.items()},
            values={name: text.values for name, text in texts.items()},
        )

    def take(self, order: np.ndarray) -> _Columns:
        """The rows in another order."""
        return _Columns(
            numbers={name: column[order] for name, column in self.numbers.items()},
            texts={name: column[order] for name, column in self.texts.items()},
            values=self.values,
        )


class _Texts:
    """A column of texts that comes in parts, as indices into its different values."""

    def __init__(self) -> None:
        self.values = pa.array([], pa.string())
        self.parts: list[np.ndarray] = []

    def add(self, column: pa.Array) -> None:
        """Add a part; values that are known keep their index."""
        found = column.dictionary_encode()
        found.dictionary.validate(full=True)  # parquet does not promise UTF-8
        known = pa.DictionaryArray.from_arrays(pa.array([], pa.int32()), self.values)
        unified = pa.chunked_array([known, found]).unify_dictionaries()
        self.values = unified.chunk(0).dictionary
        self.parts.append(unified.chunk(1).indices.to_numpy())


def _checked_names(path: Path, schema: pa.Schema) -> list[str]:
    """The columns to be read; their types are looked at."""
    known = [*SCHEMA.names, EPOCH.name]
    if missing := [name for name in _NEEDED if name not in schema.names]:
        found = f"no column {' and no column '.join(map(repr, missing))}, but {schema.names}"
        do = "name its columns so; position, image_id and epoch may be there too"
        raise InputError(path, found, expected="columns batch and pair_key", do=do)
    for name in known:
        if schema.names.count(name) > 1:
            raise InputError(path, f"several columns {name!r}", expected="one")
        if name in schema.names and not _fits(name, kind := schema.field(name).type):
            expected = "texts (string)" if name in _TEXTS else "whole numbers (int64)"
            do = "cast it, and write the file again"
            raise InputError(path, f"column {name!r} is {kind}", expected=expected, do=do)
    return [name for name in known if name in schema.names]


def _fits(name: str, kind: pa.DataType) -> bool:
    if name not in _TEXTS:
        return bool(pa.types.is_integer(kind))
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind in (pa.string(), pa.large_string(), pa.string_view())


def _check_nulls(path: Path, names: Sequence[str], columns: Sequence[pa.Array], at: int) -> None:
    for name, column in zip(names, columns, strict=True):
        if column.null_count:
            where = (at + np.flatnonzero(pc.is_null(column))).tolist()
            found = f"column {name!r} has no value in rows {first_ten(where)} (from 0)"
            raise InputError(path, found, expected="a value in every row")


def _ties(columns: Sequence[np.ndarray]) -> np.ndarray:
    """(n - 1,) whether a row has the same numbers as the one before it."""
    ties = np.ones(len(columns[0]) - 1, bool)
    for column in columns:
        ties &= column[1:] == column[:-1]
    return ties


def _in_order(columns: Sequence[np.ndarray]) -> bool:
    """Whether rows ascend, by the first column and, among equals, by the next."""
    ties = np.ones(len(columns[0]) - 1, bool)
    for column in columns:
        if np.any(ties & (column[1:] < column[:-1])):
            return False
        ties &= column[1:] == column[:-1]
    return True


def _check_positions(path: Path, numbers: Mapping[str, np.ndarray]) -> None:
    again = np.flatnonzero(_ties(list(numbers.values())))
    if len(again):
        listed = [f"{numbers['position'][i]} in batch {numbers['batch'][i]}" for i in again[:10]]
        found = f"{len(again):,} rows with the position of another: {', '.join(listed)}"
        do = "number the pairs of each batch, or leave the column out: then rows are in order"
        raise InputError(path, found, expected="one row a position", do=do)


def _common_size(path: Path, batch: np.ndarray, starts: np.ndarray, rows: int) -> int:
    sizes = np.diff(starts, append=rows)
    found, counts = np.unique(sizes, return_counts=True)
    usual = int(found[np.argmax(counts)])
    if len(found) > 1:
        odd = [f"{batch[i]} ({sizes[i]})" for i in np.flatnonzero(sizes != usual)[:10]]
        listed = f"{counts.max():,} of {len(sizes):,} batches hold {usual} pairs, others not: "
        others = len(sizes) - int(counts.max())
        more = f" and {others - 10:,} more" if others > 10 else ""
        do = "trainers drop or cut such batches without a word: fill them or leave them out"
        raise InputError(
            path, listed + ", ".join(odd) + more, expected="batches of one size", do=do
        )
    if usual < 2:
        raise InputError(path, "batches of a single pair", expected="two pairs or more in each")
    return usual


def _by_appearance(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number values, which all occur, by first appearance.

    Returns:
        The old number of each new one, and the new indices.
    """
    place = np.empty(int(index.max()) + 1, np.int64)
    place[index[::-1]] = np.arange(len(index))[::-1]  # the last write, of the first row, stays
    order = np.argsort(place, kind="stable")
    renumbered = np.empty(len(place), np.int32)
    renumbered[order] = np.arange(len(order), dtype=np.int32)
    return order, renumbered[index]


def _image_id_of_keys(path: Path, columns: _Columns) -> pa.Array:
    """The image_id of each value of pair_key.

    Raises:
        InputError: a key stands with several.
    """
    key, image = columns.texts["pair_key"], columns.texts["image_id"]
    keys, images = columns.values["pair_key"], columns.values["image_id"]
    of_key = np.zeros(len(keys), np.int32)
    of_key[key] = image
    if len(other := np.flatnonzero(of_key[key] != image)):
        listed = [f"{keys[int(k)]}" for k in np.unique(key[other])]
        found = f"{len(listed):,} pair_keys with several image_ids: {first_ten(listed)}"
        raise InputError(path, found, expected="one image_id a pair_key")
    return images.take(pa.array(of_key))
