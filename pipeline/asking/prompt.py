"""``tonics sql`` at a terminal: line editing, completion, a history, and one line for an error."""

from __future__ import annotations

import contextlib
import signal
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ...errors import TonicsError, plain
from ..tables import terminal_width
from .history import recall, remember
from .statements import split_statements, statement_at

if TYPE_CHECKING:
    from ...ontology.questions import Answer, Session

HELP = """Questions are SQL and end with a semicolon; they may take several lines.
  .tables        the tables and views
  .schema NAME   the columns of one, and what they mean (all tables without a name)
  .macros        questions that are ready made: FROM pairs_of('dog.n.01') LIMIT 10;
  .help          this
  .quit          leave, as Ctrl-D does
Tab completes names, also synsets within quotes. Ctrl-C drops the line, or stops the question."""

_HERE = "database_name IN ('ontology', 'detections') AND schema_name = 'main' AND NOT internal"
_NAMED = "if(database_name = 'ontology', {0}, 'detections.' || {0})"
_TABLES = f"""
    SELECT {_NAMED.format("table_name")} AS "table", format('{{:,}}', estimated_size) AS "rows",
           coalesce(comment, '') AS "what it holds" FROM duckdb_tables() WHERE {_HERE}
    UNION ALL SELECT {_NAMED.format("view_name")}, NULL, coalesce(comment, '')
    FROM duckdb_views() WHERE {_HERE} ORDER BY 1"""
_MACROS = f"""
    SELECT {_NAMED.format("function_name")} || '(' || array_to_string(parameters, ', ') || ')'
           AS macro, coalesce(comment, description, '') AS "what it answers"
    FROM duckdb_functions() WHERE {_HERE} AND function_type LIKE '%macro' ORDER BY 1"""
_COLUMNS = f"""
    SELECT {_NAMED.format("table_name")} AS "table", column_name AS "column", data_type AS type,
           coalesce(comment, '') AS "what it holds"
    FROM duckdb_columns() WHERE {_HERE}"""
_NAMES = f"""
    SELECT {_NAMED.format("table_name")} FROM duckdb_columns() WHERE {_HERE}
    UNION SELECT column_name FROM duckdb_columns() WHERE {_HERE}
    UNION SELECT {_NAMED.format("function_name")} || '(' FROM duckdb_functions()
    WHERE {_HERE} AND function_type LIKE '%macro'"""
_COMMANDS = {".tables": _TABLES, ".macros": _MACROS}
_WORDS = ("SELECT", "FROM", "WHERE", "JOIN", "USING", "GROUP BY", "ORDER BY", "LIMIT", "SUMMARIZE")
_DELIMITERS = " \t\n`~!@#%^&*()=+[{]}\\|;:'\",<>/?"


