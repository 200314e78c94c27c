"""Which evaluations cannot be held against the others, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...artifact import Manifest
from ...train.evaluation.scoring import EVAL_VERSION
from ..dataset import Dataset
from ..stage import manifest_file
from .evaluations import Evaluation

_ASKED = ["pair", "image"]


def notes_of(
    dataset: Dataset, evaluations: Iterable[Evaluation], reports: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """What sets evaluations apart, by name; those that nothing sets apart have no note.

    Args:
        reports: their scores, by name.
    """
    found = {one.name: "; ".join(_notes(dataset, one, reports[one.name])) for one in evaluations}
    return {name: note for name, note in found.items() if note}


def _notes(dataset: Dataset, one: Evaluation, report: Mapping[str, Any]) -> Iterator[str]:
    if one.is_run and one.name not in dataset.config.runs:
        yield "not in tonics.toml"
    if report.get("version", 1) != EVAL_VERSION or not one.results.exists():
        yield "older format"
    elif asked := _other_queries(dataset, one, report["split"]):
        yield asked
    if one.is_run and not _same(dataset, one, "same_object", f"same-object/{report['split']}"):
        yield "other same-object choices"


def _other_queries(dataset: Dataset, one: Evaluation, split: str) -> str:
    """Say that other captions were asked than those of the query set as it is now."""
    file = dataset.evaluation / f"{split}.parquet"
    if not file.exists():
        return ""
    if one.is_run and not _same(dataset, one, "queries", f"queries/{split}"):
        return "another query set"
    queries, results = (pq.read_table(table, columns=_ASKED) for table in (file, one.results))
    known = dict(zip(queries["pair"].to_pylist(), queries["image"].to_pylist(), strict=True))
    answered = zip(results["pair"].to_pylist(), results["image"].to_pylist(), strict=True)
    if any(known.get(pair) != image for pair, image in answered):
        return "another query set"
    images = (
        pc.count_distinct(results["image"]).as_py(),
        pc.count_distinct(queries["image"]).as_py(),
    )
    return f"{images[0]:,} of {images[1]:,} images" if len(known) > results.num_rows else ""


def _same(dataset: Dataset, one: Evaluation, what: str, key: str) -> bool:
    """Whether a run was scored on what a stage made last, as far as that is known."""
    scored = Manifest.read(manifest_file(dataset, f"eval/{one.name}", "all"))
    made = Manifest.read(manifest_file(dataset, key))
    if scored is None or made is None or what not in scored.identity:
        return True
    return bool(scored.identity[what] == made.identity["shards"])
