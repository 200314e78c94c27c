"""What can truthfully be said about where the objects of a scene are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .dealing import Hand
from .layout import Placed
from .stamps import Stamp


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """An object as a sentence sees it: what it is, how many, where, how large for its kind."""

    index: int
    stamp: Stamp
    count: int
    box: tuple[int, int, int, int]
    scale: float
    in_sky: bool


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


def relations(a: Thing, b: Thing, horizon: bool) -> list[str]:
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


def apart(a: Thing, b: Thing) -> bool:
    """Tell whether ``a`` is left of ``b`` with nothing shared."""
    return a.box[2] <= b.box[0]


def between(a: Thing, b: Thing, c: Thing) -> bool:
    """Tell whether ``a`` stands between the other two, in about one row with them."""
    left, right = (b, c) if b.box[0] < c.box[0] else (c, b)
    if not (left.box[2] <= a.box[0] and a.box[2] <= right.box[0]):
        return False
    return all(min(a.box[3], t.box[3]) - max(a.box[1], t.box[1]) > 0 for t in (b, c))
