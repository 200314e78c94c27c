"""Captions for a scene: a small grammar over what is in it, true to where things are.

A sentence is a template whose slots are phrases, and a phrase knows which of its words are planted
nouns, so each caption comes with the exact place and sense of every noun that it names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from .dealing import Hand
from .layout import Placed
from .stamps import Noun, Stamp

CAPTIONS = 5
_SMALL, _LARGE = 0.8, 1.2
T = TypeVar("T")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """An object as a sentence sees it: what it is, how many, where, how large for its kind."""

    index: int
    stamp: Stamp
    count: int
    box: tuple[int, int, int, int]
    scale: float
    in_sky: bool


# (template, noun, sense): the noun of a ground is marked by {noun}, its colour by {tint}.
_GROUNDS: dict[str, tuple[tuple[str, str, str], ...]] = {
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
_ALOFT = _GROUNDS["sky"]
_BELOW_SKY = {
    "grass": ("over a grassy {noun}", "field", "field.n.01"),
    "sand": ("over the {noun}", "beach", "beach.n.01"),
    "snow": ("over a snowy {noun}", "field", "field.n.01"),
    "road": ("over the {noun}", "road", "road.n.01"),
    "dirt": ("over the bare {noun}", "ground", "land.n.04"),
    "water": ("over the {noun}", "water", "body_of_water.n.01"),
}
_SINGLE = ("{A} {G}", "{A} {G}", "{A} {pose} {G}", "{A} {pose} {G}", "there {is} {A} {G}")
_PAIR = (
    "{A} {relation} {B} {G}",
    "{A} {relation} {B}",
    "{A} {is} {relation} {B}",
    "{A} {pose} {relation} {B} {G}",
    "there {is} {A} {relation} {B} {G}",
    "{G}, {A} {is} {relation} {B}",
    "{A} and {B} {G}",
    "{A} {G} with {B}",
    "{A} {pose} {G} {relation} {B}",
)
_SIDES = ("{A} on the left and {B} on the right", "{A} {G} on the left, {B} on the right")
_MANY = (
    "{A}, {B} and {C} {G}",
    "{A} {G} with {B} and {C}",
    "{A} and {B} {G} with {C}",
    "{A} {pose} {G} with {B} and {C}",
    "{A} {relation} {B}, with {C} nearby",
    "{A} {relation} {B} and {C} {G}",
)
_BETWEEN = ("{A} between {B} and {C} {G}", "{A} {is} between {B} and {C}")
_ALL = (
    "{A}, {B}, {C} and {D} {G}",
    "{A} and {B} {G}, with {C} and {D}",
    "{A} {relation} {B}, and {C} with {D} {G}",
)
_UNDER_SKY = (
    "{S} {flying} above {A}",
    "{S} {aloft} above {A} {G}",
    "{A} {G} below {S}",
    "{A} {pose} {G} under {S}",
    "{A} {G} with {S} {aloft}",
    "{S} {flying} over {A} {G}",
)
_MANY_UNDER_SKY = (
    "{A} and {B} {G} with {S} {aloft}",
    "{A} {relation} {B} {G}, below {S}",
    "{S} {flying} over {A} and {B}",
)


def captions(
    hand: Hand, placed: Sequence[Placed], tint: str, rng: np.random.Generator
) -> list[Phrase]:
    """Write five different captions of a scene; each object is named by two of them or more.

    Args:
        placed: every cut-out of the scene.
        tint: the colour of the ground, or nothing.
    """
    writer = _Writer(hand, things(hand, placed), tint, rng)
    written: dict[str, Phrase] = {}
    for subset in _subsets(len(hand.stamps), rng):
        while len(written) < CAPTIONS:
            caption = writer.caption(subset)
            if caption.text not in written:
                written[caption.text] = caption
                break
    return list(written.values())


def things(hand: Hand, placed: Sequence[Placed]) -> list[Thing]:
    """Gather the cut-outs of each object into one thing with the box around all of them."""
    gathered = []
    for index, (stamp, count) in enumerate(zip(hand.stamps, hand.counts, strict=True)):
        own = [p for p in placed if p.object == index]
        boxes = np.array([p.box_xyxy for p in own])
        x1, y1, x2, y2 = (int(v) for v in (*boxes[:, :2].min(0), *boxes[:, 2:].max(0)))
        scale, in_sky = float(np.mean([p.scale for p in own])), own[0].in_sky
        gathered.append(
            Thing(
                index=index,
                stamp=stamp,
                count=count,
                box=(x1, y1, x2, y2),
                scale=scale,
                in_sky=in_sky,
            )
        )
    return gathered


def _subsets(count: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Choose which objects each caption names, in speaking order."""
    plans = {
        1: ((0,),) * CAPTIONS,
        2: ((0, 1), (0,), (1, 0), (1,), (0, 1)),
        3: ((0, 1), (1, 2), (2,), (2, 0, 1), (0, 2)),
        4: ((0, 1), (2, 3), (1, 2), (3, 0, 1), (2, 0, 3, 1)),
    }
    names = rng.permutation(count)
    order = rng.permutation(CAPTIONS)
    return [tuple(int(names[i]) for i in plans[count][place]) for place in order]


