"""What bringing a stage up to date came to, as people and programs read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What bringing a stage up to date came to.

    Attributes:
        fresh: there was nothing to do. made: how many shards were made now.
        cpu_s: CPU-seconds of the stage's finished shards, whenever they were made.
    """

    key: str
    fresh: bool
    made: int
    counts: Mapping[str, Any]
    wall_s: float
    cpu_s: float

    def json(self) -> dict[str, Any]:
        """As a program reads it."""
        return {name: getattr(self, name) for name in self.__slots__}

    def line(self, *, notes: bool = True) -> str:
        """The stage's closing line: in, out, rejected by reason, ignored, seconds; its notes."""
        counts = self.counts
        parts = [f"{counts.get('in', 0):,} in", f"{counts.get('out', 0):,} out"]
        for kind in ("rejected", "ignored"):
            reasons = counts.get(kind) or {}
            if reasons:
                listed = ", ".join(f"{n:,} {reason}" for reason, n in reasons.items())
                parts.append(f"{sum(reasons.values()):,} {kind} ({listed})")
        if images := counts.get("images"):
            parts.append(f"images: {_image_counts(images)}")
        state = "up to date" if self.fresh else f"{self.wall_s:.1f} s"
        line = f"{self.key:<16} {', '.join(parts)} [{state}, {self.cpu_s:.1f} CPU-s]"
        return "\n".join([line, *(f"{'':<16} note: {note}" for note in self.notes if notes)])

    @property
    def notes(self) -> list[str]:
        """What the stage has to say to the user."""
        return list(self.counts.get("notes", ()))


def _image_counts(images: Any) -> str:
    """The images of an ingest: a number, or what came in, went out and was rejected."""
    if isinstance(images, int):
        return f"{images:,}"
    text = f"{images['in']:,} in, {images['out']:,} out"
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in images["rejected"].items())
    return f"{text}, rejected: {reasons}" if reasons else text
