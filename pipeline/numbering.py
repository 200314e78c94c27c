"""Numbers are given once: images and captions that were there keep theirs, new ones are appended.

What left its source, or is rejected now, is *withdrawn*: its row stays for the number's sake, an
image without a file, a pair in no split. When it comes back it is active again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from .dataset import IMAGES_SCHEMA, PAIRS_SCHEMA, caption_hash

Row = Mapping[str, Any]
_NO_FILE = {"path": "", "width": 0, "height": 0, "bytes": 0, "content_hash": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A caption that was accepted; ``position`` counts all captions of its image, from 0."""

    image_id: str
    image: int
    position: int
    text: str
    split: str


def number_images(old: Iterable[Row], probed: Iterable[Row]) -> pa.Table:
    """Number images; rows of ``old`` that were not probed are withdrawn."""
    rows = {row["image_id"]: row for row in probed}
    numbered = [rows.pop(row["image_id"], {**row, **_NO_FILE}) for row in old]
    numbered += rows.values()
    return pa.Table.from_pylist(
        [{**row, "image": number} for number, row in enumerate(numbered)], schema=IMAGES_SCHEMA
    )


def number_pairs(
    old: Iterable[Row], captions: Sequence[Caption], refused: Mapping[str, set[int]]
) -> pa.Table:
    """Number pairs; rows of ``old`` that no caption matches are withdrawn.

    Args:
        captions: in source order. refused: positions of an image's rejected captions.
    """
    rows = {row["pair_key"]: {**row, "split": ""} for row in old}
    for caption, key in zip(captions, _keys(rows.values(), captions, refused), strict=True):
        rows[key] = {
            "pair_key": key,
            "image": caption.image,
            "caption": caption.text,
            "split": caption.split,
            "caption_hash": caption_hash(caption.text),
        }
    for number, row in enumerate(rows.values()):
        row["pair"] = number
    return pa.Table.from_pylist(list(rows.values()), schema=PAIRS_SCHEMA)


def _keys(
    old: Iterable[Row], captions: Sequence[Caption], refused: Mapping[str, set[int]]
) -> list[str]:
    """The pair key of every caption."""
    known: dict[str, dict[int, str]] = {}
    for row in old:
        image_id, _, k = row["pair_key"].rpartition("#")
        known.setdefault(image_id, {})[int(k)] = row["caption"]
    said: dict[str, dict[int, str]] = {}
    for caption in captions:
        said.setdefault(caption.image_id, {})[caption.position] = caption.text
    keys = {
        image_id: assign_keys(known.get(image_id, {}), texts, refused.get(image_id, set()))
        for image_id, texts in said.items()
    }
    return [f"{c.image_id}#{keys[c.image_id][c.position]}" for c in captions]


def assign_keys(
    known: Mapping[int, str], said: Mapping[int, str], refused: Iterable[int] = ()
) -> dict[int, int]:
    """Match an image's captions with its rows, so that no caption takes another one's number.

    First by text in place, then by text anywhere; what is left is an edited caption where the row
    of its position is free, else a new one.

    Args:
        known: k -> text of the rows there are. said: position -> text, no text twice.
        refused: positions of rejected captions, which no new caption is named after.

    Returns:
        position -> k.

    >>> assign_keys({0: "a", 1: "b", 2: "c"}, {0: "a", 1: "c", 2: "d"})
    {0: 0, 1: 2, 2: 3}
    """
    keys = {position: position for position, text in said.items() if known.get(position) == text}
    free = {k: text for k, text in known.items() if k not in keys}
    k_of = {text: k for k, text in free.items()}
    for position, text in said.items():
        if position not in keys and text in k_of:
            keys[position] = k_of[text]
            del free[k_of[text]]
    used = {*known, *refused}
    for position in said:
        if position in keys:
            continue
        if position in free or position not in used:
            keys[position] = position
            free.pop(position, None)
        else:
            keys[position] = next(k for k in itertools.count() if k not in used)
        used.add(keys[position])
    return keys
