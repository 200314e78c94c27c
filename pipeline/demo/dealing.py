"""Which objects share a scene: dealt like cards, thirty scenes at a time.

Every everyday object without a narrower everyday one ("duck", not "bird") is dealt into 4 scenes
of each 30, so into 200 of 1,500; the rest of the hand comes from the long tail. A scene depends on
the seed and its own block of thirty alone: it is the same whatever number of scenes is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from .grounds import GROUNDS, Ground
from .stamps import Stamp, commons

BLOCK = 30
COPIES_PER_BLOCK = 4
# How many kinds of objects: mostly four, because 23 objects x 4 scenes must fit into 30 scenes.
_KINDS = (2,) * 4 + (3,) * 6 + (4,) * 20
_RARE_PER_BLOCK = 7
_MOST_CUTOUTS = 5

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Hand:
    """What one scene is to show.

    Attributes:
        sky: a sky is seen above the horizon, so things may fly.
        stamps, counts: the objects, and how many of each.
    """

    ground: Ground
    kinds: int
    horizon: bool
    sky: bool
    stamps: list[Stamp] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def accepts(self, stamp: Stamp) -> bool:
        """Tell whether the scene has a place for a photograph."""
        return bool(set(stamp.places) & set(self.ground.accepts + "s" * self.sky))

    def shows(self, name: str, stamp: Stamp) -> bool:
        """Tell whether the scene shows a ``name`` already, or what a caption could take for it."""
        return any(name in _names(other) or _kin(stamp, other) for other in self.stamps)

    def welcomes(self, stamp: Stamp) -> bool:
        """Tell whether a photograph fits in and is not there yet."""
        return self.accepts(stamp) and not self.shows(stamp.noun.noun, stamp)

    @property
    def free(self) -> int:
        """How many kinds it still lacks."""
        return self.kinds - len(self.stamps)


class Dealer:
    """Deals blocks of thirty scenes from a set of photographs."""

    def __init__(self, stamps: Sequence[Stamp]) -> None:
        everyday = commons(stamps)
        wider = {n.noun for s in stamps for i, n in enumerate(s.names) if _any_common(s, i)}
        self.dealt = [name for name in everyday if name not in wider]
        self._of = {n: [s for s in stamps if n in _names(s)] for n in self.dealt}
        tail = [s for s in stamps if not set(_names(s)) & set(self.dealt)]
        self._tail = _by_noun(tail or stamps)
        self._all = _by_noun(stamps)

    def block(self, seed: int, number: int) -> list[Hand]:
        """Deal the thirty scenes of one block."""
        rng = np.random.default_rng([seed, 0, number])
        hands = _empty_hands(rng)
        cards = [name for name in self.dealt for _ in range(COPIES_PER_BLOCK)]
        chosen = [_pick(rng, self._of[name]) for name in cards]
        rare = self._rare(seed, number, rng)
        cards += [stamp.noun.noun for stamp in rare]
        chosen += rare
        fits = [sum(hand.accepts(stamp) for hand in hands) for stamp in chosen]
        for card in np.lexsort((rng.random(len(cards)), np.array(fits))):
            self._deal(hands, cards[card], chosen[card], rng)
        for hand in hands:
            self._fill(hand, rng)
            hand.counts = _counts(hand.stamps, rng)
        return hands

    def _deal(self, hands: list[Hand], name: str, stamp: Stamp, rng: np.random.Generator) -> None:
        others = self._of.get(name, [])
        for candidate in (stamp, *(others[i] for i in rng.permutation(len(others)))):
            open_hands = [h for h in hands if h.free and not h.shows(name, candidate)]
            fitting = [h for h in open_hands if h.accepts(candidate)]
            if fitting:
                _freest(fitting, rng).stamps.append(candidate)
                return
        grounded = [h for h in open_hands if h.ground.name not in ("sky", "water")] or open_hands
        if name in self._of and grounded:  # an odd place rather than too few of an everyday object
            _freest(grounded, rng).stamps.append(stamp)

    def _rare(self, seed: int, number: int, rng: np.random.Generator) -> list[Stamp]:
        """Take the next rare nouns in turn, in one order for all blocks: none is forgotten."""
        order = np.random.default_rng([seed, 1]).permutation(len(self._tail))
        turns = range(number * _RARE_PER_BLOCK, (number + 1) * _RARE_PER_BLOCK)
        return [_pick(rng, self._tail[order[turn % len(order)]]) for turn in turns]

    def _fill(self, hand: Hand, rng: np.random.Generator) -> None:
        for source in (self._tail, self._all):
            while hand.free:
                allowed = [[s for s in of_noun if hand.welcomes(s)] for of_noun in source]
                usable = [stamps for stamps in allowed if stamps]
                if not usable:
                    break
                hand.stamps.append(_pick(rng, _pick(rng, usable)))
        while len(hand.stamps) < 2:  # few photographs: an odd place rather than a lonely object
            new = [s for of_noun in self._all for s in of_noun if not hand.shows(s.noun.noun, s)]
            if not new:
                return
            hand.stamps.append(_pick(rng, new))


def _empty_hands(rng: np.random.Generator) -> list[Hand]:
    grounds = [ground for ground in GROUNDS.values() for _ in range(ground.share)]
    hands = []
    for place, kinds in zip(rng.permutation(BLOCK), rng.permutation(_KINDS), strict=True):
        ground = grounds[place]
        outdoors = ground.backdrop in ("sky", "sea")
        horizon = bool(ground.backdrop) and rng.random() < (0.88 if outdoors else 0.65)
        horizon = horizon or ground.backdrop == "brick"
        kinds = min(int(kinds), 3) if ground.name == "sky" else int(kinds)
        sky = horizon and outdoors
        hands.append(Hand(ground=ground, kinds=kinds, horizon=horizon, sky=sky))
    return hands


def _counts(stamps: Sequence[Stamp], rng: np.random.Generator) -> list[int]:
    counts, left = [], _MOST_CUTOUTS - len(stamps)
    for stamp in stamps:
        draw, countable = rng.random(), not stamp.noun.counter
        more = min(left, 2 if draw < 0.08 and stamp.size != "huge" else 1 if draw < 0.25 else 0)
        counts.append(1 + more * countable)
        left -= more * countable
    return counts


def _freest(hands: list[Hand], rng: np.random.Generator) -> Hand:
    # What can swim or fly leaves the dry land to what cannot.
    ranks = [(hand.ground.name in ("water", "sky"), hand.free) for hand in hands]
    return _pick(rng, [hand for hand, rank in zip(hands, ranks, strict=True) if rank == max(ranks)])


def _pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    return items[int(rng.integers(len(items)))]


def _names(stamp: Stamp) -> list[str]:
    return [noun.noun for noun in stamp.names]


def _any_common(stamp: Stamp, wide: int) -> bool:
    return any(noun.common for noun in stamp.names[:wide])


def _kin(one: Stamp, other: Stamp) -> bool:
    """Tell whether the noun of one photograph names the other as well."""
    words = set(_names(one)[:1]), set(_names(other)[:1])
    return bool(words[0] & set(_names(other)) or words[1] & set(_names(one)))


def _by_noun(stamps: Sequence[Stamp]) -> list[list[Stamp]]:
    nouns = dict.fromkeys(stamp.noun.noun for stamp in stamps)
    return [[s for s in stamps if s.noun.noun == noun] for noun in nouns]
