"""What ``tonics eval`` prints beside the stage's own lines: tables, and what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..dataset import Dataset
from ..results import results_table
from ..tables import format_table

_SWAPS = ("rows", "captions", "altered", "accuracy", "chance", "beaten", "margin")


def answers_text(
    dataset: Dataset, scored: Sequence[dict[str, Any]], answers: Sequence[dict[str, Any]]
) -> str:
    """Tables: a model that is new beside the runs, and the answers by kind, altered captions last.

    Args:
        scored: reports of models that are not ours. answers: reports of further questions.
    """
    parts = []
    for report in scored:
        parts += [f"{report['name']}: {note}" for note in _notes(report)]
        parts.append(results_table(dataset, list(dataset.config.runs), [report["name"]]))
    for answer in (a for a in answers if a["format"] == "tonics-eccv"):
        rows = [[k, v["i2t"], v["t2i"]] for k, v in answer.items() if isinstance(v, dict)]
        parts.append(format_table([answer["name"], "i2t", "t2i"], rows))
    if swaps := [a for a in answers if a["format"] == "tonics-swaps"]:
        rows = [[a["name"], a["file"], *(a[column] for column in _SWAPS)] for a in swaps]
        parts.append(format_table(["model", "file", *_SWAPS], rows))
        notes = [f"{a['file']}: {note}" for a in swaps for note in _swap_notes(a)]
        parts += dict.fromkeys(notes)
    return "\n\n".join(parts)


def _notes(report: dict[str, Any]) -> list[str]:
    """What was left out of the scores of a model that reads images and captions itself."""
    rejected = report.get("rejected_images", {})
    found = [f"{n:,} images rejected ({reason})" for reason, n in rejected.items()]
    if report.get("captions_left_out"):
        found.append(f"{report['captions_left_out']:,} captions left out with them")
    if report.get("truncated_captions"):
        found.append(f"{report['truncated_captions']:,} captions were cut off")
    return ["; ".join(found)] if found else []


def _swap_notes(answer: dict[str, Any]) -> list[str]:
    counts = {
        "rows with more or fewer fields than the header": "malformed",
        "rows without an altered caption": "not_altered",
        "rows of images that are not in the dataset": "not_in_dataset",
        "rows of images that cannot be embedded": "not_usable",
        "altered captions that say the same as the true one": "same_as_true",
    }
    found = [f"{answer[key]:,} {what}" for what, key in counts.items() if answer[key]]
    return ["; ".join(found)] if found else []
