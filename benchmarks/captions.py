"""Captions to measure with: Flickr8k's where they lie beside the repository, else made-up ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np

PER_IMAGE = 5
_FLICKR8K = Path(__file__).parents[2] / "shared/data/flickr8k/captions_all.tsv"
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
