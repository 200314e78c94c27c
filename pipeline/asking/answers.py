"""Print the answer of a question, or write it to a file, as its rows are found."""

from __future__ import annotations

import csv
import decimal
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import pyarrow as pa

from ...artifact import atomic_file
from ...errors import InputError
from ..tables import json_text, plain_part, table_lines, unique_names
from . import Format

if TYPE_CHECKING:
    from ...ontology.questions import Answer

TERMINAL_ROWS = 100


def print_answer(answer: Answer, form: Format, rows: int | None = None) -> None:
    """Print an answer to standard output.

    Args:
        rows: the most a table shows, 0 for all; when omitted, 100 on a terminal and all elsewhere.
    """
    if form is Format.table:
        default = TERMINAL_ROWS if sys.stdout.isatty() else 0
        _print_table(answer, default if rows is None else rows)
    elif form is Format.parquet:
        raise InputError("--format parquet", "on standard output", expected="a file: add --output")
    else:
        write_text(answer, form, sys.stdout, plainly=sys.stdout.isatty())


def write_answer(answer: Answer, form: Format, path: Path) -> int:
    """Write an answer to a file, whole or not at all; return how many rows."""
    with atomic_file(path) as tmp:
        if form is Format.parquet:
            return _write_parquet(answer, tmp)
        with tmp.open("w", encoding="utf-8", newline="") as out:
            return write_text(answer, form, out)


def write_text(answer: Answer, form: Format, out: TextIO, plainly: bool = False) -> int:
    """Write csv or json, a row a line; return how many rows.

    Args:
        plainly: show control characters as text, for a terminal.
    """
    names = unique_names(answer.schema.names)
    rows = itertools.chain.from_iterable(_rows(batch) for batch in answer)
    if form is Format.csv:
        return _write_csv(names, rows, out, plainly)
    count, before = 0, "[\n"
    for row in rows:
        out.write(before + json_text(dict(zip(names, row, strict=True))))
        count, before = count + 1, ",\n"
    out.write("\n]\n" if count else "[]\n")
    return count


def _write_csv(
    names: Sequence[str], rows: Iterable[Sequence[Any]], out: TextIO, plainly: bool
) -> int:
    writer = csv.writer(out, lineterminator="\n")
    count = -1
    for row in itertools.chain([names], rows):
        cells = [_csv_cell(value) for value in row]
        writer.writerow([plain_part(str(cell)) for cell in cells] if plainly else cells)
        count += 1
    return count


def _csv_cell(value: Any) -> Any:
    """Say values as SQL and JSON do, where Python has its own way; NULL is an empty cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return value.hex()
    return json_text(value) if isinstance(value, list | dict) else value


def _write_parquet(answer: Answer, path: Path) -> int:
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            field.with_name(name)
            for field, name in zip(answer.schema, unique_names(answer.schema.names), strict=True)
        ]
    )
    count = 0
    try:
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for batch in answer:
                writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
                count += batch.num_rows
    except pa.ArrowNotImplementedError as error:
        do = "cast that column to VARCHAR"
        raise InputError("sql", f"a type that parquet has not ({error})", do=do) from error
    return count


def _print_table(answer: Answer, most: int) -> None:
    """Print the first rows under their names, and how many there were."""
    from ...ontology.questions import limited

    total = 0

    def head() -> Iterator[pa.RecordBatch]:
        nonlocal total
        for batch in answer:
            left = max(most - total, 0) if most else batch.num_rows
            total += batch.num_rows
            yield batch.slice(0, left)

    blocks = _Blocks(list(limited(head())))
    for line in table_lines(unique_names(answer.schema.names), blocks):
        sys.stdout.write(line + "\n")
    if not total:
        print("0 rows")
    elif most and total > most:
        print(f"{most:,} of {total:,} rows; --rows 0 for all, or -o file.parquet")


class _Blocks:
    """The rows of record batches, converted anew each time: layout reads them twice."""

    def __init__(self, batches: Sequence[pa.RecordBatch]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[list[list[Any]]]:
        return (list(_rows(batch)) for batch in self._batches)


def _rows(batch: pa.RecordBatch) -> Iterator[list[Any]]:
    columns = [
        _values(name, column)
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    return (list(row) for row in zip(*columns, strict=True))


def _values(name: str, column: pa.Array) -> list[Any]:
    """A column as Python values; whole decimals (sums are) as integers, floats as they read."""
    try:
        if pa.types.is_float32(column.type):  # 0.6, not 0.6000000238418579
            texts = column.cast(pa.string()).to_pylist()
            return [text if text is None else float(text) for text in texts]
        values = column.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException) as error:
        do = "cast it to VARCHAR"
        found = f"column {name!r} has values that cannot be shown ({error})"
        raise InputError("sql", found, do=do) from error
    if pa.types.is_decimal(column.type):
        kind = float if column.type.scale else int
        return [kind(v) if isinstance(v, decimal.Decimal) else v for v in values]
    return values