class _Writer:
    """Writes captions of one scene."""

    def __init__(
        self, hand: Hand, scene: Sequence[Thing], tint: str, rng: np.random.Generator
    ) -> None:
        self.hand, self.scene, self.tint, self.rng = hand, scene, tint, rng

    def caption(self, subset: Sequence[int]) -> Phrase:
        """Write one caption that names these objects."""
        chosen = [self.scene[i] for i in subset]
        aloft = [t for t in chosen if t.in_sky and self.hand.ground.name != "sky"]
        standing = [t for t in chosen if t not in aloft]
        if not aloft:
            sentence = self._on_the_ground(standing)
        elif not standing:
            sentence = self._in_the_sky(aloft)
        else:
            sentence = self._under_the_sky(standing, aloft)
        return _finished(sentence, self.rng)

    def _on_the_ground(self, chosen: Sequence[Thing]) -> Phrase:
        templates: Sequence[str] = (_SINGLE, _PAIR, _MANY, _ALL)[len(chosen) - 1]
        if len(chosen) == 2 and _apart(*chosen) and self.rng.random() < 0.15:
            templates = _SIDES
        if len(chosen) == 3 and _between(*chosen) and self.rng.random() < 0.5:
            templates = _BETWEEN
        slots = dict(zip("ABCD", (self._noun_phrase(t) for t in chosen), strict=False))
        relation = ""
        if len(chosen) > 1:
            relation = _pick(self.rng, _relations(chosen[0], chosen[1], self.hand.horizon))
        return self._say(_pick(self.rng, templates), chosen[0], slots, relation=relation)

    def _in_the_sky(self, aloft: Sequence[Thing]) -> Phrase:
        slots = dict(zip("ABCD", (self._noun_phrase(t) for t in aloft), strict=False))
        named = ("{A}", "{A} and {B}", "{A}, {B} and {C}", "{A}, {B}, {C} and {D}")[len(aloft) - 1]
        pose = aloft[0].stamp.pose
        if pose == "flying" and self.rng.random() < 0.7:
            ground = _ground_phrase(_BELOW_SKY[self.hand.ground.name], self.tint)
            return _fill(named + " flying {G}", {**slots, "G": ground})
        ground = _ground_phrase(_pick(self.rng, _ALOFT), self.tint)
        return _fill(named + " {G}", {**slots, "G": ground})

    def _under_the_sky(self, standing: Sequence[Thing], aloft: Sequence[Thing]) -> Phrase:
        slots = dict(zip("ABC", (self._noun_phrase(t) for t in standing), strict=False))
        high = [self._noun_phrase(t) for t in aloft]
        slots["S"] = _joined(high)
        flies = all(t.stamp.pose == "flying" for t in aloft)
        slots["flying"] = Phrase(text="flying" if flies else "")
        slots["aloft"] = _ground_phrase(_ALOFT[0], "")
        if len(standing) == 1:
            return self._say(_pick(self.rng, _UNDER_SKY), standing[0], slots)
        if len(standing) == 2:
            relation = _pick(self.rng, _relations(standing[0], standing[1], self.hand.horizon))
            template = _pick(self.rng, _MANY_UNDER_SKY)
            return self._say(template, standing[0], slots, relation=relation)
        return self._say("{A}, {B} and {C} {G} with {S} {aloft}", standing[0], slots)

    def _say(
        self, template: str, first: Thing, slots: dict[str, Phrase], relation: str = ""
    ) -> Phrase:
        """Fill a template whose first thing on the ground is ``first``."""
        ground = _ground_phrase(_pick(self.rng, _GROUNDS[self.hand.ground.name]), self.tint)
        if "{B}" in template and self.rng.random() < 0.2:
            template = template.removeprefix("{G}, ").replace(" {G}", "").replace(" {pose}", "")
        words = {
            "G": ground,
            "pose": Phrase(text=self._pose(first)),
            "is": Phrase(text="are" if first.count > 1 else "is"),
            "relation": Phrase(text=relation),
        }
        return _fill(template, {**words, **slots})

    def _pose(self, thing: Thing) -> str:
        pose, ground = thing.stamp.pose, self.hand.ground.name
        if ground == "water":
            swims = thing.stamp.noun.noun in ("duck", "goose", "penguin", "otter", "beaver")
            return (
                "swimming" if swims else pose if pose in ("swimming", "floating", "jumping") else ""
            )
        if pose in ("swimming", "floating", "jumping") and ground != "sky":
            return ""
        if pose == "grazing" and ground != "grass":
            return "standing"
        if not pose and ground in ("table", "tablecloth", "floor", "carpet", "tiles"):
            return _pick(self.rng, ("sitting", "lying", "", ""))
        return pose

    def _fits(self, wider: Noun, thing: Thing) -> bool:
        """Tell whether a wider noun would be understood: nothing else in the scene is called so."""
        others = [t for t in self.scene if t is not thing]
        unclear = any(wider in other.stamp.names for other in others)
        return not unclear and not (wider.counter and thing.count > 1)

    def _noun_phrase(self, thing: Thing) -> Phrase:
        """Name a thing: how many, how large for its kind, what it is like, what it is."""
        rng, noun = self.rng, thing.stamp.noun
        wider = [n for n in thing.stamp.names[1:] if self._fits(n, thing)]
        if wider and not noun.counter:
            chosen = wider[0] if rng.random() < 0.7 else _pick(rng, wider)
            noun = chosen if rng.random() < (0.3 if chosen.general else 0.12) else noun
        words = []
        own = noun is thing.stamp.noun
        if not noun.counter and rng.random() < 0.6:
            words += ["small"] * (thing.scale < _SMALL) + ["large"] * (thing.scale > _LARGE)
        if own and thing.stamp.modifier and rng.random() < 0.5:
            words.append(thing.stamp.modifier)
        plural = thing.count > 1 or bool(noun.counter and noun.counter != "a piece of")
        surface = noun.plural if plural else noun.noun
        before = " ".join(
            [_determiner(noun, thing.count, " ".join([*words, surface]), rng), *words]
        )
        start = len(before) + 1
        mention = Mention(
            start=start,
            end=start + len(surface),
            noun=noun.noun,
            synset=noun.synset,
            object=thing.index,
        )
        return Phrase(text=f"{before} {surface}", mentions=(mention,))


