"""``tonics show``: one batch or image, as a person wants to see it."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import InputError
from ..train.plan import Plan
from .asking.opening import open_ontology
from .dataset import REJECTED_SCHEMA, Dataset, read_table
from .stages.extract import load_store
from .tables import format_table, mark, plain_part

_CAPTIONS = 10


def describe_batch(dataset: Dataset, name: str, step: int) -> dict[str, Any]:
    """A planned batch as a program reads it: why it is one, and its pairs in order.

    Every pair has the number of its ``group``, and ``spans``: where (start, end) its caption speaks
    of the object of its group, or of the batch.

    Raises:
        InputError: there is no such plan or batch.
    """
    plan = open_plan(dataset, name)
    if not 0 <= step < len(plan):
        raise InputError(f"plan {name}", f"batch {step}", expected=f"0 to {len(plan) - 1}")
    groups = plan.groups_of(step)
    nodes = groups or [plan.node_of(step)]
    numbers = plan.batch(step).reshape(len(nodes), -1)
    spans = _spans(dataset, nodes, numbers)
    rows = plan.pairs.take(pa.array(plan.rows(plan.batch(step)))).to_pylist()
    return {
        "plan": name,
        "batch": step,
        "batches": len(plan),
        "epoch": plan.epoch_of(step),
        "phase": plan.phases[plan.phase_of(step)].name,
        "node": plan.node_of(step),
        "groups": groups,
        "pairs": [
            {
                **{key: row[key] for key in ("pair", "pair_key", "image_id", "caption")},
                "group": i // numbers.shape[1],
                "spans": spans.get(row["pair"], []),
            }
            for i, row in enumerate(rows)
        ],
    }


def show_batch(dataset: Dataset, name: str, step: int) -> str:
    """A planned batch: why it is one, and its captions with the shared noun marked."""
    batch = describe_batch(dataset, name, step)
    title = f"batch {step} of {batch['batches']}: epoch {batch['epoch']}, phase {batch['phase']}"
    groups, pairs = batch["groups"], batch["pairs"]
    if not groups:
        node = batch["node"]
        title += f", every pair about {node}" if node else ", no common object"
        return "\n".join([title, "", *map(_caption, pairs)])
    size = len(pairs) // len(groups)
    named = ", ".join(node or "no common object" for node in groups)
    lines = [title, f"{len(groups)} groups of {size}: {named}"]
    for number, node in enumerate(groups):
        lines += ["", f"{size} x {node}" if node else f"{size} alike, no common object"]
        lines += map(_caption, pairs[number * size : (number + 1) * size])
    return "\n".join(lines)


def _caption(pair: dict[str, Any]) -> str:
    return f"  {plain_part(pair['pair_key'])[:28]:<28}  {mark(pair['caption'], pair['spans'])}"


def _spans(
    dataset: Dataset, nodes: Sequence[str], numbers: np.ndarray
) -> dict[int, list[tuple[int, int]]]:
    """Where the pairs of each group speak of its object; no database is opened for none."""
    spans: dict[int, list[tuple[int, int]]] = {}
    if any(nodes):
        with open_ontology(dataset) as ontology:
            for node, pairs in zip(nodes, numbers.tolist(), strict=True):
                spans |= ontology.spans(node, pairs) if node else {}
    return spans


def open_plan(dataset: Dataset, name: str) -> Plan:
    """A plan by its name.

    Raises:
        InputError: there is none; those there are, are listed.
    """
    folder = dataset.plan(name)
    if not folder.exists():
        known = sorted(p.name for p in (dataset.root / "plans").glob("*") if p.is_dir())
        close = difflib.get_close_matches(name, known, 1)
        build = f"build it with 'tonics plan {name}'"
        do = f"did you mean {close[0]!r}? else {build}" if close else build
        raise InputError("plan", repr(name), expected=f"one of {known}", do=do)
    return Plan(folder)


def rejected_rows(dataset: Dataset, stage: str) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of what was left out: all with up to ten inputs of each reason."""
    files = sorted(dataset.rejected.glob(f"{stage.replace('/', '-')}*.parquet"))
    rows = [row for file in files for row in read_table(file, REJECTED_SCHEMA).to_pylist()]
    counts = Counter((row["stage"], row["reason"]) for row in rows)
    shown: Counter[tuple[str, str]] = Counter()
    listed = []
    for row in rows:
        key = (row["stage"], row["reason"])
        shown[key] += 1
        if shown[key] <= _CAPTIONS:
            listed.append([row["stage"], row["reason"], counts[key], row["where"], row["detail"]])
    listed.sort(key=lambda row: (row[0], -row[2], row[1]))
    return ["stage", "reason", "of", "input", "detail"], listed


def show_image(dataset: Dataset, image_id: str) -> str:
    """An image by its id: size, captions, and the best regions of every feature set."""
    images, pairs = dataset.images(), dataset.pairs()
    found = images.filter(pc.equal(images.column("image_id"), image_id)).to_pylist()
    if not found:
        raise InputError("image", repr(image_id), expected="an image_id of images.parquet")
    row = found[0]
    lines = [f"image {row['image']} ({plain_part(row['image_id'])}): {_file_of(row)}", ""]
    for pair in pairs.filter(pc.equal(pairs.column("image"), row["image"])).to_pylist():
        lines.append(f"  {pair['pair_key']} [{pair['split']}]  {plain_part(pair['caption'])}")
    for name in dataset.config.features:
        if (dataset.features(name) / "index.arrow").exists():
            lines += ["", *_regions(dataset, name, row["image"])]
    return "\n".join(lines)


def _file_of(row: dict[str, Any]) -> str:
    """What there is of an image beside its features."""
    if not row["content_hash"]:
        return "withdrawn from the sources"
    if not row["path"]:
        return "features alone, no image file"
    return f"{plain_part(row['path'])}, {row['width']} x {row['height']}, {row['bytes']:,} bytes"


def _regions(dataset: Dataset, name: str, image: int) -> list[str]:
    store = load_store(dataset, name)
    if image not in store:
        return [f"features/{name}: none (see {dataset.rejected})"]
    regions, labels = store[image], store.vocabulary.labels
    rows = [
        [labels[label].name, round(float(score), 3), " ".join(f"{v:.0f}" for v in box)]
        for label, score, box in zip(
            regions.labels[:_CAPTIONS], regions.scores, regions.boxes, strict=False
        )
    ]
    title = f"features/{name}: {len(regions.boxes)} regions of {store.dim} numbers; the best:"
    return [title, format_table(["label", "score", "box x1 y1 x2 y2"], rows)]
