"""Tables of what came out: retrieval scores of runs, figures of plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

from ..artifact import read_json
from ..train.plan import Plan
from .dataset import Dataset
from .evaluating.evaluations import Evaluation
from .tables import format_table

PLANS_LEGEND = """pairs: eligible ones; placed, remainder: over all epochs. Cosines of caption
vectors within a batch, each beside that of random batches: top1 to the nearest other caption, mean
over all; suspects: share of captions whose nearest is as near as two captions of one image are."""

_LEGEND = "i2t: captions of an image; t2i: the image of a caption; in percent, a tie is a miss."
_CHOICES_LEGEND = (
    " same: the right one of candidates that all show, or name, the caption's main object; "
    "any: of as many, whatever they show."
)

_CHOICES = {  # columns, and what eval.json calls them
    "same t2i": "t2i",
    "same i2t": "i2t",
    "any t2i": "random_t2i",
    "any i2t": "random_i2t",
}
_FIGURES = ("top1", "mean", "suspects")


def results_table(dataset: Dataset, names: Sequence[str], others: Sequence[str] = ()) -> str:
    """Scores of evaluated runs, and of named others, with a legend; empty when there are none."""
    found = [Evaluation.of_run(dataset, name) for name in names]
    found += [Evaluation.of_other(dataset, name) for name in others]
    reports = {one.name: read_json(one.report) for one in found if one.report.exists()}
    return reports_table(reports) if reports else ""


def reports_table(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """Scores by name, as ``eval.json`` has them, with a legend."""
    columns, rows = results_rows(reports)
    return f"{format_table(columns, rows)}\n\n{results_legend(columns)}"


def results_legend(columns: Sequence[str]) -> str:
    """What the columns are that are there."""
    return fill(_LEGEND + (_CHOICES_LEGEND if "same t2i" in columns else ""), 100)


def results_rows(
    reports: Mapping[str, Mapping[str, Any]], notes: Mapping[str, str] | None = None
) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows: one for each report, one more for its folds.

    The columns of same-object choices are there when somebody had to make some, and that of notes
    when there are any.
    """
    columns = [*(["split"] if any("split" in one for one in reports.values()) else [])]
    columns = ["run", *columns, "images", "captions"]
    columns += [f"{way} R@{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)]
    columns += (
        ["rsum", *_CHOICES] if any("same_object" in one for one in reports.values()) else ["rsum"]
    )
    columns += ["note"] if notes else []
    rows = []
    for name, scores in reports.items():
        hard = scores.get("same_object", {})
        choices = {column: hard.get(key) for column, key in _CHOICES.items()}
        note = (notes or {}).get(name)
        cells = {**_recalls(name, scores, scores["images"]), **choices, "note": note}
        rows.append([cells.get(column) for column in columns])
        if folds := scores.get("folds"):
            size = f"{folds['folds']} x {folds['images']:,}"
            cells = _recalls(name, {**scores, **folds}, size)
            rows.append([cells.get(column) for column in columns])
    return columns, rows


def _recalls(name: str, scores: Mapping[str, Any], images: int | str) -> dict[str, Any]:
    found = {"run": name, "split": scores.get("split"), "images": images}
    found["captions"] = scores["captions"]
    ks = (1, 5, 10)
    found |= {f"{way} R@{k}": scores[way][f"r{k}"] for way in ("i2t", "t2i") for k in ks}
    return {**found, "rsum": scores["rsum"]}


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
