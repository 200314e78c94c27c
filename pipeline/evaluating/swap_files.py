"""Files of captions and altered captions: csv or tsv, as ARO and NegCLIP give them."""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ...errors import InputError

# What the field calls them; a name given with --column comes first.
COLUMNS = {
    "image": ("image", "image_id", "filepath", "path"),
    "caption": ("caption", "title", "true_caption"),
    "negative": ("negative", "negatives", "neg_caption", "false_caption"),
}
_COCO = re.compile(r"COCO_\w+_0*(\d+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """A caption of an image, and the captions made from it."""

    image: str
    caption: str
    negatives: tuple[str, ...]


def column_names(pairs: Sequence[str]) -> dict[str, str]:
    """Read what columns are called.

    Raises:
        InputError: it is not ``caption=title`` or so.

    >>> column_names(["caption=title"])
    {'caption': 'title'}
    """
    found = {}
    for pair in pairs:
        what, equals, name = pair.partition("=")
        if what not in COLUMNS or not equals or not name:
            expected = f"KEY=NAME with a key of {', '.join(COLUMNS)}"
            raise InputError("--column", repr(pair), expected=expected)
        found[what] = name
    return found


def read_swaps(path: Path, columns: Mapping[str, str]) -> list[Swap]:
    """Read a file with a header line; a row may have no altered caption.

    Args:
        columns: what the file calls ``image``, ``caption``, ``negative``, where not as usual. A
            negative is a text or a list of texts, in Python's or JSON's spelling.

    Raises:
        InputError: no such file, or a column is missing.
    """
    delimiter = "," if path.suffix.lower() == ".csv" else "\t"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=delimiter)
            names = _names(path, reader.fieldnames or (), columns)
            return list(_swaps(reader, names))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(path, f"cannot be read ({error})", expected="a csv or tsv file") from error


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


def _swaps(rows: Iterator[dict[str, str]], names: Mapping[str, str]) -> Iterator[Swap]:
    for row in rows:
        image, caption, negative = ((row.get(name) or "").strip() for name in names.values())
        yield Swap(image=image, caption=caption, negatives=tuple(_texts(negative)))


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


def find_images(swaps: Sequence[Swap], images: pa.Table) -> np.ndarray:
    """Find the images that a file names, as their id, their path or their file: (n,), -1 for none.

    COCO's files (``COCO_val2014_000000184613.jpg``) are found by their number, too.
    """
    numbers = dict(zip(images["image_id"].to_pylist(), images["image"].to_pylist(), strict=True))
    paths: dict[str, int] = {}
    for path, number in zip(images["path"].to_pylist(), numbers.values(), strict=True):
        if path:
            paths.setdefault(path, number)
            paths.setdefault(Path(path).name, number)
    return np.array([_find(swap.image, numbers, paths) for swap in swaps], np.int64)


def _find(name: str, numbers: Mapping[str, int], paths: Mapping[str, int]) -> int:
    last, stem = Path(name).name, Path(name).stem
    coco = _COCO.match(stem)
    for spelled in (name, last, stem, coco.group(1) if coco else ""):
        for known in (numbers, paths):
            if spelled and spelled in known:
                return known[spelled]
    return -1
