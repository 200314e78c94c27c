"""The stage that turns feature sets into detections.duckdb."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tonics.errors import FormatError, StaleInput
from tonics.features import FeatureStore, Regions
from tonics.features.regions import MAX_ATTRIBUTES
from tonics.features.shard import Shard as StoredShard
from tonics.features.writer import write_shard
from tonics.ontology.database import run_query
from tonics.ontology.wordnet import open_wordnet
from tonics.pipeline.clean import clean_dataset
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.graph import stages_of
from tonics.pipeline.runner import bring_up_to_date
from tonics.pipeline.stages import detections as module
from tonics.pipeline.stages.detections import DetectionsStage, detected_in
from tonics.pipeline.staleness import status_of
from tonics.pipeline.verify import verify_dataset

Shown = dict[int, tuple[int, float, float]]


def stage_of(folder: Path) -> DetectionsStage:
    stage = stages_of(Dataset.open(folder))["detections"]
    assert isinstance(stage, DetectionsStage)
    return stage


def ask(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(folder / "detections.duckdb"), read_only=True) as con:
        return con.execute(sql).fetchall()


def shown(folder: Path, synset: str) -> Shown:
    """Which images show a synset: regions, best score, largest share, counted one by one."""
    wordnet, found = open_wordnet(), defaultdict(list)
    store = FeatureStore(folder / "features" / "grid")
    for image in store:
        regions = store[image]
        for box, label, score in zip(regions.boxes, regions.labels, regions.scores, strict=True):
            if synset in wordnet.ancestors(store.vocabulary.labels[label].synset):
                area = (box[2] - box[0]) * (box[3] - box[1]) / (regions.width * regions.height)
                found[image].append((float(score), min(float(area), 1.0)))
    return {
        image: (len(seen), max(s for s, _ in seen), max(a for _, a in seen))
        for image, seen in found.items()
    }


def test_what_is_shown_is_what_counting_gives(built: Path) -> None:
    for synset in ("entity.n.01", "artifact.n.01", "instrumentality.n.03", "animal.n.01"):
        rows = ask(built, f"SELECT image, regions, score, area FROM images_showing('{synset}')")
        expected = shown(built, synset)
        assert {row[0]: row[1] for row in rows} == {i: v[0] for i, v in expected.items()}
        for image, _, score, area in rows:
            assert (score, area) == pytest.approx(expected[image][1:], rel=1e-6)


def test_pairs_that_say_it_and_whose_image_shows_one(built: Path) -> None:
    name = "artifact.n.01"
    files = {"detections": built / "detections.duckdb"}
    found = run_query(
        built / "ontology.duckdb",
        f"SELECT pair FROM pairs_of('{name}') SEMI JOIN detections.images_showing('{name}') "
        "USING (image) ORDER BY pair",
        attach=files,
    )
    said = run_query(built / "ontology.duckdb", f"SELECT pair, image FROM pairs_of('{name}')")
    showing = shown(built, name)
    expected = [row["pair"] for row in said.to_pylist() if row["image"] in showing]
    assert expected
    assert found["pair"].to_pylist() == expected


def test_every_image_and_region_is_counted(built: Path) -> None:
    store = FeatureStore(built / "features" / "grid")
    regions = int(store.num_regions(store.images).sum())
    assert ask(built, "SELECT images, regions FROM feature_sets") == [(len(store), regions)]
    assert ask(built, "SELECT sum(regions) FROM detections") == [(regions,)]
    assert ask(built, "SELECT image FROM images") == [(image,) for image in store]


def test_a_new_extraction_leaves_the_ontology_as_it_is(copy: Path) -> None:
    config = (copy / "tonics.toml").read_text()
    changed = config.replace(
        "shard_images = 16", "shard_images = 16\nsettings = {input_size = 192}"
    )
    (copy / "tonics.toml").write_text(changed)
    stages = stages_of(Dataset.open(copy))
    bring_up_to_date(stages["extract/grid"], workers=1, rebuild=True)
    assert "features.grid changed" in status_of(stage_of(copy)).why
    assert status_of(stages_of(Dataset.open(copy))["ontology"]).done
    before = ask(copy, "SELECT value FROM meta WHERE key = 'content_hash'")
    assert not bring_up_to_date(stage_of(copy)).fresh
    assert ask(copy, "SELECT value FROM meta WHERE key = 'content_hash'") != before
    assert status_of(stage_of(copy)).done


def test_another_table_of_labels_makes_it_stale_and_nothing_else(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "labels_fingerprint", lambda: "0" * 32)
    why = {key: status_of(s).why for key, s in stages_of(Dataset.open(built)).items()}
    assert {key for key, text in why.items() if text} == {"detections"}
    assert why["detections"] == "labels changed"


def test_a_damaged_file_is_deleted_and_made_again(copy: Path) -> None:
    file = copy / "detections.duckdb"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    found = verify_dataset(list(stages_of(Dataset.open(copy)).values()))
    assert found.problems == ["detections: detections.duckdb was altered"]
    assert not file.exists()
    assert not bring_up_to_date(stage_of(copy)).fresh
    assert file.exists()


def test_clean_takes_what_a_killed_run_left(copy: Path) -> None:
    made = sorted(p.name for p in copy.iterdir())
    for name in ("detections.duckdb.99999.tmp", "detections.duckdb.99999.tmp.wal"):
        (copy / name).write_bytes(b"half")
    said = list(clean_dataset(stage_of(copy).dataset, unnamed=False))
    assert said == ["2 half-written files deleted"]
    assert sorted(p.name for p in copy.iterdir()) == made


def test_without_feature_sets_there_is_no_such_stage(
    draw: Callable[..., Path], tmp_path: Path
) -> None:
    folder = draw(tmp_path / "dataset", images=4)
    (folder / "tonics.toml").write_text('[[ingest.sources]]\ncaptions = "captions.jsonl"\n')
    assert "detections" not in stages_of(Dataset.open(folder))


def test_it_waits_for_every_feature_set(little: Path) -> None:
    config = (little / "tonics.toml").read_text()
    more = "[features.other]\ndetector = 'made-up'\n"
    (little / "tonics.toml").write_text(config + more)
    with pytest.raises(StaleInput, match="extract/other: has not been made yet"):
        status_of(stage_of(little))
    bring_up_to_date(stages_of(Dataset.open(little))["extract/other"], workers=1)
    bring_up_to_date(stage_of(little))
    assert ask(little, "SELECT features, images FROM feature_sets") == [("grid", 20), ("other", 20)]
    (little / "tonics.toml").write_text(config)
    assert "features.other changed" in status_of(stage_of(little)).why


def test_labels_that_mean_nothing_are_said_to(little: Path) -> None:
    report = bring_up_to_date(stage_of(little))
    assert report.counts["notes"] == ["no label of grid is a word that WordNet knows"]
    assert ask(little, "SELECT count(*) FROM seen") == [(0,)]
    assert ask(little, "SELECT name, synset FROM labels") == [("thing", None), ("other", None)]


def test_a_label_that_the_vocabulary_lacks_is_refused(little: Path) -> None:
    file = little / "features" / "grid" / "vocabulary.json"
    vocabulary = json.loads(file.read_text())
    vocabulary["labels"] = vocabulary["labels"][:1]
    file.write_text(json.dumps(vocabulary))
    with pytest.raises(FormatError, match=r"arrow: image \d+ has label 1, expected one of the 1 l"):
        bring_up_to_date(stage_of(little))
    assert not (little / "detections.duckdb").exists()
    assert not list(little.glob("*.tmp*"))


def test_batches_are_handed_on_before_they_fill_the_memory(
    little: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring_up_to_date(stage_of(little))
    whole = ask(little, "FROM detections")
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 1)
    parts = list(stage_of(little)._detected(little / "features" / "grid", 2))
    assert [part.images.num_rows for part in parts] == [8, 8, 4, 0]
    bring_up_to_date(stage_of(little), rebuild=True)
    assert ask(little, "FROM detections") == whole


@given(st.lists(st.lists(st.integers(0, 3), max_size=7), max_size=5), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_a_record_batch_is_summed_up_as_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, labels: list[list[int]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = {7 * k + 3: _regions(rng, of_image) for k, of_image in enumerate(labels)}
    path = tmp_path_factory.mktemp("shard") / "00000.arrow"
    write_shard(path, iter(rows.items()), dim=2)
    shard = StoredShard(path)
    found = [detected_in(shard.batch(number)) for number in range(shard.num_batches)]
    images = [row for part in found for row in part.images.to_pylist()]
    assert [(row["image"], row["regions"]) for row in images] == [
        (image, len(regions)) for image, regions in rows.items()
    ]
    detections = [tuple(row.values()) for part in found for row in part.detections.to_pylist()]
    expected = []
    for image, regions in rows.items():
        for label in sorted(set(regions.labels.tolist())):
            of_label = regions.labels == label
            x1, y1, x2, y2 = regions.boxes[of_label].T.astype(float)
            area = ((x2 - x1) * (y2 - y1)).max() / (regions.width * regions.height)
            best = float(regions.scores[of_label].max())
            expected.append((image, label, int(of_label.sum()), best, pytest.approx(area)))
    assert detections == expected
    shutil.rmtree(path.parent)


def _regions(rng: np.random.Generator, labels: list[int]) -> Regions:
    n, (width, height) = len(labels), rng.integers(5, 90, 2).tolist()
    corners = np.sort(rng.random((n, 2, 2)), axis=1) * [width, height]
    return Regions(
        features=np.zeros((n, 2), np.float16),
        boxes=corners.reshape(n, 4).astype(np.float32),
        labels=np.array(labels, np.uint16),
        scores=np.sort(rng.random(n).astype(np.float32))[::-1],
        attributes=np.zeros((0, MAX_ATTRIBUTES), np.uint16),
        attribute_scores=np.zeros((0, MAX_ATTRIBUTES), np.float16),
        width=width,
        height=height,
    )
