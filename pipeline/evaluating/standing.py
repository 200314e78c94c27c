"""Which evaluations cannot be held against the others, and why."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...artifact import Manifest
from ...train.evaluation.scoring import EVAL_VERSION
from ..dataset import Dataset
from ..stage import manifest_file
from .evaluations import Evaluation, outdated


def notes_of(
    dataset: Dataset, evaluations: Iterable[Evaluation], reports: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """What sets evaluations apart, by name; those that nothing sets apart have no note.

    Args:
        reports: their scores, by name.
    """
    found = list(evaluations)
    old = set(outdated(dataset, found))
    notes = {one.name: "; ".join(_notes(dataset, one, reports[one.name], old)) for one in found}
    return {name: note for name, note in notes.items() if note}


def _notes(
    dataset: Dataset, one: Evaluation, report: Mapping[str, Any], old: Collection[str]
) -> Iterator[str]:
    if one.is_run and one.name not in dataset.config.runs:
        yield "not in tonics.toml"
    hashed = bool(report.get("queries"))
    if report.get("version", 1) != EVAL_VERSION or not hashed or not one.results.exists():
        yield "older format"
    elif one.name in old:
        yield "another query set"
    elif some := _some_images(dataset, one, report):
        yield some
    if one.is_run and not _same(dataset, one, "same_object", f"same-object/{report['split']}"):
        yield "other same-object choices"


def _some_images(dataset: Dataset, one: Evaluation, report: Mapping[str, Any]) -> str:
    """Say that images of the query set were left out."""
    file = dataset.evaluation / f"{report['split']}.parquet"
    images = pc.count_distinct(pq.read_table(file, columns=["image"])["image"]).as_py()
    return f"{report['images']:,} of {images:,} images" if report["images"] < images else ""


def _same(dataset: Dataset, one: Evaluation, what: str, key: str) -> bool:
    """Whether a run was scored on what a stage made last, as far as that is known."""
    scored = Manifest.read(manifest_file(dataset, f"eval/{one.name}", "all"))
    made = Manifest.read(manifest_file(dataset, key))
    if scored is None or made is None or what not in scored.identity:
        return True
    return bool(scored.identity[what] == made.identity["shards"])
