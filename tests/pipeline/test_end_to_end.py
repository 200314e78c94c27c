"""From nothing to a trained and evaluated model, as a newcomer does it."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest

from tonics.errors import MissingAsset
from tonics.features import FeatureStore
from tonics.ontology import Ontology
from tonics.pipeline.cli import app
from tonics.pipeline.demo.stamps import find_stamps
from tonics.pipeline.demo.truth import measure
from tonics.pipeline.plans.eligible import fold
from tonics.train.plan import Plan

RECALLS = [(way, f"r{k}") for way in ("i2t", "t2i") for k in (1, 5, 10)]


def check_plan(dataset: Path, name: str) -> Plan:
    """The rules of every plan, on what is on disk."""
    plan = Plan(dataset / "plans" / name)
    images = pq.read_table(dataset / "images.parquet").to_pylist()
    pairs = {row["pair"]: row for row in pq.read_table(dataset / "pairs.parquet").to_pylist()}
    stored = set(FeatureStore(dataset / "features" / "grid").images.tolist())
    remainder = ipc.open_file(str(dataset / "plans" / name / "remainder.arrow")).read_all()
    seen: dict[int, Counter[int]] = {epoch: Counter() for epoch in range(plan.epochs)}
    for step in range(len(plan)):
        batch = [pairs[number] for number in plan.batch(step).tolist()]
        assert len(batch) == plan.batch_size
        assert len({images[row["image"]]["content_hash"] for row in batch}) == plan.batch_size
        assert len({fold(row["caption"]) for row in batch}) == plan.batch_size
        assert {row["split"] for row in batch} == {"train"}
        assert {row["image"] for row in batch} <= stored
        seen[plan.epoch_of(step)].update(row["pair"] for row in batch)
    train = {number for number, row in pairs.items() if row["split"] == "train"}
    for epoch, placed in seen.items():
        left = [r["pair"] for r in remainder.to_pylist() if r["epoch"] == epoch]
        assert max(placed.values()) == 1
        assert sorted([*placed, *left]) == sorted(train)
    return plan


def check_nodes(dataset: Path, plan: Plan) -> int:
    """Every pair of a batch or group with an object mentions it; how many such there are."""
    said: dict[str, list[np.ndarray]] = {}
    for step in range(len(plan)):
        names = plan.groups_of(step) or [plan.node_of(step)]
        for name, pairs in zip(names, np.split(plan.batch(step), len(names)), strict=True):
            said.setdefault(name, []).append(pairs)
    said.pop("", None)
    with Ontology(dataset / "ontology.duckdb") as ontology:
        for name, groups in said.items():
            about = set(ontology.pairs(name).tolist())
            assert all(set(pairs.tolist()) <= about for pairs in groups)
    return sum(map(len, said.values()))


def check_scores(dataset: Path, run: str) -> dict[str, Any]:
    scores: dict[str, Any] = json.loads((dataset / "runs" / run / "eval.json").read_text())
    values = [scores[way][k] for way, k in RECALLS]
    assert all(math.isfinite(v) and 0 <= v <= 100 for v in values)
    assert scores["rsum"] == pytest.approx(sum(values), abs=0.5)
    for way in ("i2t", "t2i"):
        assert scores[way]["r1"] <= scores[way]["r5"] <= scores[way]["r10"]
    return scores


def losses(dataset: Path, run: str) -> list[float]:
    lines = (dataset / "runs" / run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


# -- the demo


@pytest.fixture(scope="module")
def demo(
    tmp_path_factory: pytest.TempPathFactory, run_tonics: Callable[..., Any]
) -> SimpleNamespace:
    """The demo with 60 scenes, run twice."""
    try:
        find_stamps()
    except MissingAsset as error:
        pytest.skip(f"the demo's photographs are not here: {error}")
    folder = tmp_path_factory.mktemp("demo") / "demo"
    words = ("demo", folder, "--scenes", "60", "--workers", "1")
    first = run_tonics(*words)
    assert first.returncode == 0, first.stderr
    before = _bytes(folder)
    second = run_tonics(*words)
    assert second.returncode == 0, second.stderr
    return SimpleNamespace(
        folder=folder, first=first.stdout, second=second.stdout, before=before, after=_bytes(folder)
    )


def _bytes(folder: Path) -> dict[str, bytes]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".lock")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


@pytest.mark.slow
def test_the_demo_finds_what_was_planted(demo: SimpleNamespace) -> None:
    truth = measure(demo.folder / "dataset", demo.folder / "scenes" / "truth.jsonl")
    assert (truth["scenes"], truth["pairs"] > 250) == (60, True)
    assert truth["noun_share"] >= 0.95
    assert truth["synset_share"] >= 0.85
    assert truth["iou_mean"] >= 0.35
    line = re.search(r"^nouns found +(\d+) +(\d+)", demo.first, re.M)
    assert line is not None
    assert (int(line[1]), int(line[2])) == (truth["nouns_found"], truth["nouns_planted"])


@pytest.mark.slow
def test_the_demo_prints_costs_scores_and_what_to_try_next(
    demo: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in ("compose", "extract/grid", "parse", "embed/captions", "train/mixed", "in all"):
        assert re.search(rf"^{stage} +\d", demo.first, re.M), stage
    header = (
        "run +split +images +captions +i2t R@1 +i2t R@5 +i2t R@10 +t2i R@1 +t2i R@5 +t2i R@10 +rsum"
    )
    assert re.search(f"^{header}$", demo.first, re.M)
    for run in ("random", "mixed"):
        scores = check_scores(demo.folder / "dataset", run)
        row = rf"^{run} +test +{scores['images']} +{scores['captions']} "
        assert re.search(row, demo.first, re.M)
    steps = demo.first.partition("What to try next")[2]
    commands = re.findall(r'^  tonics (-C \S+ (?:sql ".*?"|\S+(?: \w+)*))', steps, re.M)
    assert len(commands) >= 6
    for command in commands:  # they work as printed
        words = [a or b for a, b in re.findall(r'"(.*?)"|(\S+)', command)]
        app(words, standalone_mode=False)
        assert capsys.readouterr().out


@pytest.mark.slow
def test_the_demo_again_does_nothing(demo: SimpleNamespace) -> None:
    assert demo.after == demo.before
    stages = re.findall(r"^\S+ +[\d,]+ in, .*$", demo.second, re.M)
    assert len(stages) == 14
    assert all("[up to date, " in line for line in stages)
    assert "(0 composed now)" in demo.second


@pytest.mark.slow
def test_the_demos_plans_keep_the_rules(demo: SimpleNamespace) -> None:
    dataset = demo.folder / "dataset"
    assert check_nodes(dataset, check_plan(dataset, "random")) == 0
    assert check_nodes(dataset, check_plan(dataset, "mixed")) > 0


# -- real photos


@pytest.fixture(scope="module")
def photos(
    tmp_path_factory: pytest.TempPathFactory, shared: Path, run_tonics: Callable[..., Any]
) -> SimpleNamespace:
    """150 photos of Flickr8k, from ``tonics init`` to ``tonics eval``."""
    source = shared / "data" / "flickr8k"
    folder = tmp_path_factory.mktemp("flickr") / "flickr"
    (folder / "photos").mkdir(parents=True)
    lines = (source / "subset.jsonl").read_text(encoding="utf-8").splitlines()[:150]
    rows = [json.loads(line) for line in lines]
    for row in rows:
        shutil.copy(source / "images" / row["image"], folder / "photos")
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    words = ["--captions", folder / "captions.jsonl", "--images", folder / "photos"]
    words += ["--column", "caption=captions", "--column", "split=split", "--batch-size", "16"]
    output = []
    for command in (
        ["init", folder, *words, "--epochs", "5", "--test", "0.2"],
        ["-C", folder, "run", "eval/mixed", "plan/random", "--workers", "1"],
        ["-C", folder, "eval", "mixed"],
    ):
        done = run_tonics(*command)
        assert done.returncode == 0, done.stderr
        output.append(done.stdout)
    return SimpleNamespace(folder=folder, rows=rows, output=output)


@pytest.mark.shared
@pytest.mark.slow
def test_real_photos_are_counted(photos: SimpleNamespace) -> None:
    folder, rows = photos.folder, photos.rows
    said = {(row["image"], caption.strip()) for row in rows for caption in row["captions"]}
    pairs = pq.read_table(folder / "pairs.parquet").to_pylist()
    assert {(row["pair_key"].rpartition("#")[0], row["caption"]) for row in pairs} == said
    assert len(pairs) == len(said)
    store = FeatureStore(folder / "features" / "grid")
    assert store.images.tolist() == list(range(150))
    images = pq.read_table(folder / "images.parquet").to_pylist()
    assert [(r["image_id"], r["width"], r["height"]) for r in images] == [
        (r["image"], r["width"], r["height"]) for r in rows
    ]
    for row in images[::10]:
        boxes = store[row["image"]].boxes
        assert boxes.min() >= 0
        assert np.all(boxes[:, 2:] <= [row["width"], row["height"]])
    named = {r["image"]: {"dev": "val"}.get(r["split"], r["split"]) for r in rows if r["split"]}
    assert named
    for row in pairs:
        image_id = images[row["image"]]["image_id"]
        assert row["split"] == named.get(image_id, row["split"])


@pytest.mark.shared
@pytest.mark.slow
def test_real_captions_become_objects(photos: SimpleNamespace) -> None:
    with Ontology(photos.folder / "ontology.duckdb") as ontology:
        dogs = ontology.pairs("dog.n.01").tolist()
        names = ontology.objects().column("synset").to_pylist()
    pairs = pq.read_table(photos.folder / "pairs.parquet").to_pylist()
    said = {row["pair"] for row in pairs if re.search(r"\bdogs?\b", row["caption"].lower())}
    assert len(said & set(dogs)) >= 0.95 * len(said) > 0
    assert names[0] == "entity.n.01"
    assert {"person.n.01", "dog.n.01"} & set(names)


@pytest.mark.shared
@pytest.mark.slow
def test_real_plans_keep_the_rules(photos: SimpleNamespace) -> None:
    for name in ("random", "mixed"):
        plan = check_plan(photos.folder, name)
        nodes = check_nodes(photos.folder, plan)
        assert (nodes > 0) == (name == "mixed")
        assert plan.quality["batches_measured"] > 0


@pytest.mark.shared
@pytest.mark.slow
def test_real_scores(photos: SimpleNamespace) -> None:
    scores = check_scores(photos.folder, "mixed")
    pairs = pq.read_table(photos.folder / "pairs.parquet").to_pylist()
    held_out = [row for row in pairs if row["split"] == "test"]
    assert scores["captions"] == len(held_out)
    assert scores["images"] == len({row["image"] for row in held_out})
    chance = 1000 / scores["images"]
    assert scores["t2i"]["r10"] > 1.3 * chance  # it has learnt something
    falling = losses(photos.folder, "mixed")
    assert falling[-1] < falling[0]
    assert "i2t R@1" in photos.output[-1]
