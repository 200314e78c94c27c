"""Karpathy's ``dataset_coco.json`` and ``dataset_flickr30k.json``: the splits that all use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..config import Source
from .coco import load_json
from .row import NO_CAPTION, Captioned

_WANTED = "Karpathy's {'images': [{'filename', 'split', 'sentences': [{'raw'}]}]}"


def read_karpathy(path: Path, source: Source) -> Iterator[Captioned]:
    """Read a Karpathy file, in the order of its images and their sentences.

    The image id is COCO's number where there is one (``cocoid``), else the file's name: features of
    the field are keyed so, and so are COCO's own caption files. ``restval`` becomes train.
    """
    for number, image in enumerate(_images(path)):
        cocoid = image.get("cocoid")
        image_id = str(image["filename"] if cocoid is None else cocoid)
        folder = str(image.get("filepath") or "").strip("/")
        name = f"{folder}/{image['filename']}" if folder else str(image["filename"])
        split = str(image.get("split") or "")
        for sentence in image["sentences"]:
            yield Captioned(
                image_id=image_id,
                path=name,
                caption=_text(sentence),
                split=split,
                where=f"{path.name}:sentence {_number(sentence)}",
            )
        if not image["sentences"]:
            where = f"{path.name}:image {number}"
            yield Captioned(
                image_id=image_id, path=name, caption="", where=where, problem=NO_CAPTION
            )


def _images(path: Path) -> list[dict[str, Any]]:
    raw = load_json(path, _WANTED)
    images = raw.get("images") if isinstance(raw, dict) else None
    if not isinstance(images, list):
        raise InputError(path, "no list 'images'", expected=_WANTED)
    for number, image in enumerate(images):
        if (
            not isinstance(image, dict)
            or "filename" not in image
            or not isinstance(image.get("sentences"), list)
        ):
            raise InputError(path, f"images[{number}] is {str(image)[:80]!r}", expected=_WANTED)
    return images


def _text(sentence: Any) -> str:
    """The sentence as it was written; its tokens where only they are there."""
    if not isinstance(sentence, dict):
        return ""
    raw, tokens = sentence.get("raw"), sentence.get("tokens")
    if isinstance(raw, str):
        return raw
    return " ".join(map(str, tokens)) if isinstance(tokens, list) else ""


def _number(sentence: Any) -> Any:
    return sentence.get("sentid", "?") if isinstance(sentence, dict) else "?"
