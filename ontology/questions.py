"""Questions from outside, in SQL: one SELECT at a time, limited in time and memory.

The files are opened read-only, no other file can be read or written, no extension is loaded, no
setting changed. A question runs in a thread of its own, so that Ctrl-C and the time limit reach it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa

from ..errors import InputError
from .connection import one_line, open_files

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

RESULT_BYTES = 1 << 30
_ALLOWED = ("SELECT", "EXPLAIN")
_EXPLAIN = re.compile(r"\s*explain(\s+analyze)?(\s*\([^)]*\))?\s+", re.I)
T = TypeVar("T")


class Session:
    """An ontology, and what is attached to it, held open for questions; a context manager.

    Args:
        attach: further database files by the name they get in the query.
        memory: what a question may use, such as ``2GB``; its result comes beside it.
        timeout_s: after this many seconds of work a question is interrupted.

    Raises:
        StaleInput, FormatError, InputError: a file or ``memory`` is not what it should be.
    """

    def __init__(
        self,
        path: Path,
        *,
        attach: Mapping[str, Path] | None = None,
        memory: str = "2GB",
        timeout_s: float = 60,
    ) -> None:
        self._con, self.meta = open_files(path, attach or {}, memory)
        self.timeout_s = timeout_s

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._con.close()

    def ask(self, sql: str) -> Answer:
        """Begin to answer one SELECT.

        Raises:
            InputError: anything DuckDB or the limits object to, in one line.
        """
        check_statement(sql)
        return Answer(self._con.cursor(), sql, self.timeout_s)


class Answer:
    """The rows of one question, batch by batch as they are found; a context manager.

    Attributes:
        schema: the columns; two may have one name.
    """

    def __init__(self, cursor: DuckDBPyConnection, sql: str, timeout_s: float) -> None:
        self._cursor, self._sql = cursor, sql
        self._timeout_s = self._left_s = timeout_s
        self._worker = ThreadPoolExecutor(1)
        try:
            self._reader = self._supervise(self._start)
        except BaseException:
            self.close()
            raise
        self.schema = self._reader.schema

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget what has not been fetched."""
        self._worker.shutdown()
        self._cursor.close()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Yield the batches; the time a caller takes between them is not limited."""
        while (batch := self._supervise(self._next)) is not None:
            yield batch

    def _start(self) -> pa.RecordBatchReader:
        self._cursor.execute("USE ontology")
        return pa.RecordBatchReader.from_stream(self._cursor.sql(self._sql))

    def _next(self) -> pa.RecordBatch | None:
        try:
            return self._reader.read_next_batch()
        except StopIteration:
            return None

    def _supervise(self, work: Callable[[], T]) -> T:
        """Do some work on the question in its thread, and stop it when time is up or on Ctrl-C."""
        import duckdb

        start = time.monotonic()
        future = self._worker.submit(work)
        try:
            return future.result(max(self._left_s, 0))
        except TimeoutError as error:
            found, do = f"not answered within {self._timeout_s:g} s", "narrow the question"
            raise InputError("sql", found, do=f"{do}, or raise the limit") from error
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise InputError("sql", one_line(error)) from error
        finally:
            self._left_s -= time.monotonic() - start
            self._stop(future)

    def _stop(self, future: Future[T]) -> None:
        while not future.done():  # again: a query that just begins overlooks it
            self._cursor.interrupt()
            wait([future], timeout=0.02)


def run_query(
    path: Path,
    sql: str,
    *,
    attach: Mapping[str, Path] | None = None,
    memory: str = "2GB",
    timeout_s: float = 60,
) -> pa.Table:
    """Answer one SELECT over an ontology database, and nothing else; at most 1 GiB of rows.

    Arguments and errors are those of ``Session`` and ``Session.ask``.
    """
    with (
        Session(path, attach=attach, memory=memory, timeout_s=timeout_s) as session,
        session.ask(sql) as answer,
    ):
        return pa.Table.from_batches(limited(answer), schema=answer.schema)


def limited(batches: Iterator[pa.RecordBatch] | Answer) -> Iterator[pa.RecordBatch]:
    """Pass batches on; refuse a result that is to be held at once and would fill the memory."""
    size = 0
    for batch in batches:
        size += batch.nbytes
        if size > RESULT_BYTES:
            found = f"the result is larger than {RESULT_BYTES >> 20:,} MiB"
            raise InputError("sql", found, do="add a LIMIT, or write it to a file with --output")
        yield batch


def check_statement(sql: str) -> None:
    """See to it that a text is one SELECT (or FROM, WITH, SHOW, DESCRIBE, SUMMARIZE, EXPLAIN).

    Raises:
        InputError: it is something else, or no SQL at all.
    """
    import duckdb

    try:
        kinds = [statement.type.name for statement in duckdb.extract_statements(sql)]
    except duckdb.Error as error:
        raise InputError("sql", one_line(error)) from error
    except ValueError:  # a kind of statement that the client has no name for
        kinds = ["different"]
    if len(kinds) != 1:
        raise InputError("sql", f"{len(kinds)} statements", expected="one SELECT")
    if kinds == ["MULTI"]:
        expected = "its values named: PIVOT ... ON column IN (...)"
        raise InputError("sql", "a PIVOT that would make a type", expected=expected)
    if kinds == ["EXPLAIN"] and (explained := _EXPLAIN.sub("", sql, count=1)) != sql:
        return check_statement(explained)
    if kinds[0] not in _ALLOWED:
        raise InputError(
            "sql", f"a {kinds[0]} statement", expected="a SELECT: the database is read-only here"
        )
