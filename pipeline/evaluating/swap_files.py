"""Files of captions and altered captions: csv or tsv, as ARO and NegCLIP give them."""

from __future__ import annotations

import ast
import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ..plans.eligible import fold

# What the field calls them; a name given with --column stands instead.
COLUMNS = {
    "image": ("image", "image_id", "filepath", "path"),
    "caption": ("caption", "title", "true_caption"),
    "negative": ("negative", "negatives", "neg_caption", "false_caption"),
}
_PLURALS = {f"{what}s": what for what in COLUMNS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """A caption of an image, and the captions made from it."""

    image: str
    caption: str
    negatives: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapFile:
    """A file that was read.

    Attributes:
        swaps: its rows that have an image, a caption and an altered one.
        rows: how many it has. malformed: of these, with more or fewer fields than the header.
        unaltered: altered captions that say the same as the true one, and were left out.
    """

    path: Path
    swaps: Sequence[Swap]
    rows: int
    malformed: int
    unaltered: int


def column_names(pairs: Sequence[str]) -> dict[str, str]:
    """Read what columns are called.

    Raises:
        InputError: it is not ``caption=title`` or so.

    >>> column_names(["caption=title", "negatives=false"])
    {'caption': 'title', 'negative': 'false'}
    """
    found = {}
    for pair in pairs:
        what, equals, name = pair.partition("=")
        what = _PLURALS.get(what, what)
        if what not in COLUMNS or not equals or not name:
            expected = f"KEY=NAME with a key of {', '.join(COLUMNS)}"
            raise InputError("--column", repr(pair), expected=expected)
        found[what] = name
    return found


def read_swaps(path: Path, columns: Mapping[str, str]) -> SwapFile:
    """Read a file with a header line; a row may have no altered caption.

    Args:
        columns: what the file calls ``image``, ``caption``, ``negative``, where not as usual. A
            negative is a text or a list of texts, in Python's or JSON's spelling.

    Raises:
        InputError: no such file, a column is missing, or no row has an altered caption.
    """
    delimiter = "," if path.suffix.lower() == ".csv" else "\t"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=delimiter)
            names = _names(path, reader.fieldnames or (), columns)
            found = _read(path, reader, names)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(path, f"cannot be read ({error})", expected="a csv or tsv file") from error
    if not found.swaps:
        said = f"of its {found.rows:,} rows none has an image, a caption and an altered caption"
        counts = f"{found.malformed:,} have more or fewer fields than the header"
        raise InputError(path, f"{said}; {counts}" if found.malformed else said)
    return found


def _names(path: Path, there: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for what, usual in COLUMNS.items():
        wanted = (columns[what],) if what in columns else usual
        found[what] = next((name for name in wanted if name in there), "")
        if not found[what]:
            do = f"say which one it is: --column {what}=NAME"
            raise InputError(
                path,
                f"no column for {what!r} among {list(there)}",
                expected=f"one of {list(wanted)}",
                do=do,
            )
    return found


def _read(
    path: Path, rows: Iterable[Mapping[str | None, str | None]], names: Mapping[str, str]
) -> SwapFile:
    swaps, total, malformed, unaltered = [], 0, 0, 0
    for row in rows:
        total += 1
        if None in row or None in row.values():  # as csv says that there are too many, or too few
            malformed += 1
            continue
        image, caption, negative = ((row[name] or "").strip() for name in names.values())
        altered = _texts(negative)
        kept = tuple(text for text in altered if fold(text) != fold(caption))
        unaltered += len(altered) - len(kept)
        if image and caption and kept:
            swaps.append(Swap(image=image, caption=caption, negatives=kept))
    return SwapFile(path=path, swaps=swaps, rows=total, malformed=malformed, unaltered=unaltered)


def _texts(cell: str) -> list[str]:
    """The texts of a cell.

    >>> _texts("['a b', 'c']"), _texts("a b"), _texts("")
    (['a b', 'c'], ['a b'], [])
    """
    if cell.startswith("["):
        try:
            values = ast.literal_eval(cell)
            return [v for v in values if isinstance(v, str) and v.strip()]
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            pass  # brackets that are no list: what literal_eval says of them is manifold
    return [cell] if cell else []
