"""Region features as other programs write them, one module a family.

All are text, one line an image, its id first. ``FORMATS`` names the families, ``format_of`` tells
which one a file is of by its first line, ``read_features`` reads one file from start to end; the
import of whole datasets (resumable, in parallel) is the pipeline's, built from the same parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

from ...errors import InputError
from ..regions import Regions
from . import bottom_up, lxmert, oscar, oscar_captioning, scene_graph, vinvl_fe
from .conversion import to_regions
from .lines import MAX_LINE, LineReader, lines_of
from .names import Names
from .row import BadLine, FeatureFormat, columns_of

FORMATS: dict[str, FeatureFormat] = {
    "scene_graph": scene_graph.FORMAT,
    "oscar": oscar.FORMAT,
    "oscar_captioning": oscar_captioning.FORMAT,
    "bottom_up": bottom_up.FORMAT,
    "lxmert": lxmert.FORMAT,
    "vinvl_fe": vinvl_fe.FORMAT,
}
_LOOKED_AT = 4096  # bytes of a file's start
_BINARY = frozenset(range(9)) | frozenset(range(14, 32))  # control characters no text has


def format_of(path: Path, name: str = "auto") -> str:
    """The family of a file: as said, or as its first line shows.

    Raises:
        InputError: no such file, no such family, or a first line of none.
    """
    if name != "auto" and name not in FORMATS:
        raise InputError("--format", repr(name), expected=f"auto, {', '.join(FORMATS)}")
    if not path.is_file():
        raise InputError(path, "no such feature file")
    with path.open("rb") as file:
        _check_text(path, file.read(_LOOKED_AT))
        if name != "auto":
            return name
        file.seek(0)
        first = file.readline(MAX_LINE)
    columns = columns_of(first)
    for known, family in FORMATS.items():
        if family.matches(columns):
            return known
    raise InputError(
        path, _puzzle(columns), expected=f"one of {', '.join(FORMATS)}", do=_advice(path)
    )


def mate_of(path: Path, family: FeatureFormat) -> Path | None:
    """The second file that belongs to a feature file, where there is one."""
    if family.mate is None:
        return None
    mate = family.mate.path(path)
    return mate if mate.is_file() and mate != path else None


def read_features(
    path: Path,
    *,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    names: Names | None = None,
    name: str = "auto",
) -> Iterator[tuple[int, str, Regions | BadLine]]:
    """Read a file from its start to its end, in the memory of one line.

    Args:
        sizes: width and height of images, for families that do not say them.
        names: a vocabulary; names that are new are added to one that is not fixed.
        name: the family; "auto" looks at the first line.

    Yields:
        Line number from 1, image id, and its regions or what is wrong with the line.
    """
    family = FORMATS[format_of(path, name)]
    names = names or default_names(family)
    with closing(Mates(path, family)) as mates:
        yield from _regions(path, family, mates, names, sizes or {})


def _regions(
    path: Path,
    family: FeatureFormat,
    mates: Mates,
    names: Names,
    sizes: Mapping[str, tuple[int, int]],
) -> Iterator[tuple[int, str, Regions | BadLine]]:
    dim = 0
    for line in lines_of(path):
        columns = columns_of(line.text)
        image_id = line.key.decode("utf-8", "backslashreplace")
        try:
            row = family.read(columns, mates.of(line.number, image_id))
            names.collect(row.objects or ())
            dim = dim or (row.features.shape[1] if len(row) else 0)
            regions, _ = to_regions(row, names, dim, *sizes.get(image_id, (0, 0)))
            yield line.number, image_id, regions
        except BadLine as problem:
            yield line.number, image_id, problem


def default_names(family: FeatureFormat) -> Names:
    """The vocabulary of a family when nobody gives one: names as they come, or bare numbers."""
    return Names() if family.first_number is None else Names.without_names(family.first_number)


class Mates:
    """The lines of the second file, found by row or by id; the first of an id counts."""

    def __init__(self, path: Path, family: FeatureFormat) -> None:
        self.path = mate_of(path, family)
        self.by_row = family.mate is not None and family.mate.by_row
        self._places: dict[int | str, tuple[int, int]] = {}
        if self.path is None:
            return
        for line in lines_of(self.path, ids_only=True):
            key = line.number if self.by_row else line.key.decode("utf-8", "backslashreplace")
            self._places.setdefault(key, (line.offset, line.size))
        self._reader = LineReader(self.path)

    def close(self) -> None:
        """Close the second file."""
        if self.path is not None:
            self._reader.__exit__()

    def place(self, number: int, image_id: str) -> tuple[int, int] | None:
        """Where the mate of a line is, and its size; None without a second file.

        Raises:
            BadLine: the second file has none for it.
        """
        if self.path is None:
            return None
        found = self._places.get(number if self.by_row else image_id)
        if found is None:
            raise BadLine("no boxes and labels for it", f"not in {self.path.name}")
        return found

    def of(self, number: int, image_id: str) -> list[bytes] | None:
        """The mate of a line, as columns."""
        found = self.place(number, image_id)
        return None if found is None else columns_of(self._reader.read(*found))


def _check_text(path: Path, start: bytes) -> None:
    """Refuse what cannot be lines of any format, by its first bytes."""
    if not start:
        raise InputError(path, "is empty")
    if start[:2] == b"\x1f\x8b":
        raise InputError(path, "is compressed with gzip", do="unpack it first")
    if any(byte in _BINARY for byte in start):
        raise InputError(path, "is not text", expected="a file with a line for every image")


def _puzzle(columns: list[bytes]) -> str:
    count = f"{len(columns)} column{'s' * (len(columns) != 1)}"
    return f"a first line of {count}, which no known format begins with"


def _advice(path: Path) -> str:
    beside = path.with_name("features.tsv")
    if path.name == "predictions.tsv" and beside.is_file():
        return f"give {beside.name}, the features, instead"
    return "if it is one of these, name it with --format (docs/formats.md describes them)"
