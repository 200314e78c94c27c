"""Captions to measure with: those that lie beside the repository, else made-up ones."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

PER_IMAGE = 5
SHARED = Path(__file__).parents[2] / "shared/data"
_FLICKR8K = SHARED / "flickr8k/captions_all.tsv"
_WORDS = {
    "noun": "dog, man, woman, boy, girl, child, player, horse, cat, bird, boat, car, bus, truck, "
    "train, bicycle, beach, street, park, field, mountain, tree, table, bench, ball, frisbee, "
    "surfboard, skateboard, umbrella, hat, camera, guitar, pizza, sandwich, bottle, cup, shirt, "
    "tennis court, fire hydrant, traffic light",
    "look": "red, small, old, wooden, wet, young, yellow, large, striped, empty",
    "verb": "stands, sits, runs, waits, rests, jumps, walks, looks up",
    "place": "on, near, beside, behind, in front of, under, next to, away from",
}


def load_captions(count: int) -> tuple[list[str], str]:
    """Take the first captions, ``PER_IMAGE`` an image.

    Returns:
        The captions, and what they are, to be printed.
    """
    if not _FLICKR8K.exists():
        return _made_up(count), "made-up captions (no ../shared/data/flickr8k here)"
    lines = _FLICKR8K.read_text(encoding="utf-8").splitlines()[1 : count + 1]
    if len(lines) < count:
        raise SystemExit(f"{count:,} captions asked for, Flickr8k has {len(lines):,}")
    return [line.split("\t")[2] for line in lines], "captions of Flickr8k"


def all_captions(limit: int | None = None) -> tuple[list[str], str]:
    """Take the distinct captions of all files of ``../shared``, or made-up ones; as above."""
    found = list(dict.fromkeys(shared_captions()))[:limit]
    if not found:
        return _made_up(limit or 10_000), "made-up captions (no ../shared/data here)"
    return found, "distinct captions of COCO, Flickr and Conceptual Captions"


def shared_captions() -> Iterator[str]:
    """Yield the captions of every caption file of ``../shared``."""
    return (caption for _, _, caption in keyed_captions())


def keyed_captions() -> Iterator[tuple[str, str, str]]:
    """Yield (file, key, caption) of every caption file of ``../shared``.

    The key is the line, from 1 and without a header; of COCO's json, ``image:annotation``.
    """
    folder = SHARED / "captions"
    for path in sorted(folder.glob("captions_*.json")):
        for a in json.loads(path.read_text("utf-8"))["annotations"]:
            yield path.name, f"{a['image_id']}:{a['id']}", a["caption"]
    for path in sorted(folder.glob("*_caps*.txt")):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            yield path.name, str(number), line
    for path in sorted(folder.glob("*GCC*.tsv")):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            yield path.name, str(number), line.partition("\t")[0]
    for name, column in (
        ("captions/coco_negclip_valid.tsv", "title"),
        ("flickr8k/captions_all.tsv", "caption"),
    ):
        if (SHARED / name).is_file():
            with (SHARED / name).open(encoding="utf-8", newline="") as file:
                for number, row in enumerate(csv.DictReader(file, delimiter="\t"), 1):
                    yield name.removeprefix("captions/"), str(number), row[column]


def _made_up(count: int) -> list[str]:
    """Sentences of one to five things: as varied in length as people's, poorer in words."""
    rng = np.random.default_rng(0)
    words = {kind: listed.split(", ") for kind, listed in _WORDS.items()}

    def pick(*kinds: str) -> str:
        return " ".join(words[kind][int(rng.integers(len(words[kind])))] for kind in kinds)

    def sentence() -> str:
        more = [pick("place") + " the " + pick("look", "noun") for _ in range(rng.poisson(1.5))]
        return " ".join(["A", pick("look", "noun", "verb"), *more[:4], "."])

    return [sentence() for _ in range(count)]
