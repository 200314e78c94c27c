"""Tables and captions for people: hostile text is shown as text, never as markup or escapes."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import plain

BOLD, RESET = "\x1b[1m", "\x1b[0m"


def format_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], width: int = 0) -> str:
    """Lay rows out under their column names, numbers to the right, long text cut to the terminal.

    >>> print(format_table(["object", "images"], [["dog", 12], ["cat", 3]]))
    object  images
    ------  ------
    dog         12
    cat          3
    """
    return "\n".join(table_lines(columns, [rows], width))


def table_lines(
    columns: Sequence[str], blocks: Iterable[Sequence[Sequence[Any]]], width: int = 0
) -> Iterator[str]:
    """Yield the lines of a table whose rows come in blocks, which are gone through twice."""
    columns = [plain(name) for name in columns]
    widths, right = [len(name) for name in columns], [True] * len(columns)
    for rows in blocks:
        for i in range(len(columns)):
            widths[i] = max([widths[i], *(len(_cell(row[i])) for row in rows)])
            right[i] &= all(isinstance(row[i], int | float) or row[i] is None for row in rows)
    _narrow(widths, width or terminal_width())
    yield _line(columns, widths, right)
    yield _line(["-" * w for w in widths], widths, right)
    for rows in blocks:
        for row in rows:
            yield _line([_cell(value) for value in row], widths, right)


def _narrow(widths: list[int], limit: int) -> None:
    """Take from the widest columns until a line fits; a dozen characters stay of each."""
    while sum(widths) + 2 * (len(widths) - 1) > limit and max(widths) > 12:
        widths[widths.index(max(widths))] -= 1


def terminal_width() -> int:
    """Columns of the terminal; without one lines are not cut short."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return "nan" if math.isnan(value) else f"{value:.4g}"
    if isinstance(value, list | dict):
        return plain(json.dumps(value, ensure_ascii=False, default=str))
    return plain(str(value))


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    cut = [c if len(c) <= w else c[: w - 1] + "…" for c, w in zip(cells, widths, strict=True)]
    return "  ".join(
        c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cut, widths, right, strict=True)
    ).rstrip()


def format_json(value: Any) -> str:
    """JSON for programs: all but ASCII is escaped, so a terminal is safe too."""
    return json.dumps(_finite(value), ensure_ascii=True, indent=1, default=_said)


def json_text(value: Any) -> str:
    """JSON in one line, as ``format_json`` writes it in several."""
    return json.dumps(_finite(value), ensure_ascii=True, default=_said)


def _said(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _finite(value: Any) -> Any:
    """Put null where a number is not finite: JSON has no other word for it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def unique_names(columns: Sequence[str]) -> list[str]:
    """Tell columns of one name apart, as a join of two tables gives them.

    >>> unique_names(["pair", "caption", "pair"])
    ['pair', 'caption', 'pair_1']
    """
    found: list[str] = []
    for name in columns:
        new, again = name, 0
        while new in found:
            again += 1
            new = f"{name}_{again}"
        found.append(new)
    return found


def rows_as_dicts(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[Mapping[str, Any]]:
    """Rows as objects, for ``--json``."""
    return [dict(zip(columns, row, strict=True)) for row in rows]


def mark(caption: str, spans: Sequence[tuple[int, int]]) -> str:
    """Show a caption with spans marked: bold on a terminal, in brackets elsewhere.

    >>> mark("a dog runs", [(2, 5)])
    'a [dog] runs'
    """
    before, after = (BOLD, RESET) if sys.stdout.isatty() else ("[", "]")
    parts, at = [], 0
    for start, end in sorted(spans):
        if start < at:
            continue
        parts += [plain_part(caption[at:start]), before, plain_part(caption[start:end]), after]
        at = end
    return "".join([*parts, plain_part(caption[at:])])


def plain_part(text: str) -> str:
    """As ``errors.plain``, but keeps the spaces at the ends of a part.

    >>> plain_part(" a ")
    ' a '
    """
    return "".join(c if c.isprintable() else "?" for c in text)


def size_text(count: float) -> str:
    """Bytes for people.

    >>> size_text(1_500_000)
    '1.5 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.1f} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1000
    raise AssertionError("unreachable")


def time_text(seconds: float) -> str:
    """Seconds for people.

    >>> time_text(4), time_text(150), time_text(9000)
    ('4 s', '2.5 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
