"""A dataset made from the truth itself must measure as perfect; each damage must show, exactly."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tonics import ontology
from tonics.errors import FormatError, InputError, StaleInput
from tonics.features import Regions
from tonics.features.detector import Label, Vocabulary
from tonics.features.writer import write_index, write_shard
from tonics.ontology.nouns import NOUNS_SCHEMA
from tonics.pipeline.dataset import IMAGES_SCHEMA, PAIRS_SCHEMA
from tonics.pipeline.demo.scenes import compose
from tonics.pipeline.demo.truth import iou, measure

DIM = 4


@pytest.fixture(scope="module")
def scenes(stamps, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "scenes"
    compose(out, scenes=12, stamps=stamps)
    return [json.loads(line) for line in (out / "truth.jsonl").read_text().splitlines()], out


class Copy:
    """A dataset as a perfect build would make it; tests change its rows before writing."""

    def __init__(self, scenes) -> None:
        self.images, self.pairs, self.nouns, self.boxes = [], [], [], {}
        for image, scene in enumerate(scenes):
            name = str(scene["image_id"])
            row = {"image": image, "image_id": name, "path": scene["image"], "content_hash": name}
            self.images.append({**row, "width": 1, "height": 1, "bytes": 1})
            self.boxes[image] = [b for o in scene["objects"] for b in o["boxes_xyxy"]]
            for order, caption in enumerate(scene["captions"]):
                self._add(image, f"{name}#{order}", caption)

    def _add(self, image, key, caption) -> None:
        pair = len(self.pairs)
        row = {"pair": pair, "pair_key": key, "image": image, "caption": caption["caption"]}
        self.pairs.append({**row, "split": "train", "caption_hash": 0})
        for noun in caption["nouns"]:
            lemma = noun["noun"].lower()
            found = {"pair": pair, "start": noun["start"], "end": noun["end"], "lemma": lemma}
            surface = caption["caption"][noun["start"] : noun["end"]]
            more = {"surface": surface, "head": lemma.split()[-1], "tag": "NN", "role": "noun"}
            self.nouns.append({**found, **more, "synset": noun["synset"]})

    def write(self, root: Path) -> Path:
        (root / "nouns").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self.images, IMAGES_SCHEMA), root / "images.parquet")
        pq.write_table(pa.Table.from_pylist(self.pairs, PAIRS_SCHEMA), root / "pairs.parquet")
        half = len(self.nouns) // 2
        for number, rows in enumerate((self.nouns[:half], self.nouns[half:])):
            file = root / "nouns" / f"{number:05d}.parquet"
            pq.write_table(pa.Table.from_pylist(rows, NOUNS_SCHEMA), file)
        self._write_mentions(root / "ontology.duckdb")
        self._write_store(root / "features" / "grid")
        return root

    def _write_mentions(self, file: Path) -> None:
        columns = ("pair", "start", "end", "surface", "lemma", "head", "synset")
        with duckdb.connect(str(file)) as database:
            schema = Path(ontology.__file__).with_name("schema.sql").read_text(encoding="utf-8")
            database.execute(schema.replace("main.", ""))
            rows = [[noun[c] for c in columns] + ["curated", 1.0] for noun in self.nouns]
            database.executemany("INSERT INTO mentions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def _write_store(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        rows = [(image, regions_at(boxes)) for image, boxes in sorted(self.boxes.items())]
        write_shard(folder / "00000.arrow", rows, dim=DIM)
        write_index(folder, Vocabulary(labels=(Label("thing"),)))


def regions_at(boxes) -> Regions:
    n = len(boxes)
    return Regions(
        features=np.zeros((n, DIM), np.float16),
        boxes=np.array(boxes, np.float32).reshape(n, 4),
        labels=np.zeros(n, np.uint16),
        scores=np.ones(n, np.float32),
        attributes=np.zeros((0, 16), np.uint16),
        attribute_scores=np.zeros((0, 16), np.float16),
        width=480,
        height=440,
    )


def test_a_perfect_build_measures_as_perfect(scenes, tmp_path):
    truths, out = scenes
    found = measure(Copy(truths).write(tmp_path / "d"), out / "truth.jsonl")
    planted = sum(len(c["nouns"]) for t in truths for c in t["captions"])
    assert (found["scenes"], found["pairs"]) == (12, 60)
    assert found["nouns_planted"] == found["nouns_found"] == found["nouns_exact"] == planted
    assert found["synsets_right"] == planted
    assert found["noun_share"] == found["synset_share"] == 1.0
    assert found["boxes"] == sum(o["count"] for t in truths for o in t["objects"])
    assert found["iou_mean"] == pytest.approx(1.0)
    assert found["iou_half_share"] == 1.0
    assert found["missed"] == {}
    assert found["confused"] == []
    json.dumps(found)


def test_a_missed_noun_counts_once(scenes, tmp_path):
    truths, out = scenes
    copy = Copy(truths)
    lost = copy.nouns.pop(3)
    found = measure(copy.write(tmp_path / "d"), out / "truth.jsonl")
    assert found["nouns_found"] == found["nouns_planted"] - 1
    assert found["synsets_right"] == found["nouns_planted"] - 1
    assert found["missed"] == {lost["lemma"]: 1}
    assert found["confused"] == [[lost["lemma"], lost["synset"], "", 1]]


def test_half_a_compound_is_found_but_not_exact(scenes, tmp_path):
    truths, out = scenes
    copy = Copy(truths)
    trucks = [noun for noun in copy.nouns if noun["lemma"] == "fire truck"]
    assert trucks
    for noun in trucks:
        noun.update(start=noun["end"] - len(noun["surface"].split()[-1]), lemma="truck")
    found = measure(copy.write(tmp_path / "d"), out / "truth.jsonl")
    assert found["nouns_found"] == found["nouns_planted"]
    assert found["nouns_exact"] == found["nouns_planted"] - len(trucks)


def test_another_word_at_the_same_place_is_not_found(scenes, tmp_path):
    truths, out = scenes
    copy = Copy(truths)
    copy.nouns[5].update(lemma="thing", head="thing")
    found = measure(copy.write(tmp_path / "d"), out / "truth.jsonl")
    assert found["nouns_found"] == found["nouns_planted"] - 1
    assert found["synsets_right"] == found["nouns_planted"]


def test_a_wrong_sense_is_confused(scenes, tmp_path):
    truths, out = scenes
    copy = Copy(truths)
    wrong = [noun for noun in copy.nouns if noun["synset"] == "banana.n.02"]
    for noun in wrong:
        noun["synset"] = "banana.n.01"
    found = measure(copy.write(tmp_path / "d"), out / "truth.jsonl")
    assert wrong
    assert found["synsets_right"] == found["nouns_planted"] - len(wrong)
    assert found["confused"] == [["banana", "banana.n.02", "banana.n.01", len(wrong)]]


def test_boxes_that_are_half_as_wide_have_half_the_overlap(scenes, tmp_path):
    truths, _ = scenes
    copy = Copy(truths)
    first = copy.boxes[0][0]
    copy.boxes = {0: [[first[0], first[1], (first[0] + first[2]) / 2, first[3]]]}
    one = dict(truths[0], objects=[dict(truths[0]["objects"][0], boxes_xyxy=[first])])
    (tmp_path / "truth.jsonl").write_text(json.dumps(one) + "\n")
    found = measure(copy.write(tmp_path / "d"), tmp_path / "truth.jsonl")
    assert found["boxes"] == 1
    assert found["iou_mean"] == pytest.approx(0.5)


def test_an_image_without_regions_counts_as_not_located(scenes, tmp_path):
    truths, out = scenes
    copy = Copy(truths)
    copy.boxes[0] = []
    found = measure(copy.write(tmp_path / "d"), out / "truth.jsonl")
    lost = sum(o["count"] for o in truths[0]["objects"])
    assert found["iou_half_share"] == pytest.approx(1 - lost / found["boxes"])


def test_iou_of_disjoint_and_equal_boxes():
    boxes = np.array([[0, 0, 10, 10], [10, 0, 20, 10], [0, 0, 10, 5]], np.float32)
    assert iou([0, 0, 10, 10], boxes).tolist() == [1.0, 0.0, 0.5]


@pytest.mark.parametrize("gone", ["pairs.parquet", "ontology.duckdb", "nouns"])
def test_a_stage_that_has_not_run_is_named(scenes, tmp_path, gone):
    truths, out = scenes
    dataset = Copy(truths).write(tmp_path / "d")
    (dataset / gone).rename(tmp_path / "elsewhere")
    with pytest.raises(StaleInput, match="tonics run"):
        measure(dataset, out / "truth.jsonl")


def test_the_truth_of_other_images_is_refused(scenes, tmp_path):
    truths, _ = scenes
    dataset = Copy(truths).write(tmp_path / "d")
    (tmp_path / "truth.jsonl").write_text(json.dumps(dict(truths[0], image_id=999)) + "\n")
    with pytest.raises(InputError, match="pairs of the composed scenes"):
        measure(dataset, tmp_path / "truth.jsonl")


@pytest.mark.parametrize("line", ["{", "[]", '{"image_id": 1}'])
def test_a_damaged_truth_names_its_line(scenes, tmp_path, line):
    truths, _ = scenes
    (tmp_path / "truth.jsonl").write_text(json.dumps(truths[0]) + "\n" + line + "\n")
    with pytest.raises(FormatError, match=r"truth\.jsonl:2"):
        measure(tmp_path, tmp_path / "truth.jsonl")
