"""Write docs/commands.md: every command with its --help, as plain text of one width.

    python tools/command_reference.py docs/commands.md

A test compares the file with what this program would write now.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from tonics.pipeline.cli import app

WIDTH = 96
HEAD = """# The commands

Written by `make docs` from the program's own help (`tools/command_reference.py`); do not edit.
"""


def reference() -> str:
    """The whole page."""
    parts = [HEAD]
    for path, text in help_texts():
        parts.append(f"## {path}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def help_texts() -> Iterator[tuple[str, str]]:
    """Yield (command with its parents, help text) for the program and everything below it."""
    yield from _below(typer.main.get_command(app), "tonics", None)


def _below(command: Any, name: str, parent: Any) -> Iterator[tuple[str, str]]:
    command.rich_markup_mode = None  # plain text: no boxes, no colours
    context = command.context_class(
        command,
        info_name=name,
        parent=parent,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        help_option_names=["-h", "--help"],
    )
    text = command.get_help(context)
    yield context.command_path, "\n".join(line.rstrip() for line in text.strip().splitlines())
    for below, child in getattr(command, "commands", {}).items():
        yield from _below(child, below, context)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
