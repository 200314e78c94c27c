"""Tables with named columns: csv, tsv and jsonl; which column is what stands in ``tonics.toml``."""

from __future__ import annotations

import csv
import dataclasses
import difflib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...errors import ConfigError, InputError
from ..config import Source
from .row import NO_CAPTION, Captioned, broken, numbered_lines

_FIELD_LIMIT = 10_000_000
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
            _check_columns(path, source, list(row))
            seen_columns = True
        captions = row.get(source.columns.caption)
        if captions == []:
            found = _captioned(path, number, source, row, "")
            yield dataclasses.replace(found, problem=found.problem or NO_CAPTION)
            continue
        for caption in captions if isinstance(captions, list) else [captions]:
            yield _captioned(path, number, source, row, caption)


def _read_delimited(path: Path, source: Source, **dialect: Any) -> Iterator[Captioned]:
    csv.field_size_limit(_FIELD_LIMIT)
    text = (line for _, line in numbered_lines(path))
    if dialect["delimiter"] == ",":  # a quoted field may hold line ends
        text = (line + "\n" for line in text)
    reader = csv.reader(text, **dialect)
    rows = _rows(path, reader)
    header = [name.strip() for name in next(rows, [])]
    _check_separator(path, header, dialect["delimiter"])
    _check_columns(path, source, header)
    for values in rows:
        if len(values) != len(header):
            yield broken(path, reader.line_num, f"{len(values)} fields, not {len(header)}")
            continue
        row = dict(zip(header, values, strict=True))
        yield _captioned(path, reader.line_num, source, row, row[source.columns.caption])


def _rows(path: Path, reader: Any) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        do = "look for a quote that is never closed"
        raise InputError(f"{path}:{reader.line_num}", str(error), do=do) from error


def _captioned(
    path: Path, number: int, source: Source, row: dict[str, Any], caption: Any
) -> Captioned:
    columns, where = source.columns, f"{path.name}:{number}"
    image = row.get(columns.image)
    if image is None or image == "":
        return broken(path, number, "no image named")
    image_id = row.get(columns.image_id) if columns.image_id else image
    split = row.get(columns.split) if columns.split else ""
    return Captioned(
        image_id=str(image if image_id is None else image_id),
        path=str(image),
        caption=caption if isinstance(caption, str) else "",
        split=str(split or ""),
        where=where,
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


def _check_columns(path: Path, source: Source, header: Sequence[str]) -> None:
    for key, name in source.columns.model_dump().items():
        if name and name not in header:
            close = difflib.get_close_matches(name, header, 1)
            raise ConfigError(
                f"{path}: column for {key}",
                f"no column {name!r}",
                expected=f"one of {list(header)!r}",
                do=f"set columns.{key} = {(close or list(header) or ['...'])[0]!r} for this source "
                "in tonics.toml",
            )
