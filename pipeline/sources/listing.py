"""The rows of caption files as tables: millions of them in little memory, and parsed only once.

A large file's table is kept in ``.tonics/sources``, under a name that is a hash of the file's bytes
and of the settings it was read with.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...artifact import atomic_file, hash_file, hash_json
from ...errors import InputError, TonicsError
from ..config import Source
from .parquet import path_beside
from .row import NEVER_DOWNLOADED, NO_CAPTION, Captioned

ROWS_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("path", pa.string()),  # below image_root
        ("caption", pa.string()),  # without spaces around it; null: not UTF-8
        ("split", pa.string()),  # as the source says, else ""
        ("where", pa.string()),
        ("problem", pa.string()),
        ("optional", pa.bool_()),
    ]
)
LISTING_VERSION = 2  # raised when the same file would give another table
_ROWS_AT_ONCE = 50_000
_KEPT_FROM_BYTES = 4_000_000  # smaller files are parsed as fast as their table is read
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How the rows of a source become rows of the dataset.

    Attributes:
        folder: below image_root, put before the paths. split: where a row names none.
        image_files: whether images are looked for at all.
    """

    folder: str = ""
    split: str = ""
    image_files: bool = True


def tabulate(rows: Iterable[Captioned], reading: Reading) -> pa.Table:
    """Collect rows into a table (``ROWS_SCHEMA``), some thousand at a time."""
    rows, batches = iter(rows), []
    while chunk := list(itertools.islice(rows, _ROWS_AT_ONCE)):
        cells = zip(*(_cells(row, reading) for row in chunk), strict=True)
        columns = [pa.array(c, f.type) for c, f in zip(cells, ROWS_SCHEMA, strict=True)]
        batches.append(pa.record_batch(columns, schema=ROWS_SCHEMA))
    return pa.Table.from_batches(batches, ROWS_SCHEMA)


def _cells(row: Captioned, reading: Reading) -> tuple[str, str, str | None, str, str, str, bool]:
    image_id, path, caption, where, split, problem, optional = row
    if not reading.image_files:
        path, optional = "", False
        problem = "" if problem == NEVER_DOWNLOADED else problem
    elif path and reading.folder:
        path = f"{reading.folder}/{path}"
    problem = problem or _bad_name(image_id, path)
    if problem or not where.isascii():
        image_id, path, where = _escaped(image_id), _escaped(path), _escaped(where)
    text = None if _has_surrogates(caption) else caption.strip()
    return image_id, path, text, _escaped(split.strip() or reading.split), where, problem, optional


def _bad_name(image_id: str, path: str) -> str:
    """Say why no file can have a name, or nothing."""
    if _has_surrogates(image_id) or _has_surrogates(path):
        return "not UTF-8"
    return "not a file name" if "\0" in image_id or "\0" in path else ""


def _has_surrogates(text: str) -> bool:
    """Whether a text held bytes that are not UTF-8 (or half a character, in JSON)."""
    return not text.isascii() and _SURROGATES.search(text) is not None


