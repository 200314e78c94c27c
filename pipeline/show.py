"""``tonics show``: one object, batch or image, as a person wants to see it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import InputError, StaleInput
from ..train.plan import Plan
from .dataset import REJECTED_SCHEMA, Dataset, read_table
from .stages.extract import load_store
from .tables import format_table, mark, plain_part

_CAPTIONS = 10


def ontology_file(dataset: Dataset) -> Path:
    """The dataset's ontology database.

    Raises:
        StaleInput: it has not been built.
    """
    if not dataset.ontology_file.exists():
        do = "run 'tonics run ontology' first"
        raise StaleInput(dataset.ontology_file, "has not been made yet", do=do)
    return dataset.ontology_file


def open_ontology(dataset: Dataset) -> Any:
    """The dataset's ontology, to be used as a context manager."""
    from ..ontology import Ontology

    return Ontology(ontology_file(dataset))


def show_object(dataset: Dataset, word: str) -> str:
    """An object by word or synset: gloss, path to the root, children with counts, captions."""
    with open_ontology(dataset) as ontology:
        synset = ontology.find(word)
        objects = {row["synset"]: row for row in ontology.objects().to_pylist()}
        path = ontology.path(synset)
        definition = ontology.query(
            "SELECT definition FROM synsets WHERE synset = ?", [synset]
        ).to_pylist()[0]["definition"]
        mentions = ontology.query(
            'SELECT m.pair, m.start, m."end", p.caption FROM mentions m JOIN closure c '
            "ON c.descendant = m.synset JOIN pairs p ON p.pair = m.pair WHERE c.ancestor = ? "
            f"ORDER BY hash(m.pair), m.start LIMIT {_CAPTIONS}",
            [synset],
        ).to_pylist()
    lines = [f"{synset}: {plain_part(definition)}", f"path: {' > '.join(path)}", ""]
    lines += _counts(synset, objects)
    lines += ["", "captions:"]
    lines += [f"  {m['pair']:>8}  {mark(m['caption'], [(m['start'], m['end'])])}" for m in mentions]
    return "\n".join(lines)


def _counts(synset: str, objects: dict[str, Any]) -> list[str]:
    node = objects.get(synset)
    if node is None:
        return [
            "not an object of its own: fewer images name it than ontology.min_images asks for,",
            "or a chain of objects with the same images was shortened to one",
        ]
    head = f"{node['subtree_images']:,} images, {node['subtree_pairs']:,} pairs in its subtree; "
    head += f"{node['own_images']:,} images name just this"
    children = [o for o in objects.values() if o["parent"] == node["object"]]
    children.sort(key=lambda o: (-o["subtree_images"], o["synset"]))
    rows = [[c["synset"], c["subtree_images"], c["subtree_pairs"]] for c in children]
    if not rows:
        return [head, "no objects below it"]
    return [head, "", format_table(["below it", "images", "pairs"], rows)]


def show_batch(dataset: Dataset, name: str, step: int) -> str:
    """A planned batch: why it is one, and its captions with the shared noun marked."""
    folder = dataset.plan(name)
    if not folder.exists():
        known = sorted(p.name for p in (dataset.root / "plans").glob("*") if p.is_dir())
        do = f"build it with 'tonics plan {name}'"
        raise InputError("plan", repr(name), expected=f"one of {known}", do=do)
    plan = Plan(folder)
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


def _spans(dataset: Dataset, synset: str, pairs: list[int]) -> dict[int, list[tuple[int, int]]]:
    """Where captions speak of something in an object's subtree."""
    with open_ontology(dataset) as ontology:
        found = ontology.query(
            'SELECT m.pair, m.start, m."end" FROM mentions m JOIN closure c '
            "ON c.descendant = m.synset WHERE c.ancestor = ? AND list_contains(?, m.pair)",
            [synset, pairs],
        ).to_pylist()
    spans: dict[int, list[tuple[int, int]]] = {}
    for row in found:
        spans.setdefault(row["pair"], []).append((row["start"], row["end"]))
    return spans


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
