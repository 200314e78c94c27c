"""Cut SQL text into statements, before any of them is read by the database."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Quoted text and comments, where a semicolon ends nothing; unterminated ones run to the end.
_PART = re.compile(
    r"""[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z)     # escape string
      | '[^']*(?:'|\Z) | "[^"]*(?:"|\Z)     # a doubled quote reads as two strings
      | \$(\w*)\$.*?(?:\$\1\$|\Z)           # dollar quotes
      | --[^\n]* | /\*.*?(?:\*/|\Z)         # comments
      | ;
      | [^;'"$/eE-]+ | .""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement without its semicolon, and the line it begins in, from 1."""

    text: str
    line: int


def split_statements(text: str) -> tuple[list[Statement], str]:
    """Return the statements that a semicolon ends, and the text after the last of them.

    >>> split_statements("SELECT ';' -- one;\\n; SELECT 2")
    ([Statement(text="SELECT ';' -- one;", line=1)], ' SELECT 2')
    """
    found, begin = [], 0
    for part in _PART.finditer(text):
        if part.group() == ";":
            if statement := statement_at(text, begin, part.start()):
                found.append(statement)
            begin = part.end()
    return found, text[begin:]


def statement_at(text: str, begin: int, end: int) -> Statement | None:
    """The statement in a stretch of text; None where there are just spaces and comments."""
    for part in _PART.finditer(text, begin, end):
        word = part.group()
        if word.strip() and not word.startswith(("--", "/*")):
            start = part.start() + len(word) - len(word.lstrip())
            return Statement(text[start:end].strip(), text.count("\n", 0, start) + 1)
    return None
