"""Flickr8k and Flickr30k: the token file, and the two csv forms people pass around."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..config import Source
from .row import Captioned, broken, numbered_lines


def read_flickr(path: Path, source: Source) -> Iterator[Captioned]:
    """Read ``name.jpg#k<TAB>caption``, ``image,caption`` or ``image_name| number| comment`` lines.

    The comma form is read as Kaggle's Flickr8k has it: everything behind the first comma is the
    caption, quoted or not.
    """
    for number, line in numbered_lines(path):
        if number == 1 and _is_header(line):
            continue
        image, caption = _split(line)
        if not image:
            yield broken(path, number, "not a caption line")
            continue
        yield Captioned(image_id=image, path=image, caption=caption, where=f"{path.name}:{number}")


def _is_header(line: str) -> bool:
    head = line.replace(" ", "").lower()
    return head in ("image,caption", "image_name|comment_number|comment")


def _split(line: str) -> tuple[str, str]:
    """Cut a line into image name and caption; ("", "") where it is neither of the three forms."""
    if "\t" in line:
        key, _, caption = line.partition("\t")
        return key.rpartition("#")[0].strip() or key.strip(), caption.strip()
    if line.count("|") >= 2:
        image, _, caption = line.split("|", 2)
        return image.strip(), caption.strip()
    image, comma, caption = line.partition(",")
    if not comma:
        return "", ""
    caption = caption.strip()
    if len(caption) > 1 and caption[0] == caption[-1] == '"':
        caption = caption[1:-1].replace('""', '"')
    return image.strip(), caption
