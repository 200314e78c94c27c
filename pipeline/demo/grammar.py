"""Captions for a scene: a small grammar over what is in it, true to where things are.

A sentence is a template whose slots are phrases, and a phrase knows which of its words are planted
nouns, so each caption comes with the exact place and sense of every noun that it names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from .dealing import Hand
from .layout import Placed
from .phrases import (
    ALOFT,
    BELOW_SKY,
    WORDS_FOR_GROUNDS,
    Mention,
    Phrase,
    article,
    fill,
    ground_phrase,
    joined,
)
from .relations import Thing, apart, between, relations, things
from .stamps import Noun

CAPTIONS = 5
_SMALL, _LARGE = 0.8, 1.2
T = TypeVar("T")


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
        if len(chosen) == 2 and apart(*chosen) and self.rng.random() < 0.15:
            templates = _SIDES
        if len(chosen) == 3 and between(*chosen) and self.rng.random() < 0.5:
            templates = _BETWEEN
        slots = dict(zip("ABCD", (self._noun_phrase(t) for t in chosen), strict=False))
        relation = ""
        if len(chosen) > 1:
            relation = _pick(self.rng, relations(chosen[0], chosen[1], self.hand.horizon))
        return self._say(_pick(self.rng, templates), chosen[0], slots, relation=relation)

    def _in_the_sky(self, aloft: Sequence[Thing]) -> Phrase:
        slots = dict(zip("ABCD", (self._noun_phrase(t) for t in aloft), strict=False))
        named = ("{A}", "{A} and {B}", "{A}, {B} and {C}", "{A}, {B}, {C} and {D}")[len(aloft) - 1]
        pose = aloft[0].stamp.pose
        if pose == "flying" and self.rng.random() < 0.7:
            ground = ground_phrase(BELOW_SKY[self.hand.ground.name], self.tint)
            return fill(named + " flying {G}", {**slots, "G": ground})
        ground = ground_phrase(_pick(self.rng, ALOFT), self.tint)
        return fill(named + " {G}", {**slots, "G": ground})

    def _under_the_sky(self, standing: Sequence[Thing], aloft: Sequence[Thing]) -> Phrase:
        slots = dict(zip("ABC", (self._noun_phrase(t) for t in standing), strict=False))
        high = [self._noun_phrase(t) for t in aloft]
        slots["S"] = joined(high)
        flies = all(t.stamp.pose == "flying" for t in aloft)
        slots["flying"] = Phrase(text="flying" if flies else "")
        slots["aloft"] = ground_phrase(ALOFT[0], "")
        if len(standing) == 1:
            return self._say(_pick(self.rng, _UNDER_SKY), standing[0], slots)
        if len(standing) == 2:
            relation = _pick(self.rng, relations(standing[0], standing[1], self.hand.horizon))
            template = _pick(self.rng, _MANY_UNDER_SKY)
            return self._say(template, standing[0], slots, relation=relation)
        return self._say("{A}, {B} and {C} {G} with {S} {aloft}", standing[0], slots)

    def _say(
        self, template: str, first: Thing, slots: dict[str, Phrase], relation: str = ""
    ) -> Phrase:
        """Fill a template whose first thing on the ground is ``first``."""
        ground = ground_phrase(_pick(self.rng, WORDS_FOR_GROUNDS[self.hand.ground.name]), self.tint)
        if "{B}" in template and self.rng.random() < 0.2:
            template = template.removeprefix("{G}, ").replace(" {G}", "").replace(" {pose}", "")
        words = {
            "G": ground,
            "pose": Phrase(text=self._pose(first)),
            "is": Phrase(text="are" if first.count > 1 else "is"),
            "relation": Phrase(text=relation),
        }
        return fill(template, {**words, **slots})

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


def _finished(sentence: Phrase, rng: np.random.Generator) -> Phrase:
    """Make a sentence of it: sometimes a photo of it, a capital, mostly a full stop."""
    if rng.random() < 0.05 and not re.search(r"\b(is|are)\b", sentence.text):
        frame = _pick(rng, ("a photo of {A}", "a picture of {A}"))
        sentence = fill(frame, {"A": sentence})
    text = sentence.text[0].upper() + sentence.text[1:] + "." * (rng.random() < 0.85)
    return replace(sentence, text=text)


def _pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    return items[int(rng.integers(len(items)))]
