"""Ask a finished ``ontology.duckdb``: in Python (``Ontology``) or by any SELECT (``run_query``).

Both open the file read-only in a database of their own, so that several may be open at once.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..errors import FormatError, InputError, StaleInput

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FORMAT = "2"
CATALOG = "ontology"  # the name under which macros know the file
_READABLE_FORMATS = (FORMAT,)
_ALLOWED = ("SELECT", "EXPLAIN")
_RESULT_BYTES = 1 << 30
_RESULT_ROWS = 1 << 16  # a batch
_REBUILD = "run 'tonics ontology'"


class Ontology:
    """A finished ontology database, read-only; a context manager.

    Args:
        path: the file; its name does not matter.

    Raises:
        StaleInput: there is no such file yet.
        FormatError: it is not a database this version reads.
    """

    def __init__(self, path: Path | str) -> None:
        self.file = Path(path)
        self._con = _open(self.file, {}, memory="2GB")
        self.meta = self._read_meta()
        if self.meta.get("format") not in _READABLE_FORMATS:
            raise FormatError(
                self.file,
                f"ontology format {self.meta.get('format')!r}",
                expected=" or ".join(_READABLE_FORMATS),
                do=_REBUILD,
            )

    def _read_meta(self) -> dict[str, str]:
        import duckdb

        try:
            return dict(self._rows("SELECT key, value FROM main.meta ORDER BY key"))
        except duckdb.Error as error:
            self.close()
            message = f"not an ontology ({_one_line(error)})"
            raise FormatError(self.file, message, do=_REBUILD) from error

    def __enter__(self) -> Ontology:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the object is of no use afterwards."""
        self._con.close()

    @property
    def content_hash(self) -> str:
        """Hash of the tables' rows: what a plan made from this ontology depends on."""
        return self.meta["content_hash"]

    def objects(self) -> pa.Table:
        """Return the tree of objects, by number: the columns of table ``objects``."""
        return self._table("SELECT * FROM main.objects ORDER BY object")

    def object_parents(self) -> np.ndarray:
        """Return (objects,) int32: the parent of every object, -1 for the root (object 0)."""
        column = self._table("SELECT parent FROM main.objects ORDER BY object")["parent"]
        return np.asarray(column.to_numpy(), dtype=np.int32)

    def deepest_objects(self) -> pa.Table:
        """Return (pair int64, object int32): the most specific objects of every pair, sorted.

        A confident mention counts for the nearest object at or above its synset; of those, one that
        lies above another of the same pair is left out.
        """
        return self._table(
            "SELECT pair, object FROM main.members WHERE deepest ORDER BY pair, object"
        )

    def subtree(self, name: str) -> pa.Table:
        """Return a synset and all below it: synset, distance, definition, object, pairs."""
        return self._table("FROM main.subtree(?)", [self.find(name)])

    def path(self, name: str) -> list[str]:
        """List the synsets from ``entity.n.01`` down to this one, along the primary parents."""
        parents = dict(self._rows("SELECT synset, parent FROM main.synsets"))
        line = [self.find(name)]
        while parent := parents[line[-1]]:
            line.append(parent)
        return line[::-1]

    def pairs(self, name: str) -> np.ndarray:
        """Return (n,) int64, ascending: the pairs that mention a synset or anything below it."""
        sql = "SELECT pair FROM main.synset_pairs WHERE synset = ? ORDER BY pair"
        return np.asarray(self._table(sql, [self.find(name)])["pair"].to_numpy(), dtype=np.int64)

    def find(self, name: str) -> str:
        """Return the synset that a synset's name or a word stands for in this dataset.

        A word is what most captions that use it mean by it, else a synset that lists it.

        Raises:
            InputError: the dataset does not mention it; the message suggests what comes near.
        """
        word = " ".join(name.split())
        for sql in (
            "SELECT synset FROM main.synsets WHERE synset = $word",
            "SELECT synset FROM main.mentions WHERE lemma = lower($word) AND synset IS NOT NULL "
            "GROUP BY synset ORDER BY count(*) DESC, synset LIMIT 1",
            "SELECT synset FROM main.synsets WHERE list_contains(lemmas, $word) "
            "ORDER BY depth, synset LIMIT 1",
        ):
            if rows := self._rows(sql, word=word):
                return str(rows[0][0])
        raise InputError(name, "no caption of this dataset mentions it", do=self._suggest(word))

    def query(self, sql: str, params: Sequence[Any] = ()) -> pa.Table:
        """Answer a SELECT of our own (``?`` for parameters); those of users go to ``run_query``."""
        return self._table(sql, list(params))

    def _suggest(self, word: str) -> str:
        near = self._rows(
            "SELECT lemma FROM main.mentions WHERE synset IS NOT NULL GROUP BY lemma "
            "ORDER BY damerau_levenshtein(lemma, lower($word)), count(*) DESC, lemma LIMIT 3",
            word=word.split(".")[0].replace("_", " "),
        )
        listed = ", ".join(row[0] for row in near)
        return f"did you mean {listed}?" if near else "the dataset has no nouns yet"

    def _table(self, sql: str, values: Any = None) -> pa.Table:
        with self._con.cursor() as cursor:
            cursor.execute("USE ontology")
            return pa.RecordBatchReader.from_stream(cursor.sql(sql, params=values)).read_all()

    def _rows(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        with self._con.cursor() as cursor:
            cursor.execute("USE ontology")
            return cursor.execute(sql, values).fetchall()


def run_query(
    path: Path,
    sql: str,
    *,
    attach: Mapping[str, Path] | None = None,
    memory: str = "2GB",
    timeout_s: float = 60,
) -> pa.Table:
    """Answer one SELECT over an ontology database, and nothing else.

    The files are opened read-only, no other file can be read or written, no extension is loaded, no
    setting changed.

    Args:
        attach: further database files by the name they get in the query.
        memory: what the query may use, such as ``2GB``; the result may take 1 GiB beside it.
        timeout_s: after this many seconds the query is interrupted.

    Raises:
        InputError: anything DuckDB or these limits object to, in one line.
        StaleInput: a file is not there.
        FormatError: a file is not a DuckDB database.
    """
    import duckdb

    _check_statement(sql)
    with (
        contextlib.closing(_open(path, attach or {}, memory)) as con,
        _interrupting(con, timeout_s),
    ):
        try:
            return _read_limited(pa.RecordBatchReader.from_stream(con.sql(sql)))
        except duckdb.InterruptException as error:
            raise _too_slow(timeout_s) from error
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            if "interrupted" in str(error).lower():
                raise _too_slow(timeout_s) from error
            raise InputError("sql", _one_line(error)) from error


def _open(path: Path, attach: Mapping[str, Path], memory: str) -> DuckDBPyConnection:
    import duckdb

    config: dict[str, Any] = {
        "memory_limit": memory,
        "temp_directory": "",
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,  # a query must not see our own variables as tables
    }
    try:
        con = duckdb.connect(config=config)
    except duckdb.Error as error:
        raise InputError("sql", _one_line(error)) from error
    try:
        for name, file in {"ontology": path, **attach}.items():
            _attach(con, name, file)
        con.execute("USE ontology")
        con.execute("SET enable_external_access = false")
        con.execute("SET lock_configuration = true")
    except BaseException:
        con.close()
        raise
    return con


def _attach(con: DuckDBPyConnection, name: str, file: Path) -> None:
    import duckdb

    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise InputError(
            "sql", f"{name!r} cannot name an attached file", expected="a plain identifier"
        )
    if not file.is_file():
        raise StaleInput(file, "not built yet", do=_REBUILD)
    try:
        target = str(file).replace("'", "''")
        con.execute(f"ATTACH '{target}' AS \"{name}\" (READ_ONLY)")
    except duckdb.Error as error:
        message = _one_line(error)
        if "lock" in message.lower():
            raise InputError(
                file, f"another program has it open for writing ({message})", do="close it there"
            ) from error
        raise FormatError(
            file, f"does not open as a DuckDB database ({message})", do=_REBUILD
        ) from error


def _check_statement(sql: str) -> None:
    import duckdb

    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise InputError("sql", _one_line(error)) from error
    if len(statements) != 1:
        raise InputError("sql", f"{len(statements)} statements", expected="one SELECT")
    kind = statements[0].type.name
    if kind not in _ALLOWED:
        raise InputError(
            "sql", f"a {kind} statement", expected="a SELECT: the database is read-only here"
        )


@contextlib.contextmanager
def _interrupting(con: DuckDBPyConnection, timeout_s: float) -> Iterator[None]:
    timer = threading.Timer(timeout_s, con.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _read_limited(reader: pa.RecordBatchReader) -> pa.Table:
    """Read a streamed result; refuse one that would not fit, before it fills the memory."""
    batches, size = [], 0
    for batch in reader:
        batches.append(batch)
        size += batch.nbytes
        if size > _RESULT_BYTES:
            raise InputError(
                "sql", f"the result is larger than {_RESULT_BYTES >> 30} GiB", do="add a LIMIT"
            )
    return pa.Table.from_batches(batches, schema=reader.schema)


def _too_slow(timeout_s: float) -> InputError:
    return InputError(
        "sql", f"not answered within {timeout_s:g} s", do="narrow the question, or raise the limit"
    )


def _one_line(error: Exception) -> str:
    """Keep DuckDB's message and its suggestion, without the excerpt of the query below them."""
    return " ".join(str(error).split("\n\nLINE")[0].split())
