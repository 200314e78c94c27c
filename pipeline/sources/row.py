"""The one form in which captions arrive from any file, and how its text is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

NO_CAPTION = "image without a caption"  # the problem of a row that lists an image, and no more
NEVER_DOWNLOADED = "image was never downloaded"  # of a row whose source says so


class Captioned(NamedTuple):
    """One caption of one image, as a source file states it; a tuple, for there may be millions.

    Attributes:
        image_id: the source's name of the image. path: below the source's image folder.
        where: file and line (or record) for messages.
        split: what the file says, "" where it says nothing.
        problem: why the row cannot be used, where the reader already knows; else "".
        optional: the source lists what was to be downloaded; the image may well be absent.
    """

    image_id: str
    path: str
    caption: str
    where: str
    split: str = ""
    problem: str = ""
    optional: bool = False


def numbered_lines(path: Path, *, blank: bool = False) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its end); a byte-order mark is dropped.

    Only ``\\n`` and ``\\r\\n`` end a line: a caption may hold any other separator.

    Args:
        blank: lines of nothing but spaces are wanted too.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            data = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            line = data.rstrip(b"\n").removesuffix(b"\r").decode("utf-8", "surrogateescape")
            if blank or line.strip():
                yield number, line


def broken(path: Path, number: int | str, problem: str) -> Captioned:
    """A row that could not be read at all."""
    return Captioned(
        image_id="", path="", caption="", where=f"{path.name}:{number}", problem=problem
    )


def with_captions(row: Captioned, captions: Any) -> Iterator[Captioned]:
    """A row for each caption of a text or a list of texts; what is no text is an empty caption."""
    if isinstance(captions, list) and not captions:
        yield row._replace(problem=row.problem or NO_CAPTION)
        return
    for caption in captions if isinstance(captions, list) else [captions]:
        yield row._replace(caption=caption if isinstance(caption, str) else "")
