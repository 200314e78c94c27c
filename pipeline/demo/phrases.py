"""Phrases: text that knows which of its words are planted nouns, and templates that they fill."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """A planted noun in a caption.

    Attributes:
        start, end: its characters in the caption: the whole compound, without adjectives.
        noun: its singular.
        object: the index of the object it names; -1 for what the objects stand on.
    """

    start: int
    end: int
    noun: str
    synset: str
    object: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """A piece of text and the nouns planted in it."""

    text: str
    mentions: tuple[Mention, ...] = ()


# (template, noun, sense): the noun of a ground is marked by {noun}, its colour by {tint}.
WORDS_FOR_GROUNDS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "grass": (
        ("on the {noun}", "grass", "grass.n.01"),
        ("in the {noun}", "grass", "grass.n.01"),
        ("in a grassy {noun}", "field", "field.n.01"),
        ("on a green {noun}", "lawn", "lawn.n.01"),
    ),
    "sand": (
        ("on the {noun}", "sand", "sand.n.01"),
        ("on the {noun}", "beach", "beach.n.01"),
        ("on a sandy {noun}", "beach", "beach.n.01"),
    ),
    "snow": (
        ("in the {noun}", "snow", "snow.n.02"),
        ("on the {noun}", "snow", "snow.n.02"),
        ("in a snowy {noun}", "field", "field.n.01"),
    ),
    "road": (
        ("on the {noun}", "road", "road.n.01"),
        ("on a paved {noun}", "road", "road.n.01"),
        ("on a {noun}", "street", "street.n.01"),
        ("in the {noun}", "street", "street.n.01"),
    ),
    "dirt": (
        ("on the {noun}", "dirt", "soil.n.02"),
        ("on the bare {noun}", "ground", "land.n.04"),
        ("in a brown {noun}", "field", "field.n.01"),
    ),
    "water": (
        ("in the {noun}", "water", "body_of_water.n.01"),
        ("on the {noun}", "water", "body_of_water.n.01"),
        ("on a blue {noun}", "lake", "lake.n.01"),
        ("in the {noun}", "sea", "sea.n.01"),
    ),
    "table": (
        ("on a wooden {noun}", "table", "table.n.02"),
        ("on the {noun}", "table", "table.n.02"),
        ("on a brown {noun}", "table", "table.n.02"),
    ),
    "tablecloth": (
        ("on a {tint} checkered {noun}", "tablecloth", "tablecloth.n.01"),
        ("on a checkered {noun}", "tablecloth", "tablecloth.n.01"),
        ("on a {tint} and white {noun}", "tablecloth", "tablecloth.n.01"),
    ),
    "floor": (
        ("on a wooden {noun}", "floor", "floor.n.01"),
        ("on the {noun}", "floor", "floor.n.01"),
        ("on the wooden {noun}", "floor", "floor.n.01"),
    ),
    "tiles": (
        ("on a tiled {noun}", "floor", "floor.n.01"),
        ("on a checkered {noun}", "floor", "floor.n.01"),
    ),
    "carpet": (
        ("on a {tint} {noun}", "carpet", "rug.n.01"),
        ("on a {tint} {noun}", "rug", "rug.n.01"),
        ("on the {noun}", "carpet", "rug.n.01"),
    ),
    "wall": (
        ("in front of a brick {noun}", "wall", "wall.n.01"),
        ("near a red brick {noun}", "wall", "wall.n.01"),
        ("by a brick {noun}", "wall", "wall.n.01"),
    ),
    "sky": (
        ("in the {noun}", "sky", "sky.n.01"),
        ("in a blue {noun}", "sky", "sky.n.01"),
        ("up in the {noun}", "sky", "sky.n.01"),
    ),
}
ALOFT = WORDS_FOR_GROUNDS["sky"]
BELOW_SKY = {
    "grass": ("over a grassy {noun}", "field", "field.n.01"),
    "sand": ("over the {noun}", "beach", "beach.n.01"),
    "snow": ("over a snowy {noun}", "field", "field.n.01"),
    "road": ("over the {noun}", "road", "road.n.01"),
    "dirt": ("over the bare {noun}", "ground", "land.n.04"),
    "water": ("over the {noun}", "water", "body_of_water.n.01"),
}


def article(words: str) -> str:
    """Choose "a" or "an" by the sound that follows.

    >>> article("owl"), article("European bear"), article("one-humped camel")
    ('an', 'a', 'a')
    """
    silent = re.match(r"(?i)(hour|honest|heir)", words)
    vowel = re.match(r"(?i)[aeiou]", words) and not re.match(r"(?i)(eu|uni|use|one|u[ks]\b)", words)
    return "an" if vowel or silent else "a"


def ground_phrase(choice: tuple[str, str, str], tint: str) -> Phrase:
    template, noun, synset = choice
    text = re.sub(r" +", " ", template.replace("{tint}", tint))
    start = text.index("{noun}")
    mention = Mention(start=start, end=start + len(noun), noun=noun, synset=synset, object=-1)
    return Phrase(text=text.replace("{noun}", noun), mentions=(mention,))


def fill(template: str, slots: dict[str, Phrase]) -> Phrase:
    """Put phrases into the slots of a template; an empty one takes the space before it along.

    >>> fill("{A} {pose} here", {"A": Phrase(text="a dog"), "pose": Phrase(text="")}).text
    'a dog here'
    """
    text, mentions = "", []
    for literal, slot in _pieces(template):
        text += literal
        if slot is None:
            continue
        phrase = slots[slot]
        if not phrase.text:
            text = text.removesuffix(" ")
        mentions += [
            replace(m, start=m.start + len(text), end=m.end + len(text)) for m in phrase.mentions
        ]
        text += phrase.text
    return Phrase(text=text, mentions=tuple(mentions))


def _pieces(template: str) -> Iterator[tuple[str, str | None]]:
    parts = re.split(r"\{(\w+)\}", template)
    for i in range(0, len(parts), 2):
        yield parts[i], parts[i + 1] if i + 1 < len(parts) else None


def joined(phrases: Sequence[Phrase]) -> Phrase:
    """Join phrases with "and"."""
    template = " and ".join(f"{{{i}}}" for i in range(len(phrases)))
    return fill(template, {str(i): phrase for i, phrase in enumerate(phrases)})
