"""A DuckDB file of ours: old storage format, commented tables, set-based inserts, a content hash.

While it is written, the file is the current database of the connection, under its catalog's name.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ...artifact import hash_json
from ...errors import FormatError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# The oldest that DuckDB 2.0 writes (v0.10 names the same format): DuckDB 1.0 and later open it.
STORAGE_VERSION = "v1.0.0"
# A view or macro with the comment above it.
_DEFINED = re.compile(
    r"((?:^-- [^\n]*\n)+)CREATE (VIEW|MACRO) main\.(\w+)(\(.*\) AS TABLE$)?", re.M
)


@contextlib.contextmanager
def writing_database(
    path: Path, catalog: str, threads: int | None, memory: str
) -> Iterator[DuckDBPyConnection]:
    """Open a new database file in the old storage format, as the current one of a connection.

    Args:
        catalog: the name under which statements and macros know the file.
        threads, memory: limits for DuckDB; it spills to a folder beside the file.
    """
    import duckdb

    spill = path.with_name(f"{path.name}.spill.tmp")
    config: dict[str, Any] = {"memory_limit": memory, "temp_directory": str(spill)}
    con = duckdb.connect(config=config | ({"threads": threads} if threads else {}))
    try:
        # DuckDB draws one in a process that it takes for an interactive one, such as a worker.
        con.execute("SET enable_progress_bar = false")
        target = str(path).replace("'", "''")
        con.execute(f"ATTACH '{target}' AS {catalog} (STORAGE_VERSION '{STORAGE_VERSION}')")
        con.execute(f"USE {catalog}")
        yield con
        con.execute(f"CHECKPOINT {catalog}")
        con.execute("USE memory")
        con.execute(f"DETACH {catalog}")
    except duckdb.IOException as error:
        raise _as_os_error(error, path) from error
    finally:
        con.close()
        shutil.rmtree(spill, ignore_errors=True)


def _as_os_error(error: Exception, path: Path) -> Exception:
    """Tell a full disk or a read-only folder, which DuckDB reports in words, from a broken file."""
    import errno

    text = str(error)
    for words, number in (
        ("No space left", errno.ENOSPC),
        ("Permission denied", errno.EACCES),
        ("Read-only file system", errno.EROFS),
    ):
        if words in text:
            return OSError(number, words, str(path))
    return FormatError(path, text.split("\n")[0])


def create_tables(con: DuckDBPyConnection, schema: str) -> None:
    """Run a schema's statements, and store its comments in the file too."""
    con.execute(schema)
    for block in re.finditer(
        r"((?:^-- [^\n]*\n)+)CREATE TABLE main\.(\w+) \((.*?)^\);", schema, re.M | re.S
    ):
        comment, table, columns = block.groups()
        _comment(con, f"TABLE main.{table}", " ".join(line[3:] for line in comment.splitlines()))
        for name, text in re.findall(r'^ +("?\w+"?) .*?-- (.*)$', columns, re.M):
            _comment(con, f"COLUMN main.{table}.{name}", text)


def create_macros(con: DuckDBPyConnection, catalog: str, statements: str) -> None:
    """Create views and macros, and every macro once more for a file under another name.

    DuckDB resolves the names within a macro in the client's current database. So a macro names its
    tables with the catalog in full, which answers wherever the file goes by that name; its twin in
    the schema ``here`` names those of the current database.

    Args:
        statements: views first, then ``CREATE MACRO main.NAME`` over ``CATALOG.main.TABLE``.
    """
    con.execute(statements)
    _, start, macros = statements.partition("CREATE MACRO main.")
    moved = (start + macros).replace("CREATE MACRO main.", "CREATE MACRO here.")
    for name in re.findall(r"CREATE MACRO here\.(\w+)", moved):  # a macro that another uses
        moved = moved.replace(f"{catalog}.main.{name}(", f"here.{name}(")
    con.execute("CREATE SCHEMA here")
    con.execute(moved.replace(f"{catalog}.main.", "main."))
    for comment, kind, name, table in _DEFINED.findall(statements):
        what = f"{kind} TABLE" if table else kind
        _comment(con, f"{what} main.{name}", " ".join(s[3:] for s in comment.splitlines()))


def _comment(con: DuckDBPyConnection, what: str, text: str) -> None:
    quoted = text.replace("'", "''")
    con.execute(f"COMMENT ON {what} IS '{quoted}'")


def content_hash(
    con: DuckDBPyConnection, catalog: str, tables: Sequence[str], format_version: str
) -> str:
    """Hash the tables' rows in any order: counts, xor and sum of row hashes."""
    parts = {}
    for table in tables:
        columns = column(
            con,
            f"SELECT column_name FROM duckdb_columns() WHERE database_name = '{catalog}' "
            f"AND table_name = '{table}' ORDER BY column_index",
        )
        texts = [
            f"""coalesce(strlen("{c}"::VARCHAR) || ':' || "{c}"::VARCHAR, '-')""" for c in columns
        ]
        row = f"md5_number_lower(concat({', '.join(texts)}))"
        sums = con.execute(
            "SELECT count(*), bit_xor(h), sum(h::HUGEINT) "
            f"FROM (SELECT {row} AS h FROM main.{table})"
        ).fetchall()
        parts[table] = [str(value) for value in sums[0]]
    return hash_json({"format": format_version, "tables": parts})


def insert(con: DuckDBPyConnection, sql: str, **columns: pa.Array) -> None:
    """Run a statement over an Arrow table, which takes the place of ``{}``."""
    con.register("given", pa.table(columns))
    con.execute(sql.format("given"))
    con.unregister("given")


def insert_parquet(con: DuckDBPyConnection, files: Sequence[Path], sql: str) -> None:
    """Run a statement over parquet files, which take the place of ``{}``.

    Raises:
        FormatError: a file cannot be read, or lacks a column.
    """
    import duckdb

    try:
        con.execute(sql.format("read_parquet($files)"), {"files": [str(f) for f in files]})
    except (duckdb.IOException, duckdb.InvalidInputException, duckdb.BinderException) as error:
        message = str(error).split("\n")[0]
        raise FormatError(files[0], message, do="delete it and run 'tonics run' again") from error


def insert_rows(
    con: DuckDBPyConnection,
    sql: str,
    rows: Sequence[tuple[Any, ...]],
    types: Mapping[str, pa.DataType],
) -> None:
    """Run a statement over rows, which take the place of ``{}``."""
    columns = {
        name: pa.array([row[i] for row in rows], type_)
        for i, (name, type_) in enumerate(types.items())
    }
    insert(con, sql, **columns)


def load_meta(con: DuckDBPyConnection, own: Mapping[str, str], versions: Mapping[str, str]) -> None:
    """Fill ``meta``: what the file says of itself, then the versions that decided it, by name."""
    rows = [*own.items(), *sorted(versions.items())]
    types = {"key": pa.string(), "value": pa.string()}
    insert_rows(con, "INSERT INTO meta SELECT * FROM {}", rows, types)


def column(con: DuckDBPyConnection, sql: str) -> list[str]:
    """List the first column of an answer."""
    return [row[0] for row in con.execute(sql).fetchall()]


def count(con: DuckDBPyConnection, table: str) -> int:
    """Count the rows of a table."""
    return int(con.execute(f"SELECT count(*) FROM main.{table}").fetchall()[0][0])
