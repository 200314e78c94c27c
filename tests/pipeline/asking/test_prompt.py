"""The prompt of ``tonics sql``, typed at through a pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HANGS_AFTER_S = 60  # a guard: an answer that never comes must not stop the suite


class Terminal:
    """A command at a terminal of 30 lines of 100 characters."""

    def __init__(self, command: list[str]) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**os.environ, "TERM": "dumb", "INPUTRC": os.devnull},
        )
        os.close(slave)

    def type(self, text: str, until: str = "\ntonics> ") -> str:
        """Type; return what the terminal then shows, up to some text."""
        os.write(self._master, text.encode())
        return self.read(until)

    def interrupt(self) -> str:
        """Press Ctrl-C until the prompt comes: Python misses one that comes too early."""
        while True:
            time.sleep(0.5)
            os.write(self._master, b"\x03")
            if select.select([self._master], [], [], 5)[0]:
                return self.read()

    def read(self, until: str = "\ntonics> ") -> str:  # a redrawn line has its prompt within
        raw, deadline = b"", time.monotonic() + HANGS_AFTER_S
        while not raw.endswith(until.encode()):
            ready, _, _ = select.select([self._master], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"{until!r} never came: {raw!r}"
            raw += os.read(self._master, 1 << 16)
        return raw.decode().replace("\r\n", "\n")

    def close(self) -> int:
        """Read what is left; return the exit code."""
        try:
            while select.select([self._master], [], [], HANGS_AFTER_S)[0]:
                if not os.read(self._master, 1 << 16):
                    break
        except OSError:  # the other end is closed
            pass
        os.close(self._master)
        return self.process.wait(HANGS_AFTER_S)


@pytest.fixture
def terminal(copy: Path, command: Callable[..., list[str]]) -> Iterator[Terminal]:
    (copy / ".tonics" / "sql_history").unlink(missing_ok=True)
    opened = Terminal(command("-C", copy, "sql"))
    yield opened
    opened.process.kill()
    opened.process.wait()


def test_a_conversation(terminal: Terminal, copy: Path, run: Callable[..., object]) -> None:
    assert re.search(r"The ontology \w{8}: 120 pairs, \d+ objects\.", terminal.read())
    terminal.type("SELECT 6 * 7\n", until="\n    ...> ")
    assert "answer\n------\n    42\n" in terminal.type("AS answer;\n")
    two = terminal.type("SELECT 1 AS a; SELECT 2 AS b;\n")
    assert "a\n-\n1\n" in two
    assert "b\n-\n2\n" in two
    assert "sql: Parser Error: syntax error" in terminal.type("SELEC;\n")
    assert "100 of 120 rows; --rows 0 for all" in terminal.type("FROM pairs;\n")
    terminal.type("SELECT 3 AS c; SELECT\n", until="\n    ...> ")
    assert "d\n-\n4\n" in terminal.type("4 AS d;\n")
    terminal.type("SELECT 'not\n", until="\n    ...> ")
    terminal.interrupt()  # drops the line
    assert "42" in terminal.type("SELECT 42;\n")
    assert ".tables" in terminal.type("help\n")
    os.write(terminal._master, b"\x04")
    assert terminal.close() == 0
    out = run("-C", copy, "sql", "--history").out
    assert out == (
        "SELECT 6 * 7\nAS answer;\nSELECT 1 AS a;\nSELECT 2 AS b;\nSELEC;\nFROM pairs;\n"
        "SELECT 3 AS c;\nSELECT\n4 AS d;\nSELECT 42;\n"
    )


def test_commands(terminal: Terminal) -> None:
    terminal.read()
    tables = terminal.type(".tables\n")
    assert re.search(r"^pairs +120 +The image-caption pairs", tables, re.M)
    assert max(map(len, tables.splitlines())) <= 100
    assert re.search(r"^pairs_of\(name\)", terminal.type(".macros\n"), re.M)
    assert re.search(r"^pairs +caption +VARCHAR +the text", terminal.type(".schema pairs\n"), re.M)
    assert re.search(r"^pairs_of +name ", terminal.type(".schema pairs_of\n"), re.M)
    assert "mentions  surface" in re.sub(" +", "  ", terminal.type(".schema\n"))
    assert "nothing of that name" in terminal.type(".schema nowhere\n")
    assert ".frob: no command; see .help" in terminal.type(".frob\n")
    assert "end with a semicolon" in terminal.type(".help\n")
    os.write(terminal._master, b".quit\n")
    assert terminal.close() == 0


def test_ctrl_c_stops_a_question(terminal: Terminal) -> None:
    terminal.read()
    slow = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range = 7;\n"
    os.write(terminal._master, slow.encode())
    terminal.read(until="= 7;\r\n")
    time.sleep(0.5)  # whether it has begun or not, it ends
    assert "tonics> " in terminal.type("\x03")
    assert "a\n-\n1\n" in terminal.type("SELECT 1 AS a;\n")


def test_names_are_completed_and_questions_come_back(terminal: Terminal) -> None:
    pytest.importorskip("readline")
    terminal.read()
    assert "pairs_of('dog.n.01')" in terminal.type("FROM pairs_o\t'dog.n\t) LIMIT 1;\n")
    assert "confidence" in terminal.type("SELECT min(m.confid\t) FROM mentions m;\n")
    again = terminal.type("\x10\x10\n")  # two up
    assert "A red dog on the grass." in again
