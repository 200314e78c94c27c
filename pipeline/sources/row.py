"""The one form in which captions arrive from any file, and how its text is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NO_CAPTION = "image without a caption"  # the problem of a row that lists an image, and no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Captioned:
    """One caption of one image, as a source file states it.

    Attributes:
        image_id: the source's name of the image. path: below the source's image folder.
        split: what the file says, "" where it says nothing.
        where: file and line (or record) for messages.
        problem: why the row cannot be used, where the reader already knows; else "".
    """

    image_id: str
    path: str
    caption: str
    split: str = ""
    where: str
    problem: str = ""


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its end); a byte-order mark is dropped.

    Only ``\\n`` and ``\\r\\n`` end a line: a caption may hold any other separator.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            data = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            line = data.rstrip(b"\n").removesuffix(b"\r").decode("utf-8", "surrogateescape")
            if line.strip():
                yield number, line


def broken(path: Path, number: int, problem: str) -> Captioned:
    """A row that could not be read at all."""
    return Captioned(
        image_id="", path="", caption="", where=f"{path.name}:{number}", problem=problem
    )
