"""Lines of feature files: where each begins, and how one is read in the memory of one."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError

MAX_LINE = 1 << 27  # bytes; a line of 100 regions with all of VinVL's class scores has 4 MB
_READ_AHEAD = 1 << 20
_KEY = 512  # bytes that hold the image id, where a file's .lineidx says where lines begin


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a file.

    Attributes:
        number: from 1. offset: where it begins. size: bytes, with its end.
        text: all of it; only the first bytes where ``lines_of`` was told that the id is enough;
            empty where the line is longer than ``MAX_LINE``.
    """

    number: int
    offset: int
    size: int
    text: bytes

    @property
    def key(self) -> bytes:
        """The first column."""
        return self.text.partition(b"\t")[0].strip()


def lines_of(path: Path, *, ids_only: bool = False) -> Iterator[Line]:
    """Go through a file's lines.

    Args:
        ids_only: the ids are all that is wanted; with a ``.lineidx`` beside the file the rest is
            not even read.
    """
    offsets = read_lineidx(path) if ids_only else None
    yield from _scan(path) if offsets is None else _hop(path, offsets)


def _scan(path: Path) -> Iterator[Line]:
    offset = 0
    with path.open("rb", buffering=_READ_AHEAD) as file:
        for number in range(1, 1 << 62):
            text = file.readline(MAX_LINE)
            if not text:
                return
            size = len(text)
            if size == MAX_LINE and not text.endswith(b"\n"):
                while text and not text.endswith(b"\n"):
                    text = file.readline(MAX_LINE)
                    size += len(text)
                text = b""
            yield Line(number=number, offset=offset, size=size, text=text)
            offset += size


def _hop(path: Path, offsets: list[int]) -> Iterator[Line]:
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        ends = [*offsets[1:], *[path.stat().st_size][: len(offsets)]]  # an empty file has none
        for number, (offset, end) in enumerate(zip(offsets, ends, strict=True), 1):
            before = offset > 0
            text = os.pread(file.fileno(), min(_KEY, end - offset) + before, offset - before)
            if before and text[:1] != b"\n":
                raise _does_not_fit(path, number)
            yield Line(number=number, offset=offset, size=end - offset, text=text[before:])


def read_lineidx(path: Path) -> list[int] | None:
    """Read where lines begin from the ``.lineidx`` beside a file; None when there is none.

    Raises:
        InputError: it is not of this file.
    """
    index = path.with_suffix(".lineidx")
    if not index.is_file():
        return None
    size = path.stat().st_size
    try:
        offsets = [int(line) for line in index.read_text(encoding="ascii").split()]
    except ValueError as error:
        raise _does_not_fit(path, 1) from error
    rising = all(a < b for a, b in itertools.pairwise(offsets))
    if (offsets[:1] != [0] and size) or not rising or (offsets and offsets[-1] >= size):
        raise _does_not_fit(path, 1)
    return offsets


def _does_not_fit(path: Path, number: int) -> InputError:
    index = path.with_suffix(".lineidx")
    found = f"does not say where line {number} of {path.name} begins"
    return InputError(index, found, do="delete it: it is made anew from nothing but the lines")


class LineReader:
    """Reads single lines of a file by place; a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb", buffering=0)

    def __enter__(self) -> LineReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, offset: int, size: int) -> bytes:
        """Read the line at a place, without its end.

        Raises:
            InputError: there is no such line: the file, or its ``.lineidx``, changed.
        """
        parts, got = [], 0
        while got < size and (part := os.pread(self._file.fileno(), size - got, offset + got)):
            parts.append(part)
            got += len(part)
        text = parts[0] if len(parts) == 1 else b"".join(parts)
        end = text.find(b"\n")
        if got != size or (0 <= end < size - 1):
            found = f"no line of {size} bytes at byte {offset}"
            do = "delete its .lineidx, if there is one, and import it with --replace"
            raise InputError(self.path, found, do=do)
        return text.rstrip(b"\r\n")