def _escaped(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


class Kept:
    """The tables of caption files: large ones in a folder, the others in memory.

    Whatever happens to the folder, rows are just read again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._used: set[Path] = set()
        self._held: dict[str, pa.Table] = {}
        self._places: dict[Path, str] = {}

    def table(
        self,
        file: Path,
        file_hash: str,
        source: Source,
        reading: Reading,
        rows: Iterator[Captioned],
        columns: Sequence[str] = ROWS_SCHEMA.names,
    ) -> pa.Table:
        """Some columns of a caption file's table.

        Args:
            file_hash: of the file, taken before anything of it was read.
            rows: of the file; not touched when its table is here.
        """
        key = _identity(file, file_hash, source, reading, self._place(file, source))
        if key in self._held:
            return self._held[key].select(columns)
        kept = self.folder / f"{key}.parquet"
        large = file.stat().st_size >= _KEPT_FROM_BYTES
        if large:
            self._used.add(kept)
            with contextlib.suppress(OSError, ValueError):  # absent, or damaged
                return pq.read_table(kept, columns=list(columns)).select(columns)
        table = tabulate(rows, reading)
        if not large or hash_file(file) != file_hash or not _keep(table, kept):
            self._held[key] = table
        return table.select(columns)

    def _place(self, file: Path, source: Source) -> str:
        """Where img2dataset's images are, which decides paths; large folders are listed once."""
        if file.suffix != ".parquet" and source.format != "parquet":
            return ""
        if file not in self._places:
            self._places[file] = ""
            with contextlib.suppress(InputError):  # reading says so, where it matters
                self._places[file] = path_beside(file)
        return self._places[file]

    def forget(self, keep: bool = True) -> None:
        """Delete the tables of files that are no longer used, or all."""
        if not keep:
            self._used.clear()
            self._held.clear()
            self._places.clear()
        for file in self.folder.glob("*.parquet"):
            if file not in self._used:
                file.unlink(missing_ok=True)


def _keep(table: pa.Table, path: Path) -> bool:
    """Write a table; False where that is impossible: whoever must write will say so."""
    try:
        with atomic_file(path) as tmp:
            pq.write_table(table, tmp, compression="zstd", compression_level=1)
    except (TonicsError, OSError):
        return False
    return True


def _identity(file: Path, file_hash: str, source: Source, reading: Reading, beside: str) -> str:
    said = source.model_dump(mode="json", exclude={"captions"})
    read = [reading.folder, reading.split, reading.image_files]
    return hash_json([LISTING_VERSION, file.name, file_hash, said, read, beside])


class Listed:
    """The captions of all sources, row by row, and the images they speak of.

    Args:
        rows: a table of ``ROWS_SCHEMA``, or some columns of one, in source order.

    Attributes:
        rows: those that are captions, or should have been.
        ids: (m,) the image ids, in order of appearance. image: (n,) int32 index into ``ids``.
    """

    def __init__(self, rows: pa.Table) -> None:
        alone = pc.equal(rows.column("problem"), NO_CAPTION)
        several = pc.any(alone).as_py()  # a filter copies all
        self.rows = rows.filter(pc.invert(alone)) if several else rows
        self.image, self.ids = _encoded(self.rows.column("image_id"))

    def __len__(self) -> int:
        return self.rows.num_rows

    @cached_property
    def usable(self) -> np.ndarray:
        """(n,) bool: the row names an image."""
        return pc.equal(self.rows.column("problem"), "").to_numpy()

    @cached_property
    def first(self) -> np.ndarray:
        """(m,) int64: the first usable row of each image, n where there is none."""
        return first_rows(self.image, self.usable, len(self.ids))

    @cached_property
    def strays(self) -> np.ndarray:
        """(n,) bool: usable rows that give another path than the first of their image."""
        path, _ = _encoded(self.rows.column("path"))
        first = self.first[self.image]
        return self.usable & (path != path[np.minimum(first, len(self) - 1)])

    @cached_property
    def position(self) -> np.ndarray:
        """(n,) int64: the place of a row among those of its image, from 0."""
        order = np.argsort(self.image, kind="stable")
        starts = np.zeros(len(self.ids) + 1, np.int64)
        np.cumsum(np.bincount(self.image, minlength=len(self.ids)), out=starts[1:])
        position = np.empty(len(self), np.int64)
        position[order] = np.arange(len(self)) - starts[self.image[order]]
        return position

    @cached_property
    def images(self) -> pa.Table:
        """image_id, path and optional of the images, by first appearance."""
        rows = np.sort(self.first[self.first < len(self)])
        return self.rows.select(["image_id", "path", "optional"]).take(pa.array(rows))


def first_rows(group: np.ndarray, chosen: np.ndarray, groups: int) -> np.ndarray:
    """The first chosen row of every group, the number of rows where there is none.

    >>> first_rows(np.array([0, 0, 2]), np.array([False, True, True]), 3).tolist()
    [1, 3, 2]
    """
    first = np.full(groups, len(group), np.int64)
    rows = np.flatnonzero(chosen)[::-1]
    first[group[rows]] = rows  # of several the last assigned stays: the first row
    return first


def _encoded(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Codes of a column's values, and the values in order of appearance."""
    encoded = column.dictionary_encode().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # of no rows at all
        encoded = pa.array([], column.type).dictionary_encode()
    return encoded.indices.to_numpy(), encoded.dictionary
