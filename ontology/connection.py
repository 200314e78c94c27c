"""Open finished databases to ask them: read-only, with nothing else within reach of a question."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FormatError, InputError, StaleInput, TonicsError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FORMAT = "2"
CATALOG = "ontology"  # the name under which macros know the file
REBUILD = "run 'tonics ontology'"
_CONFIG: dict[str, Any] = {
    "temp_directory": "",
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
    "secret_directory": "none",  # else a question reads the name of the home folder
    "python_enable_replacements": False,  # a query must not see our own variables as tables
}


def open_files(
    path: Path, attach: Mapping[str, Path], memory: str
) -> tuple[DuckDBPyConnection, dict[str, str]]:
    """Open an ontology as ``ontology``, and further files by their names; return its meta too.

    Raises:
        StaleInput: a file is not there.
        FormatError: a file is not a DuckDB database, or the first not an ontology we read.
        InputError: another program is writing to a file, or ``memory`` is no amount.
    """
    import duckdb

    try:
        con = duckdb.connect(config={**_CONFIG, "memory_limit": memory})
    except duckdb.Error as error:
        raise InputError("sql", one_line(error)) from error
    try:
        for name, file in {CATALOG: path, **attach}.items():
            _attach(con, name, file)
        con.execute(f"USE {CATALOG}")
        con.execute("SET enable_external_access = false")
        con.execute("SET lock_configuration = true")
        return con, _read_meta(con, path)
    except BaseException:
        con.close()
        raise


def _attach(con: DuckDBPyConnection, name: str, file: Path) -> None:
    import duckdb

    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise InputError(
            "sql", f"{name!r} cannot name an attached file", expected="a plain identifier"
        )
    if not file.is_file():
        raise _no_file(file)
    try:
        target = str(file).replace("'", "''")
        con.execute(f"ATTACH '{target}' AS \"{name}\" (READ_ONLY)")
    except duckdb.Error as error:
        message = one_line(error)
        if "set lock" in message:
            raise InputError(
                file, f"another program has it open for writing ({message})", do="close it there"
            ) from error
        raise FormatError(
            file, f"does not open as a DuckDB database ({message})", do=REBUILD
        ) from error


def _no_file(file: Path) -> TonicsError:
    if file.is_symlink():
        do = "mend the link, or delete it"
        return InputError(file, f"a link to {str(file.readlink())!r}, where no file is", do=do)
    if file.exists():
        return FormatError(file, "not a file", expected="a DuckDB database", do=REBUILD)
    return StaleInput(file, "not built yet", do=REBUILD)


def _read_meta(con: DuckDBPyConnection, path: Path) -> dict[str, str]:
    import duckdb

    try:
        meta = dict(con.execute("SELECT key, value FROM main.meta ORDER BY key").fetchall())
    except duckdb.Error as error:
        raise FormatError(path, f"not an ontology ({one_line(error)})", do=REBUILD) from error
    found = meta.get("format")
    if found != FORMAT:
        raise FormatError(path, f"ontology format {found!r}", expected=FORMAT, do=REBUILD)
    return meta


def one_line(error: Exception) -> str:
    """Keep DuckDB's message and its suggestion, without the excerpt of the query below them."""
    return " ".join(str(error).split("\n\nLINE")[0].split())
