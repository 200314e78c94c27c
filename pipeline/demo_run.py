"""``tonics demo``: compose scenes, build a dataset, train on two plans, say what came of it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..artifact import read_json
from ..errors import InputError
from ..train.plan import Plan
from .config import CONFIG_NAME
from .dataset import Dataset
from .demo.scenes import compose
from .demo.stamps import find_stamps
from .demo.truth import measure
from .engines.machine import worker_count
from .graph import stages_of
from .init import init_dataset
from .progress import Progress
from .report import Report
from .results import plans_rows, results_table
from .runner import bring_up_to_date
from .tables import format_table

BATCH_SIZE, EPOCHS = 64, 8


def run_demo(
    folder: Path, *, scenes: int, seed: int, stamps: Path | None, workers: int, quiet: bool
) -> None:
    """Do all of it, or what is missing of it, and print the results.

    Raises:
        MissingAsset: the photographs are not here; the message says how to get them.
        InputError: the folder holds another dataset.
    """
    started = time.monotonic()
    photographs = find_stamps(stamps)
    source, dataset_folder = folder / "scenes", folder / "dataset"
    _check_folder(folder, {"scenes": scenes, "seed": seed})
    print(f"composing {scenes} scenes from {photographs}")
    before = _all_cpu_s()
    summary = compose(
        source, scenes=scenes, seed=seed, stamps=photographs, workers=worker_count(workers)
    )
    compose_cpu_s = _all_cpu_s() - before
    print("\n".join(f"  {line}" for line in summary.lines()))
    dataset = _dataset(dataset_folder, source, scenes)
    reports = []
    for stage in stages_of(dataset).values():
        report = bring_up_to_date(stage, workers=workers, progress=Progress(quiet=quiet))
        reports.append(report)
        print(report.line(), flush=True)
    _print_results(folder, dataset, reports, compose_cpu_s)
    print(f"\n{time.monotonic() - started:.0f} seconds in all.\n\n{_next_steps(dataset_folder)}")


def _check_folder(folder: Path, wanted: dict[str, int]) -> None:
    do = "name another folder, or delete this one"
    others = [p for p in folder.glob("*") if p.name not in ("scenes", "dataset")]
    if others and not (folder / "dataset" / CONFIG_NAME).exists():
        raise InputError(folder, "holds something else already", do=do)
    record = folder / "scenes" / "scenes.json"
    if record.exists():
        made = {key: read_json(record).get(key) for key in wanted}
        if made != wanted:
            found = f"holds a demo of {made['scenes']} scenes with seed {made['seed']}"
            raise InputError(folder, found, expected=f"{wanted['scenes']} scenes", do=do)


def _dataset(folder: Path, source: Path, scenes: int) -> Dataset:
    """The demo's dataset folder, made when absent; few scenes get small batches."""
    if not (folder / CONFIG_NAME).exists():
        init_dataset(
            folder,
            images=source / "images",
            captions=[source / "captions.json"],
            source_format="coco",
            batch_size=min(BATCH_SIZE, max(4, scenes // 32 * 4)),
            epochs=EPOCHS,
            shard_images=125,
            shard_pairs=625,
        )
    return Dataset.open(folder)


def _print_results(
    folder: Path, dataset: Dataset, reports: Sequence[Report], compose_cpu_s: float
) -> None:
    costs = [["compose", round(compose_cpu_s, 1)]]
    costs += [[report.key, round(report.cpu_s, 1)] for report in reports]
    costs.append(["in all", round(sum(row[1] for row in costs), 1)])  # type: ignore[misc]
    print("\nCPU-seconds of each stage\n" + format_table(["stage", "CPU-s"], costs))
    truth = measure(dataset.root, folder / "scenes" / "truth.jsonl")
    print("\nBeside what was planted\n" + _truth_table(truth))
    columns, rows = plans_rows(dataset)
    print("\nThe plans\n" + format_table(columns, rows))
    table = results_table(dataset, list(dataset.config.runs))
    print("\nRetrieval among held-out scenes, recall in percent\n" + table)


def _truth_table(truth: dict[str, Any]) -> str:
    """The three shares that say whether a build can be trusted, and where it errs most."""
    planted, boxes = truth["nouns_planted"], truth["boxes"]
    rows = [
        ["nouns found", truth["nouns_found"], planted, truth["noun_share"]],
        ["synsets right", truth["synsets_right"], planted, truth["synset_share"]],
        ["best region's IoU >= 0.5", round(truth["iou_half_share"] * boxes), boxes,
         truth["iou_half_share"]],
    ]  # fmt: skip
    table = format_table(["measure", "right", "planted", "share"], rows)
    confused = [f"{noun}: {found or 'nothing'} for {right}" for noun, right, found, _ in
                truth["confused"][:3]]  # fmt: skip
    lines = [table, f"mean IoU of the best region {truth['iou_mean']:.3f}"]
    if confused:
        lines.append(f"senses confused most: {'; '.join(confused)}")
    return "\n".join(lines)


def _next_steps(dataset: Path) -> str:
    return f"""What to try next
  . .venv/bin/activate      (after 'make demo': puts the command on the path)
  tonics -C {dataset} status
  tonics -C {dataset} show object dog
  tonics -C {dataset} show batch mixed {_object_batch(dataset)}
  tonics -C {dataset} show image 5
  tonics -C {dataset} sql "SELECT synset, subtree_images FROM objects ORDER BY 2 DESC LIMIT 10"
  tonics -C {dataset} sql "SELECT caption FROM pairs_of('dog.n.01') LIMIT 5"
  edit {dataset / CONFIG_NAME}, then: tonics -C {dataset} run -n   (what would run, and why)"""


def _object_batch(dataset: Path) -> int:
    """A batch of groups, as many as can be named after objects deep in the tree."""
    plan = Plan(dataset / "plans" / "mixed")
    named = [sum(map(bool, set(plan.groups_of(step)))) for step in range(len(plan))]
    return int(np.argmax(named))


def _all_cpu_s() -> float:
    """CPU-seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