def _determiner(noun: Noun, count: int, rest: str, rng: np.random.Generator) -> str:
    if count == 1:
        return noun.counter or article(rest)
    if count == 2:
        return _pick(rng, ("two", "two", "two", "two", "a pair of", "a couple of"))
    return _pick(rng, ("three", "three", "three", "several", "a group of"))


def article(words: str) -> str:
    """Choose "a" or "an" by the sound that follows.

    >>> article("owl"), article("European bear"), article("one-humped camel")
    ('an', 'a', 'a')
    """
    silent = re.match(r"(?i)(hour|honest|heir)", words)
    vowel = re.match(r"(?i)[aeiou]", words) and not re.match(r"(?i)(eu|uni|use|one|u[ks]\b)", words)
    return "an" if vowel or silent else "a"


def _relations(a: Thing, b: Thing, horizon: bool) -> list[str]:
    """List what can truthfully stand between ``a`` and ``b``."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.box, b.box
    width, height = min(ax2 - ax1, bx2 - bx1), min(ay2 - ay1, by2 - by1)
    across, down = min(ax2, bx2) - max(ax1, bx1), min(ay2, by2) - max(ay1, by1)
    near = max(-across, -down) < 0.8 * max(width, height)
    found = []
    if across < 0.15 * width:  # side by side
        side = "left" if ax1 < bx1 else "right"
        found += [f"to the {side} of", f"on the {side} of"]
        if near and down > 0.3 * height:
            found += ["next to", "beside"]
    if down < 0.15 * height and across > 0.25 * width:  # one over the other
        higher = ay1 < by1
        if horizon:
            found += ["behind"] if higher else ["in front of"]
        else:
            found += ["above"] if higher else ["below"]
    elif horizon and across > 0.25 * width and abs(ay2 - by2) > 0.2 * height:
        found += ["behind"] if ay2 < by2 else ["in front of"]
    if near:
        found.append("near")
    return found or ["and"]


def _apart(a: Thing, b: Thing) -> bool:
    """Tell whether ``a`` is left of ``b`` with nothing shared."""
    return a.box[2] <= b.box[0]


def _between(a: Thing, b: Thing, c: Thing) -> bool:
    """Tell whether ``a`` stands between the other two, in about one row with them."""
    left, right = (b, c) if b.box[0] < c.box[0] else (c, b)
    if not (left.box[2] <= a.box[0] and a.box[2] <= right.box[0]):
        return False
    return all(min(a.box[3], t.box[3]) - max(a.box[1], t.box[1]) > 0 for t in (b, c))


def _ground_phrase(choice: tuple[str, str, str], tint: str) -> Phrase:
    template, noun, synset = choice
    text = re.sub(r" +", " ", template.replace("{tint}", tint))
    start = text.index("{noun}")
    mention = Mention(start=start, end=start + len(noun), noun=noun, synset=synset, object=-1)
    return Phrase(text=text.replace("{noun}", noun), mentions=(mention,))


def _fill(template: str, slots: dict[str, Phrase]) -> Phrase:
    """Put phrases into the slots of a template; an empty one takes the space before it along.

    >>> _fill("{A} {pose} here", {"A": Phrase(text="a dog"), "pose": Phrase(text="")}).text
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


def _joined(phrases: Sequence[Phrase]) -> Phrase:
    """Join phrases with "and"."""
    template = " and ".join(f"{{{i}}}" for i in range(len(phrases)))
    return _fill(template, {str(i): phrase for i, phrase in enumerate(phrases)})


def _finished(sentence: Phrase, rng: np.random.Generator) -> Phrase:
    """Make a sentence of it: sometimes a photo of it, a capital, mostly a full stop."""
    if rng.random() < 0.05 and not re.search(r"\b(is|are)\b", sentence.text):
        frame = _pick(rng, ("a photo of {A}", "a picture of {A}"))
        sentence = _fill(frame, {"A": sentence})
    text = sentence.text[0].upper() + sentence.text[1:] + "." * (rng.random() < 0.85)
    return replace(sentence, text=text)


def _pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    return items[int(rng.integers(len(items)))]
