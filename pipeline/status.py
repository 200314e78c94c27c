"""``tonics status``: where every stage of a dataset stands."""

from __future__ import annotations

from typing import Any

from ..errors import TonicsError
from .dataset import Dataset
from .graph import stages_of
from .lock import is_locked, lock_file
from .stage import Stage
from .staleness import status_of


def dataset_status(dataset: Dataset) -> list[dict[str, Any]]:
    """One row a stage, in order: state, counts, and what is out of date."""
    rows: list[dict[str, Any]] = []
    waiting: dict[str, str] = {}
    for stage in stages_of(dataset).values():
        first = next((key for key in stage.inputs if key in waiting), "")
        row = _row(stage, f"after {first}" if first else "")
        if row["state"] != "done":
            waiting[stage.key] = row["why"]
        rows.append(row)
    return rows


def _row(stage: Stage, blocked: str) -> dict[str, Any]:
    row: dict[str, Any] = {"stage": stage.key, "state": "waiting", "why": blocked}
    row |= {"in": None, "out": None, "rejected": None, "ignored": None, "cpu_s": None}
    if is_locked(lock_file(stage.dataset, stage.key)):
        return {**row, "state": "running", "why": "another process is at work on it"}
    if blocked:
        return row
    try:
        status = status_of(stage)
    except TonicsError as error:
        return {**row, "state": "error", "why": str(error)}
    if status.merged is not None:
        counts = status.merged.counts
        row |= {
            "in": counts["in"],
            "out": counts["out"],
            "rejected": sum(counts["rejected"].values()),
            "ignored": sum(counts["ignored"].values()),
            "cpu_s": status.merged.cost["cpu_s"],
        }
    state = "done" if status.done else "stale" if status.merged or status.fresh else "new"
    return {**row, "state": state, "why": status.why}
