"""``tonics show``: one batch or image, as a person wants to see it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import InputError
from ..train.plan import Plan
from .asking.opening import open_ontology
from .dataset import REJECTED_SCHEMA, Dataset, read_table
from .stages.extract import load_store
from .tables import format_table, mark, plain_part

_CAPTIONS = 10


def show_batch(dataset: Dataset, name: str, step: int) -> str:
    """A planned batch: why it is one, and its captions with the shared noun marked."""
    plan = open_plan(dataset, name)
    if not 0 <= step < len(plan):
        raise InputError(f"plan {name}", f"batch {step}", expected=f"0 to {len(plan) - 1}")
    pairs, node = plan.batch(step), plan.node_of(step)
    phase = plan.phases[plan.phase_of(step)]
    spans = _spans(dataset, node, pairs.tolist()) if node else {}
    title = f"batch {step} of {len(plan)}: epoch {plan.epoch_of(step)}, phase {phase.name}"
    title += f", every pair about {node}" if node else ", no common object"
    keys = plan.pairs.column("pair_key").take(pa.array(plan.rows(pairs))).to_pylist()
    lines = [title, ""]
    for pair, key, caption in zip(pairs.tolist(), keys, plan.captions_of(pairs), strict=True):
        lines.append(f"  {plain_part(key)[:28]:<28}  {mark(caption, spans.get(pair, []))}")
    return "\n".join(lines)


def open_plan(dataset: Dataset, name: str) -> Plan:
    """A plan by its name.

    Raises:
        InputError: there is none; those there are, are listed.
    """
    folder = dataset.plan(name)
    if not folder.exists():
        known = sorted(p.name for p in (dataset.root / "plans").glob("*") if p.is_dir())
        do = f"build it with 'tonics plan {name}'"
        raise InputError("plan", repr(name), expected=f"one of {known}", do=do)
    return Plan(folder)


def _spans(dataset: Dataset, synset: str, pairs: list[int]) -> dict[int, list[tuple[int, int]]]:
    with open_ontology(dataset) as ontology:
        return ontology.spans(synset, pairs)


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
