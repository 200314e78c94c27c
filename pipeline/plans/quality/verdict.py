"""What a plan's figures say of its use, by what plans like it did where they were tried.

Measured on Flickr8k with frozen encoders and small heads: ten kinds of plan at B = 128, some at 32
and 256, three seeds of most. Random batches had top-1 similarity .48 and mean .08. It guides; it
proves nothing about other data. Everything is read beside random batches of the same size over the
same pairs, as a share of what lies between them and 1: cosines of another encoder, and the top-1 of
larger batches, begin higher and have less far to go.

**Inert.** Plans that gained anything raised top-1 by .11 or more at B = 128 (.22 of the way to 1)
and by more at B = 32. Same-object groups rose by .04, the curriculum of objects by .06, the same
neighbour plans in batches of 256 by .15 of the way: these were not told from random ones. Between
lies little evidence; the line is drawn at ``INERT`` of the way, +.08 beside .48. Phases that
compare images alone are not judged by their captions.

**Topic-pure.** Batches of one k-means cluster hurt badly at a mean of .29, those of the rarest
object at .20; same-object batches at .18 did not yet. The line is drawn there: ``PURE_TIMES``
random's, or ``PURE`` of the way to 1, which comes first where random captions are alike already.
The likeness of pairs that were put into one group on purpose does not count where a batch has
``FEW`` groups or more: small tight groups of many places are not one topic.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

INERT = 0.16
PURE, PURE_TIMES = 0.11, 2.3
FEW = 4
UNSEEN = 0.05  # of all pairs
_LEAST_MEAN = 0.05  # times of a mean near 0 say nothing
_BROAD = 1.1

Figures = Mapping[str, Any]


def judge(
    plan: Figures,
    phases: Sequence[Figures],
    random: Figures,
    random_share: Mapping[str, float],
    by_image: Collection[str] = (),
) -> list[str]:
    """Warn of phases that hurt or did nothing where they were tried, and of pairs never seen.

    Args:
        plan, phases, random: figures as ``quality.json`` has them.
        random_share: by name of a phase, how much of it is random batches anyway.
        by_image: names of phases that compare images alone.
    """
    built = [p for p in phases if "top1" in p and random_share.get(p["name"], 0) < 1]
    found = [*_unseen(plan, random)]
    if "top1" in random:
        found += _pure(built, random)
        by_text = [phase for phase in built if phase["name"] not in by_image]
        found += _inert(by_text, random, random_share)
    return found


def is_pure(figures: Figures, random: Figures) -> bool:
    """Whether a phase's batches are of one topic each."""
    base = random["mean"]
    limit = min(base + PURE * (1 - base), PURE_TIMES * max(base, _LEAST_MEAN))
    mean = "mean_apart" if figures.get("groups", 0) >= FEW else "mean"
    return bool(figures[mean] > limit)


def is_inert(figures: Figures, random: Figures, random_share: float = 0.0) -> bool:
    """Whether a phase's pairs are hardly nearer to each other than random ones.

    Batches that bring clearly more objects together than random ones are after something else.
    """
    if figures.get("objects", 0) > _BROAD * random.get("objects", float("inf")):
        return False
    base = random["top1"]
    return bool(figures["top1"] < base + INERT * (1 - random_share) * (1 - base))


def _pure(phases: Sequence[Figures], random: Figures) -> Iterator[str]:
    if pure := [phase for phase in phases if is_pure(phase, random)]:
        yield (
            f"{_named(pure)}: batches of one topic (mean similarity "
            f"{_listed(pure, 'mean')}, random {random['mean']:.3f}); k-means batches hurt in "
            "the first experiments: mix topics in a batch, and end in random batches"
        )


def _inert(
    phases: Sequence[Figures], random: Figures, random_share: Mapping[str, float]
) -> Iterator[str]:
    inert = [p for p in phases if is_inert(p, random, random_share.get(p["name"], 0))]
    if inert:
        yield (
            f"{_named(inert)}: captions are hardly nearer to each other than in random batches "
            f"(top-1 {_listed(inert, 'top1')}, random {random['top1']:.3f}): expect little of it; "
            "smaller batches, larger groups or a lower skip raise it"
        )


def _unseen(plan: Figures, random: Figures) -> Iterator[str]:
    never = plan["seen_never"]
    share = never / (never + plan["seen_once"] + plan["seen_more"])
    if share <= UNSEEN:
        return
    beside, do = "", "raise epochs or passes"
    if "seen_never" in random:
        beside = f" (of a random plan {random['seen_never']:,})"
        if 2 * random["seen_never"] < never:
            do = "add a random phase, or choose smaller batches"
    yield f"{never:,} pairs ({share:.0%}) are in no batch{beside}: {do}"


def _named(phases: Sequence[Figures]) -> str:
    names = ", ".join(phase["name"] for phase in phases)
    return f"phase{'s' * (len(phases) > 1)} {names}"


def _listed(phases: Sequence[Figures], key: str) -> str:
    return ", ".join(f"{phase[key]:.3f}" for phase in phases)
