"""Tables of what came out: retrieval scores of runs, figures of plans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..artifact import read_json
from ..train.plan import Plan
from .dataset import Dataset
from .tables import format_table

PLANS_LEGEND = """pairs: eligible ones; placed, remainder: over all epochs. Cosines of caption
vectors within a batch, each beside that of random batches: top1 to the nearest other caption, mean
over all; suspects: share of captions whose nearest is as near as two captions of one image are."""


_FIGURES = ("top1", "mean", "suspects")


def results_table(dataset: Dataset, names: Sequence[str]) -> str:
    """Recalls of evaluated runs, in percent; empty when there are none."""
    rows = []
    for name in names:
        file = dataset.run(name) / "eval.json"
        if file.exists():
            rows.append([name, *_recalls(read_json(file))])
    if not rows:
        return ""
    columns = ["run", "split", "images", "captions"]
    columns += [f"{way} R@{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)]
    return format_table([*columns, "rsum"], rows)


def _recalls(scores: dict[str, Any]) -> list[Any]:
    found: list[Any] = [scores["split"], scores["images"], scores["captions"]]
    found += [scores[way][f"r{k}"] for way in ("i2t", "t2i") for k in (1, 5, 10)]
    return [*found, scores["rsum"]]


def plans_rows(dataset: Dataset) -> tuple[list[str], list[list[Any]]]:
    """Columns and a row for every plan on disk."""
    columns = ["plan", "batches", "size", "epochs", "pairs", "placed", "remainder"]
    columns += [*(k for figure in _FIGURES for k in (figure, f"random {figure}")), "phases"]
    rows = []
    for folder in sorted((dataset.root / "plans").glob("*")):
        if not (folder / "plan.json").exists():
            continue
        plan = Plan(folder)
        counts = plan.header["counts"]
        row: list[Any] = [folder.name, len(plan), plan.batch_size, plan.epochs, counts["pairs"]]
        row += [plan.header["coverage"]["placed"], counts["remainder"]]
        sides = [plan.quality.get(side, {}) for side in ("plan", "random")]
        row += [side.get(figure) for figure in _FIGURES for side in sides]
        rows.append([*row, ", ".join(phase.name for phase in plan.phases)])
    return columns, rows
