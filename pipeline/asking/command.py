"""``tonics sql``: one question, a file of them, or a prompt."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InputError, TonicsError, plain
from ..dataset import Dataset
from ..target import check_target
from . import Format
from .answers import print_answer, write_answer
from .history import recall, remember
from .opening import ontology_file, open_session, telling_of_detections
from .statements import Statement, split_statements, statement_at

if TYPE_CHECKING:
    from ...ontology.questions import Answer, Session

_ENDINGS = {".csv": Format.csv, ".json": Format.json, ".parquet": Format.parquet}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How questions are answered: what the options of the command say."""

    form: Format | None = None
    output: Path | None = None
    force: bool = False
    rows: int | None = None
    timeout_s: float = 60
    memory: str = "2GB"


def ask(dataset: Dataset, query: str | None, wanted: Wanted) -> None:
    """Answer a question, or those of standard input, or whoever sits at the terminal."""
    wanted = _settled(dataset, wanted)
    ontology_file(dataset)
    if query is None and wanted.output and sys.stdin.isatty():
        raise InputError("--output", "no question", expected="one, for the file")
    if query is None and sys.stdin.isatty() and sys.stdout.isatty():
        from .prompt import Prompt

        with _open(dataset, wanted) as session:
            Prompt(session, history_file(dataset), lambda answer: show(answer, wanted)).run()
    elif query is None:
        text = sys.stdin.read()
        with _open(dataset, wanted) as session:
            _ask_all(dataset, session, text, wanted)
    else:
        remember(history_file(dataset), query.strip().rstrip(";"))
        with (
            telling_of_detections(dataset),
            _open(dataset, wanted) as session,
            session.ask(query) as answer,
        ):
            show(answer, wanted)


def _open(dataset: Dataset, wanted: Wanted) -> Session:
    return open_session(dataset, memory=wanted.memory, timeout_s=wanted.timeout_s)


def show(answer: Answer, wanted: Wanted) -> None:
    """Print an answer or write it to the file that was named."""
    form = wanted.form or Format.table
    if wanted.output is None:
        print_answer(answer, form, wanted.rows)
        return
    count = write_answer(answer, form, wanted.output)
    print(f"wrote {wanted.output}: {count:,} rows", file=sys.stderr)


def print_history(dataset: Dataset) -> None:
    """Print what was asked, the latest last, in a form that can be asked again."""
    for statement in recall(history_file(dataset)):
        print("\n".join(plain(line) for line in statement.splitlines()) + ";")


def history_file(dataset: Dataset) -> Path:
    """Where questions are remembered."""
    return dataset.state / "sql_history"


def _ask_all(dataset: Dataset, session: Session, text: str, wanted: Wanted) -> None:
    statements, rest = split_statements(text)
    if last := statement_at(text, len(text) - len(rest), len(text)):
        statements.append(last)
    if wanted.output and len(statements) != 1:
        found = f"{len(statements)} statements on standard input"
        raise InputError("--output", found, expected="one, for one file")
    for number, statement in enumerate(statements, start=1):
        if number > 1:
            print()
        try:
            with telling_of_detections(dataset), session.ask(statement.text) as answer:
                show(answer, wanted)
        except TonicsError as error:
            sys.stdout.flush()
            raise _at(number, statement, error) from error


def _at(number: int, statement: Statement, error: TonicsError) -> TonicsError:
    where = f"standard input, line {statement.line} (statement {number})"
    return type(error)(where, error.found, expected=error.expected, do=error.do)


def _settled(dataset: Dataset, wanted: Wanted) -> Wanted:
    """Take the format from the file's name where it was not given; look where it would go."""
    if wanted.output is None:
        if wanted.form is Format.parquet:
            raise InputError("--format parquet", "no file", expected="--output FILE")
        return wanted
    form = wanted.form or _ENDINGS.get(wanted.output.suffix.lower())
    if form in (None, Format.table):
        expected = f"a name in {', '.join(_ENDINGS)}, or --format csv, json or parquet"
        raise InputError("--output", repr(str(wanted.output)), expected=expected)
    path = wanted.output.resolve()
    check_target(dataset, path, force=wanted.force)
    return Wanted(form=form, output=path, timeout_s=wanted.timeout_s, memory=wanted.memory)
