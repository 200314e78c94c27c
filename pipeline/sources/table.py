"""Tables with named columns: csv, tsv and jsonl; which column is what stands in ``tonics.toml``."""

from __future__ import annotations

import csv
import difflib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...errors import ConfigError, InputError
from ..config import Columns, Source
from .row import Captioned, broken, numbered_lines, with_captions

_FIELD_LIMIT = 10_000_000
_RECORD_LINES = 100  # a record of more lines has a quote that is never closed
_SEPARATORS = {"\t": "tsv", ",": "csv", ";": "", "|": ""}  # and the format that reads them


def read_csv(path: Path, source: Source) -> Iterator[Captioned]:
    """Read a comma-separated table with a header line; quoted fields may span lines."""
    yield from _read_delimited(path, source, delimiter=",")


def read_tsv(path: Path, source: Source) -> Iterator[Captioned]:
    """Read a tab-separated table with a header line; quotes are ordinary characters."""
    yield from _read_delimited(path, source, delimiter="\t", quoting=csv.QUOTE_NONE)


def read_jsonl(path: Path, source: Source) -> Iterator[Captioned]:
    """Read one JSON object a line; the caption may be a text or a list of texts."""
    seen_columns = False
    for number, line in numbered_lines(path):
        try:
            row = json.loads(line)
        except ValueError:
            yield broken(path, number, "not valid JSON")
            continue
        if not isinstance(row, dict):
            yield broken(path, number, "not a JSON object")
            continue
        if not seen_columns:
            check_columns(path, source.columns, list(row))
            seen_columns = True
        captions = row.get(source.columns.caption)
        yield from with_captions(_captioned(path, number, source, row), captions)


def _read_delimited(path: Path, source: Source, **dialect: Any) -> Iterator[Captioned]:
    csv.field_size_limit(_FIELD_LIMIT)
    records = _records(path, numbered_lines(path, blank=True), dialect)
    _, first = next(records, (0, []))
    if first is None:
        raise InputError(path, "its header line has a quote that is never closed")
    header = [name.strip() for name in first]
    _check_separator(path, header, dialect["delimiter"])
    check_columns(path, source.columns, header)
    caption = header.index(source.columns.caption)
    for number, values in records:
        if values is None:
            yield broken(path, number, "a quote that is never closed")
        elif len(values) != len(header):
            yield broken(path, number, f"{len(values)} fields, not {len(header)}")
        else:
            row = _captioned(path, number, source, dict(zip(header, values, strict=True)))
            yield row._replace(caption=values[caption])


def _records(
    path: Path, lines: Iterable[tuple[int, str]], dialect: dict[str, Any]
) -> Iterator[tuple[int, list[str] | None]]:
    """Yield (number of its first line, fields) of every record; None: its quote never closes.

    After such a line reading goes on with the next one, so that it costs no other record.
    """
    feed = _Feed(lines)
    while True:
        try:
            for values in csv.reader(feed, **dialect):
                yield feed.first, values
                feed.begin()
            return
        except _EndlessError:
            yield feed.first, None
            feed.rewind()
        except csv.Error as error:
            raise InputError(f"{path}:{feed.first}", str(error)) from error


class _EndlessError(Exception):
    """A record goes on for too many lines, or beyond the end of the file."""


class _Feed:
    """Hands lines to a csv reader, and remembers those of the record it is at."""

    def __init__(self, lines: Iterable[tuple[int, str]]) -> None:
        self._lines = iter(lines)
        self._again: deque[tuple[int, str]] = deque()
        self._record: list[tuple[int, str]] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            line = self._next()
            while not self._record and not line[1].strip():  # between records, not within quotes
                line = self._next()
        except StopIteration:
            if self._record:
                raise _EndlessError from None
            raise
        if len(self._record) == _RECORD_LINES:
            self._again.appendleft(line)
            raise _EndlessError
        self._record.append(line)
        return line[1] + "\n"

    def _next(self) -> tuple[int, str]:
        return self._again.popleft() if self._again else next(self._lines)

    @property
    def first(self) -> int:
        """The number of the record's first line."""
        return self._record[0][0]

    def begin(self) -> None:
        """A record was read to its end."""
        self._record.clear()

    def rewind(self) -> None:
        """Go back to the line behind the first of the record."""
        self._again.extendleft(reversed(self._record[1:]))
        self._record.clear()


def _captioned(path: Path, number: int, source: Source, row: dict[str, Any]) -> Captioned:
    """A row of a table, without its caption."""
    columns = source.columns
    image = row.get(columns.image) if columns.image else ""
    image_id = row.get(columns.image_id) if columns.image_id else None
    image_id = image if image_id is None else image_id
    if image is None or image_id == "" or (columns.image and image == ""):
        return broken(path, number, "no image named")
    split = row.get(columns.split) if columns.split else ""
    return Captioned(
        image_id=str(image_id),
        path=str(image),
        caption="",
        split=str(split or ""),
        where=f"{path.name}:{number}",
    )


def _check_separator(path: Path, header: Sequence[str], delimiter: str) -> None:
    """Refuse a table of one column whose name holds what looks like another separator."""
    if not header:
        raise InputError(path, "is empty", expected="a header line")
    others = [c for c in _SEPARATORS if c != delimiter and len(header) == 1 and c in header[0]]
    if others:
        fix = f"set format = {_SEPARATORS[others[0]]!r} for this source in tonics.toml"
        if not _SEPARATORS[others[0]]:
            fix = "save it with commas (.csv) or tabs (.tsv)"
        raise InputError(
            path,
            f"not {'comma' if delimiter == ',' else 'tab'}-separated: its header is one column, "
            f"{header[0][:80]!r}",
            do=fix,
        )


def check_columns(path: Path, columns: Columns, header: Sequence[str]) -> None:
    """Refuse columns that a file does not have.

    Raises:
        ConfigError: the message names the nearest one.
    """
    for key, name in columns.model_dump().items():
        if name and name not in header:
            close = difflib.get_close_matches(name, header, 1)
            raise ConfigError(
                f"{path}: column for {key}",
                f"no column {name!r}",
                expected=f"one of {list(header)!r}",
                do=f"set columns.{key} = {(close or list(header) or ['...'])[0]!r} for this source "
                "in tonics.toml",
            )
