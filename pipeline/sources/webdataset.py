"""Web datasets: tars whose members of one key are a sample, as img2dataset writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...features.images import SUFFIXES
from ...features.tars import CUT_SHORT, DAMAGED, Tar
from ..config import Source
from .row import NEVER_DOWNLOADED, Captioned, broken, with_captions

TEXT_BYTES = 1 << 24  # the most that a caption's file may have
Visit = Callable[[str, bytes], None]


@dataclass(slots=True, kw_only=True)
class _Sample:
    """What a tar says of one key: name of the image, caption file, facts; "" and None: nothing."""

    image: str = ""
    text: str | None = None
    facts: dict[str, Any] | None = None
    problem: str = ""


def read_webdataset(path: Path, source: Source, visit: Visit | None = None) -> Iterator[Captioned]:
    """Read the samples of a tar: ``KEY.jpg`` with ``KEY.txt`` or the caption in ``KEY.json``.

    The tar is read once, from its beginning to its end. The image id is the key (or a field of the
    JSON, ``columns.image_id``), the path ``TAR/MEMBER``. The caption is the text file's, a JSON
    list in it being several, or the field ``columns.caption`` of the JSON, where that is named or
    there is no text. A sample without an image was never downloaded.

    Args:
        visit: called with the member's name and bytes of every image, as it passes by.

    Raises:
        InputError: the tar is compressed.
    """
    samples: dict[str, _Sample] = {}
    tar = Tar(path)
    for member in tar.walk():
        key, kind = _kind(member.name)
        problem = member.problem
        if kind in ("text", "json") and member.size > TEXT_BYTES:
            problem = problem or f"member larger than {TEXT_BYTES >> 20} MiB"
        if problem and (kind or problem in (CUT_SHORT, DAMAGED)):
            yield broken(path, f"byte {member.offset}", problem)
        elif kind:
            data = tar.read(member) if visit or kind != "image" else b""
            _take(samples.setdefault(key, _Sample()), kind, member.name, data, visit)
    for key, sample in samples.items():
        yield from _rows(path, source, key, sample)


def _kind(name: str) -> tuple[str, str]:
    """The key of a member, and what it is: image, text, json or "" for anything else."""
    stem, dot, ending = name.rpartition(".")  # a key may have dots itself
    ending = dot + ending.lower()
    kinds = {".txt": "text", ".json": "json"}
    return stem, "image" if ending in SUFFIXES else kinds.get(ending, "")


def _take(sample: _Sample, kind: str, name: str, data: bytes, visit: Visit | None) -> None:
    if kind == "image":
        if not sample.image:  # of two images the first
            sample.image = name
            if visit:
                visit(name, data)
    elif kind == "text":
        sample.text = data.decode("utf-8", "surrogateescape")
    else:
        try:
            facts = json.loads(data.decode("utf-8", "surrogateescape"))
        except ValueError:
            facts = None
        sample.facts = facts if isinstance(facts, dict) else None
        sample.problem = "" if isinstance(facts, dict) else "not valid JSON"


def _rows(path: Path, source: Source, key: str, sample: _Sample) -> Iterator[Captioned]:
    columns, facts = source.columns, sample.facts or {}
    named = "caption" in columns.model_fields_set
    if sample.problem and (sample.text is None or named or columns.image_id or columns.split):
        yield broken(path, key, sample.problem)
        return
    image_id = facts.get(columns.image_id) if columns.image_id else key
    if image_id in (None, ""):
        yield broken(path, key, "no image named")
        return
    row = Captioned(
        image_id=str(image_id),
        path=f"{path.name}/{sample.image}" if sample.image else "",
        caption="",
        where=f"{path.name}:{key}",
        split=str(facts.get(columns.split) or "") if columns.split else "",
        problem="" if sample.image else NEVER_DOWNLOADED,
    )
    if sample.text is not None and not named:
        yield from with_captions(row, _captions(sample.text))
    else:  # none at all is an image that nobody described
        yield from with_captions(row, facts.get(columns.caption, []))


def _captions(text: str) -> str | list[Any]:
    """A caption, or several, where the text is a JSON list of texts."""
    if text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except ValueError:
            return text
        if isinstance(found, list) and all(isinstance(one, str) for one in found):
            return found
    return text
