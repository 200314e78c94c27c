"""Tables of what came out: retrieval scores of runs, figures of plans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..train.plan import Plan
from .dataset import Dataset
from .evaluating.evaluations import Evaluation, others, outdated
from .tables import format_table

PLANS_LEGEND = """pairs: eligible ones; placed, remainder: over all epochs. Cosines of caption
vectors within a batch, each beside that of random batches: top1 to the nearest other caption, mean
over all; suspects: share of captions whose nearest is as near as two captions of one image are."""

RESULTS_LEGEND = """i2t: captions of an image; t2i: the image of a caption; in percent, a tie is a
miss. same: the right one of candidates that all show, or name, the caption's main object; random:
of as many, whatever they show."""

_ASKED = {False: "today's", True: "outdated"}
_FIGURES = ("top1", "mean", "suspects")


def results_table(dataset: Dataset, names: Sequence[str]) -> str:
    """Scores of evaluated runs and other models, with a legend; empty when there are none."""
    found = [Evaluation.of_run(dataset, name) for name in names]
    found = [one for one in found if one.report.exists()]
    columns, rows = results_rows(dataset, [*found, *others(dataset)])
    return f"{format_table(columns, rows)}\n\n{RESULTS_LEGEND}" if rows else ""


def results_rows(
    dataset: Dataset, evaluations: Sequence[Evaluation]
) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows: one for each evaluation, one more for its folds.

    Those of same-object choices are there when somebody had to make some; ``queries`` when
    somebody was asked others than today's.
    """
    old = outdated(dataset, evaluations)
    columns = ["run", "split", "images", "captions"]
    columns += [f"{way} R@{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)]
    columns.append("rsum")
    rows: list[list[Any]] = []
    for one in evaluations:
        scores = one.read_report()
        hard = scores.get("same_object", {})
        choices = [hard.get(way) for way in ("t2i", "i2t", "random_t2i", "random_i2t")]
        rows.append([one.name, *_recalls(scores, scores["images"]), *choices])
        if folds := scores.get("folds"):
            size = f"{folds['folds']} x {folds['images']:,}"
            rows.append([one.name, *_recalls({**scores, **folds}, size), *[None] * 4])
    if any(row[-1] is not None for row in rows):
        columns += ["same t2i", "same i2t", "random t2i", "random i2t"]
    else:
        rows = [row[:-4] for row in rows]
    if old:
        return [*columns, "queries"], [[*row, _ASKED[row[0] in old]] for row in rows]
    return columns, rows


def _recalls(scores: dict[str, Any], images: int | str) -> list[Any]:
    found: list[Any] = [scores["split"], images, scores["captions"]]
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
