"""COCO's ``captions_*.json``: images and annotations joined by image id."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..config import Source
from .row import NO_CAPTION, Captioned


def read_coco(path: Path, source: Source) -> Iterator[Captioned]:
    """Read a COCO caption file, in the order of its annotations.

    The image id is COCO's number as text. An annotation of an image the file does not list, an
    image id listed twice with different files, and (at the end) an image without an annotation are
    rows with a problem.
    """
    raw = load_coco(path)
    files: dict[str, str] = {}
    ambiguous = set()
    for image in raw["images"]:
        image_id, name = str(image["id"]), str(image["file_name"])
        if files.setdefault(image_id, name) != name:
            ambiguous.add(image_id)
    alone = dict(files)
    for note in raw["annotations"]:
        image_id = str(note["image_id"])
        problem = ""
        alone.pop(image_id, None)
        if image_id not in files:
            problem = "image not listed"
        elif image_id in ambiguous:
            problem = "image id listed twice"
        yield Captioned(
            image_id=image_id,
            path=files.get(image_id, ""),
            caption=note["caption"] if isinstance(note["caption"], str) else "",
            where=f"{path.name}:annotation {note.get('id', '?')}",
            problem=problem,
        )
    for image_id, name in alone.items():
        where = f"{path.name}:image {image_id}"
        yield Captioned(image_id=image_id, path=name, caption="", where=where, problem=NO_CAPTION)


def load_json(path: Path, wanted: str) -> Any:
    """Read a JSON file that people gave us.

    Raises:
        InputError: it is not JSON; the message says what was ``wanted``.
    """
    text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"not valid JSON ({error})", expected=wanted) from error


def load_coco(path: Path) -> dict[str, Any]:
    """Read a COCO caption file whole, its lists checked.

    Raises:
        InputError: it is something else.
    """
    wanted = (
        "COCO captions: {'images': [{'id', 'file_name'}], 'annotations': [{'image_id', 'caption'}]}"
    )
    raw: dict[str, Any] = load_json(path, wanted)
    needed = {"images": ("id", "file_name"), "annotations": ("image_id", "caption")}
    for key, fields in needed.items():
        rows = raw.get(key) if isinstance(raw, dict) else None
        if not isinstance(rows, list):
            found = f"no list {key!r}" if isinstance(raw, dict) else f"a JSON {type(raw).__name__}"
            raise InputError(path, found, expected=wanted)
        for number, row in enumerate(rows):
            if not isinstance(row, dict) or any(f not in row for f in fields):
                raise InputError(path, f"{key}[{number}] is {str(row)[:80]!r}", expected=wanted)
    return raw