class Prompt:
    """A conversation with one session.

    Args:
        history: the file questions are remembered in.
        show: prints an answer.
    """

    def __init__(self, session: Session, history: Path, show: Callable[[Answer], None]) -> None:
        self._session, self._history, self._show = session, history, show
        self._names: list[str] = []
        self._found: list[str] = []
        self._rest = ""  # what was typed behind a semicolon

    def run(self) -> None:
        """Read and answer until the user leaves."""
        hash_, objects = self._session.meta["content_hash"][:8], self._first("objects")
        print(f"The ontology {hash_}: {self._first('pairs'):,} pairs, {objects:,} objects.", end="")
        print(" .help says what can be asked, .quit leaves.")
        with self._editing() as add_history, _interruptible():
            while True:
                try:
                    if (text := self._read()) is None:
                        return
                    for statement in self._commands(text):
                        add_history(f"{statement};")
                        remember(self._history, statement)
                        self._answer(statement)
                except TonicsError as error:
                    print(error)
                except KeyboardInterrupt:
                    self._rest = ""
                    print()

    def _first(self, table: str) -> int:
        return int(self._rows(f"SELECT count(*) FROM {table}")[0][0])

    def _read(self) -> str | None:
        """Read lines up to a semicolon, or a command; None when the user leaves."""
        text, self._rest = self._rest, ""
        while not (text.startswith(".") or split_statements(text)[0]):
            try:
                line = input("    ...> " if text else "tonics> ")
            except EOFError:
                print()
                return None
            text = f"{text}\n{line}" if text else _as_command(line.lstrip())
        return None if text.rstrip("; ") in (".quit", ".exit") else text

    def _commands(self, text: str) -> list[str]:
        """The questions of what was typed; a command that begins with a dot is done at once."""
        if not text.startswith("."):
            statements, left = split_statements(text)
            if statement_at(left, 0, len(left)):
                self._rest = left.strip()
            return [statement.text for statement in statements]
        command, *rest = text.rstrip("; ").split()
        if command in _COMMANDS:
            self._describe(_COMMANDS[command])
        elif command == ".schema":
            self._describe(_schema_query(rest[0] if rest else ""))
        else:
            print(HELP if command == ".help" else f"{plain(command)}: no command; see .help")
        return []

    def _answer(self, sql: str) -> None:
        with self._session.ask(sql) as answer:
            self._show(answer)

    def _describe(self, sql: str) -> None:
        """Print names beside sentences, which take as many lines as they need."""
        rows = self._rows(sql)
        widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)][:-1]
        begin = sum(widths) + 2 * len(widths)
        for *cells, text in rows:
            lines = textwrap.wrap(plain(text), max(terminal_width() - begin, 20)) or [""]
            names = "".join(f"{c:<{w}}  " for c, w in zip(cells, widths, strict=True))
            print((names + ("\n" + " " * begin).join(lines)).rstrip())
        if not rows:
            print("nothing of that name; .tables and .macros list them")

    @contextlib.contextmanager
    def _editing(self) -> Iterator[Callable[[str], None]]:
        """Give ``input`` our history and names meanwhile; yield what adds to the history."""
        try:
            import readline
        except ImportError:  # a Python without it: lines are plain
            yield lambda statement: None
            return
        self._names = [*_WORDS, *(row[0] for row in self._rows(_NAMES))]
        for statement in recall(self._history):
            readline.add_history(f"{statement};")
        readline.set_auto_history(False)
        readline.set_completer_delims(_DELIMITERS)
        readline.set_completer(lambda word, n: self._complete(readline, word, n))
        libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
        yield readline.add_history
        readline.set_completer(None)

    def _complete(self, readline: ModuleType, word: str, number: int) -> str | None:
        """The n-th name that a word may become: within quotes a synset's."""
        if number == 0:
            begin = readline.get_begidx()
            quoted = readline.get_line_buffer()[begin - 1 : begin] == "'"
            self._found = self._synsets(word) if quoted else self._names_like(word)
        return self._found[number] if number < len(self._found) else None

    def _names_like(self, word: str) -> list[str]:
        found = [name for name in self._names if name.lower().startswith(word.lower())]
        before, dot, last = word.rpartition(".")  # p.cap: a column of what p stands for
        if found or not dot:
            return found
        return [f"{before}.{n}" for n in self._names if n.startswith(last.lower())]

    def _synsets(self, word: str) -> list[str]:
        where = (
            f"starts_with(synset, '{word.lower()}')"  # a word holds no quote: it would end there
        )
        sql = f"SELECT synset FROM synsets WHERE {where} ORDER BY depth, synset LIMIT 100"
        return [row[0] for row in self._rows(sql)]

    def _rows(self, sql: str) -> list[list[str]]:
        """The rows of a question of our own, as text."""
        with self._session.ask(sql) as answer:
            rows = [row.values() for batch in answer for row in batch.to_pylist()]
        return [["" if cell is None else str(cell) for cell in row] for row in rows]


def _as_command(line: str) -> str:
    """Take the words that people leave with, or ask for help with, without their dot."""
    word = line.rstrip("; ").lower()
    return f".{word}" if word in ("quit", "exit", "help") else line


def _schema_query(name: str) -> str:
    """What is known of a table, of a macro, or of all tables."""
    if not name:
        return f"{_COLUMNS} ORDER BY 1, column_index"
    text, table = name.replace("'", "''"), _NAMED.format("table_name")
    function = _NAMED.format("function_name")
    return (
        f"{_COLUMNS} AND {table} = '{text}' "
        f"UNION ALL SELECT {function}, array_to_string(parameters, ', '), function_type, "
        f"coalesce(comment, description, macro_definition) FROM duckdb_functions() "
        f"WHERE {_HERE} AND {function} = '{text}'"
    )


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end a line or a question rather than the program."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
