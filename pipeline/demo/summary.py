"""What a composed dataset holds, in a few lines."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .dealing import BLOCK, COPIES_PER_BLOCK
from .stamps import nouns

_WANTED = 200  # scenes an everyday object should be in


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSummary:
    """What was composed.

    Attributes:
        composed: scenes made by this call; the others were there already.
        common: for each everyday noun, the scenes that show one; 0 without its photographs.
        distinct_nouns: how many different nouns (narrowest names) are planted.
    """

    scenes: int
    composed: int
    captions: int
    objects: int
    cutouts: int
    distinct_nouns: int
    common: dict[str, int]

    def lines(self) -> list[str]:
        """Say it in a few lines for a terminal."""
        made = "" if self.composed == self.scenes else f" ({self.composed} composed now)"
        shown = [count for count in self.common.values() if count]
        fewest = min(shown, default=0)
        said = [
            f"{self.scenes} scenes{made}, {self.captions} captions, {self.objects} objects in "
            f"{self.cutouts} cut-outs, {self.distinct_nouns} different nouns",
            f"{len(shown)} everyday objects, each in at least {fewest} scenes",
        ]
        if fewest < _WANTED:
            enough = -(-_WANTED // COPIES_PER_BLOCK) * BLOCK
            said.append(f"too few scenes to fill same-object batches well; {enough} are enough")
        if missing := [name for name, count in self.common.items() if not count]:
            said.append("no photograph of: " + ", ".join(missing))
        return said


def summarize(out: Path, composed: int) -> SceneSummary:
    """Count what ``truth.jsonl`` of a finished folder says."""
    seen: Counter[str] = Counter()
    objects: list[dict[str, Any]] = []
    scenes = captions_written = 0
    for line in (out / "truth.jsonl").read_text("utf-8").splitlines():
        truth = json.loads(line)
        scenes += 1
        captions_written += len(truth["captions"])
        objects += truth["objects"]
        seen.update({n["noun"] for o in truth["objects"] for n in (o, *o["also"])})
    return SceneSummary(
        scenes=scenes,
        composed=composed,
        captions=captions_written,
        objects=len(objects),
        cutouts=sum(o["count"] for o in objects),
        distinct_nouns=len({o["noun"] for o in objects}),
        common={name: seen[name] for name, noun in nouns().items() if noun.common},
    )
