"""Imported features: found, read, resumed, appended; an origin that nothing makes stale."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tonics.errors import ConfigError, InputError, StaleInput, TooManyRejects, WouldDiscard
from tonics.features import FeatureStore
from tonics.features.shard import Shard as StoredShard
from tonics.pipeline.cli import app
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.feature_files import Wanted
from tonics.pipeline.forecast import forecast
from tonics.pipeline.graph import stages_of
from tonics.pipeline.importing import export_features, survey_files, with_advice
from tonics.pipeline.runner import Report, bring_up_to_date
from tonics.pipeline.staleness import status_of
from tonics.pipeline.verify import verify_dataset

IMAGES = 20
CONFIG = """
[ingest]
image_files = false
splits = { val = 0.0, test = 0.0 }
[[ingest.sources]]
captions = "captions.jsonl"
[features.given]
detector = "import"
shard_images = 4
max_rejected = 0.5
[plans.random]
features = "given"
batch_size = 4
epochs = 1
"""


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of captions alone, with numbered images."""
    root = tmp_path_factory.mktemp("imported") / "dataset"
    root.mkdir()
    lines = [{"image": f"photo_{k:06d}.jpg", "caption": f"dog number {k}"} for k in range(IMAGES)]
    (root / "captions.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (root / "tonics.toml").write_text(CONFIG)
    bring_up_to_date(stages_of(Dataset.open(root))["ingest"], workers=1)
    return root


@pytest.fixture
def root(ingested: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ingested, tmp_path / "dataset"))


@pytest.fixture
def seen(feature_files: ModuleType) -> list[Any]:
    """What somebody saw in the images, last first, under the names of photo files."""
    numbers = reversed(range(IMAGES))
    return [feature_files.Seen(key=f"photo_{k:06d}", seed=k, count=k % 4 + 1) for k in numbers]


def bring(root: Path, *files: Path, **options: Any) -> Report:
    """Import as the command does."""
    flags = {k: options.pop(k) for k in ("append", "replace_all") if k in options}
    wanted = Wanted(files=files, **options)
    stage = survey_files(Dataset.open(root), "given", wanted, **flags)
    stage.check()
    return bring_up_to_date(stage, workers=1)


def store_of(root: Path) -> FeatureStore:
    return FeatureStore(root / "features" / "given")


def rejected(root: Path) -> dict[str, str]:
    """Where -> reason of everything the import rejected."""
    files = sorted((root / "rejected").glob("extract-given-*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    return {row["where"]: row["reason"] for row in rows}


@pytest.mark.parametrize(
    "family", ["scene_graph", "oscar", "oscar_captioning", "bottom_up", "lxmert", "vinvl_fe"]
)
def test_every_family_becomes_a_store(
    family: str, root: Path, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    path = feature_files.write_family(tmp_path / "in", family, seen)
    sizes = [f"{one.key}\t{one.height} {one.width}" for one in seen]
    hw = feature_files.write_lines(tmp_path / "sizes.tsv", sizes)
    report = bring(root, path, sizes=hw)
    store = store_of(root)
    assert report.counts["out"] == len(store) == IMAGES
    for one in seen:
        image = int(one.key[-6:])
        regions = store[image]
        np.testing.assert_array_equal(regions.features, one.features.astype(np.float16))
        np.testing.assert_array_equal(regions.boxes, one.boxes)
        names = [store.vocabulary.labels[k].name for k in regions.labels]
        wanted = {
            "bottom_up": ["unlabelled"] * one.count,
            "lxmert": [f"label_{k}" for k in one.labels],
            "vinvl_fe": [f"label_{k + 1}" for k in one.labels],
        }
        assert names == wanted.get(family, [feature_files.NAMES[k] for k in one.labels])


def test_the_closing_line_says_how_ids_were_matched_and_what_is_missing(
    root: Path, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    more = [feature_files.Seen(key=f"elsewhere{k}") for k in "abc"]
    path = feature_files.write_family(tmp_path, "bottom_up", [*seen[:-2], *more])
    line = bring(root, path).line()
    assert "21 in, 18 out, 3 ignored (3 not in this dataset)" in line
    assert "18 by file stem" in line
    assert "2 of the dataset's 20 images have no features here" in line


def test_bad_lines_are_rejected_by_file_and_line_across_shards(
    root: Path, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    path = feature_files.write_family(tmp_path, "bottom_up", seen)
    lines = path.read_text().splitlines()
    lines[2] += "\tmore"
    lines[13] = lines[13].replace("\t3\t", "\t2\t", 1).replace("\t4\t", "\t5\t", 1)
    lines.insert(5, lines[0])
    lines.insert(9, "")
    feature_files.write_lines(path, lines)
    report = bring(root, path)
    assert rejected(root) == {
        "up.tsv:3": "wrong column count",
        "up.tsv:6": "image id twice",
        "up.tsv:16": "length does not fit num_boxes",
    }
    assert report.counts["ignored"] == {"empty line": 1}
    assert report.counts["in"] == report.counts["out"] + 3 + 1


def test_too_many_bad_lines_stop_the_import(
    root: Path, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    path = feature_files.write_family(tmp_path, "bottom_up", seen)
    lines = [line if k < 5 else line + "\t" for k, line in enumerate(path.read_text().splitlines())]
    feature_files.write_lines(path, lines)
    with pytest.raises(TooManyRejects, match="15 wrong column count"):
        bring(root, path)


def test_an_import_that_brought_nothing_makes_way(
    root: Path, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    path = feature_files.write_family(tmp_path, "oscar", seen)
    wrong = feature_files.write_lines(tmp_path / "wrong.txt", ["zebra"])
    right = feature_files.write_lines(tmp_path / "right.txt", feature_files.NAMES)
    with pytest.raises(TooManyRejects, match="20 label not in the vocabulary") as refused:
        bring(root, path, vocabulary=wrong)
    wanted = Wanted(files=(path,), vocabulary=wrong)
    assert f"see whether {wrong} is" in str(with_advice(refused.value, wanted))
    words = feature_files.write_lines(tmp_path / "words.txt", feature_files.ATTRIBUTES)
    report = bring(root, path, vocabulary=right, attributes=words)
    assert report.counts["out"] == IMAGES
    with pytest.raises(WouldDiscard, match=r"holds 20 images of features\.tsv"):
        bring(root, path, vocabulary=wrong)


def test_nothing_imported_yet_is_listed_not_refused(root: Path) -> None:
    dataset = Dataset.open(root)
    stages = stages_of(dataset)
    assert not status_of(stages["extract/given"]).done
    found = forecast(dataset, [stages["extract/given"], stages["plan/random"]])
    done = CliRunner().invoke(app, ["-C", str(root), "run", "-n", "extract"])
    assert done.exit_code == 0
    assert "extract/given waits for 'tonics features import given FILE'" in done.output
    assert (found[0].key, found[0].rows) == ("extract/given", 0)
    with pytest.raises(StaleInput, match="nothing imported yet; run 'tonics features import given"):
        export_features(dataset, "given", root / "out", ids="id", geometry=True, replace_all=False)


def test_an_export_without_index_leads_to_run(
    root: Path, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    bring(root, feature_files.write_family(tmp_path, "oscar", seen))
    (root / "features" / "given" / "index.arrow").unlink()
    dataset = Dataset.open(root)
    with pytest.raises(StaleInput, match="has no index; run 'tonics run extract/given'"):
        export_features(dataset, "given", root / "out", ids="id", geometry=True, replace_all=False)
    assert bring_up_to_date(stages_of(dataset)["extract/given"], workers=1).made == 0
    assert len(store_of(root)) == IMAGES


def test_what_is_imported_stays_when_its_file_goes_and_images_come(
    root: Path, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    path = feature_files.write_family(tmp_path, "oscar", seen)
    bring(root, path)
    before = store_of(root).content_hash
    path.unlink()
    with (root / "captions.jsonl").open("a") as file:
        file.write('{"image": "photo_000099.jpg", "caption": "one more dog"}\n')
    stages = stages_of(Dataset.open(root))
    bring_up_to_date(stages["ingest"], workers=1)
    stage = stages_of(Dataset.open(root))["extract/given"]
    stage.check()
    assert status_of(stage).done
    assert bring_up_to_date(stage, workers=1).fresh
    assert store_of(root).content_hash == before


def test_a_damaged_shard_asks_for_its_lines_and_takes_just_them(
    root: Path, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    path = feature_files.write_family(tmp_path, "bottom_up", seen)
    bring(root, path)
    before, shard = store_of(root).content_hash, root / "features" / "given" / "00002.arrow"
    others = shard.with_name("00001.arrow").stat().st_mtime_ns
    shard.unlink()
    hidden = path.rename(tmp_path / "hidden.tsv")
    stage = stages_of(Dataset.open(root))["extract/given"]
    with pytest.raises(
        InputError, match=r"up\.tsv: lines 9 to 12 have to be read again.* is gone"
    ) as told:
        stage.check()
    assert told.value.where == str(path)
    assert "run 'tonics run extract/given'" in told.value.do
    hidden.rename(path)
    stage.check()
    assert bring_up_to_date(stage, workers=1).made == 1
    assert store_of(root).content_hash == before
    assert shard.with_name("00001.arrow").stat().st_mtime_ns == others


@pytest.mark.parametrize("lost", ["file", "survey"])
def test_verify_keeps_damage_that_nobody_can_make_good(
    lost: str, root: Path, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    path = feature_files.write_family(tmp_path, "bottom_up", seen)
    bring(root, path)
    shard = root / "features" / "given" / "00002.arrow"
    survey = root / ".tonics/manifests/extract/given/survey.parquet"
    gone = path if lost == "file" else survey
    hidden = gone.rename(tmp_path / "hidden")
    batch = StoredShard(shard).batch(0)
    data, features = bytearray(shard.read_bytes()), batch.features.tobytes()
    data[data.find(features) + 3] ^= 4
    shard.write_bytes(data)
    manifests = {p: p.read_bytes() for p in survey.parent.glob("*.json")}
    stage = stages_of(Dataset.open(root))["extract/given"]
    for _ in range(2):
        found = verify_dataset([stage])
        (problem,) = found.problems
        assert found.kept == 1
        assert f"batch 0: image {batch.images[0]} was altered" in problem
        why = "put it back as it was" if lost == "file" else "survey.parquet"
        assert re.search(f"kept, because it cannot be made again: .*{why}", problem)
        assert shard.read_bytes() == data
        assert {p: p.read_bytes() for p in survey.parent.glob("*.json")} == manifests
        assert bring_up_to_date(stage, workers=1).fresh
    hidden.rename(gone)
    stage = stages_of(Dataset.open(root))["extract/given"]
    assert verify_dataset([stage]).kept == 0
    assert bring_up_to_date(stage, workers=1).made == 1
    assert verify_dataset([stage]).problems == []


def test_rebuilding_without_the_file_discards_nothing(
    root: Path, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    path = feature_files.write_family(tmp_path, "bottom_up", seen)
    bring(root, path)
    path.write_text(path.read_text() + "\n")
    stage = stages_of(Dataset.open(root))["extract/given"]
    with pytest.raises(InputError, match="changed since"):
        bring_up_to_date(stage, rebuild=True, workers=1)
    assert status_of(stages_of(Dataset.open(root))["extract/given"]).done


def test_an_import_whose_survey_is_lost_is_kept(
    root: Path, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    bring(root, feature_files.write_family(tmp_path, "bottom_up", seen))
    (root / ".tonics/manifests/extract/given/survey.parquet").unlink()
    stage = stages_of(Dataset.open(root))["extract/given"]
    stage.check()
    assert status_of(stage).done


def test_images_numbered_afresh_are_noticed(
    root: Path, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    bring(root, feature_files.write_family(tmp_path, "bottom_up", seen))
    lines = (root / "captions.jsonl").read_text().splitlines()
    feature_files.write_lines(root / "captions.jsonl", lines[::-1])
    bring_up_to_date(stages_of(Dataset.open(root))["ingest"], rebuild=True, workers=1)
    with pytest.raises(InputError, match="numbered afresh"):
        stages_of(Dataset.open(root))["extract/given"].check()


def test_further_files_are_appended_and_other_ones_refused(
    root: Path, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    first = feature_files.write_family(tmp_path / "a", "oscar", seen[:9])
    second = feature_files.write_family(tmp_path / "b", "oscar", seen[7:])
    bring(root, tmp_path / "a")
    untouched = (root / "features/given/00000.arrow").stat().st_mtime_ns
    with pytest.raises(WouldDiscard, match="--append adds to them"):
        bring(root, second)
    bring(root, second, append=True)
    assert len(store_of(root)) == IMAGES
    assert rejected(root) == {
        "b/features.tsv:1": "image id twice",
        "b/features.tsv:2": "image id twice",
    }
    assert (root / "features/given/00000.arrow").stat().st_mtime_ns == untouched
    refused = rejected(root)
    bring(root, second, append=True)
    assert len(store_of(root)) == IMAGES
    assert rejected(root) == refused
    bring(root, first, replace_all=True)
    assert len(store_of(root)) == 9


def test_what_an_appended_file_repeats_is_counted(
    root: Path, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    bring(root, feature_files.write_family(tmp_path / "a", "oscar", seen))
    more = [*seen[:3], feature_files.Seen(key="elsewhere")]
    again = feature_files.write_family(tmp_path / "b", "oscar", more)
    counts = bring(root, again, append=True).counts
    assert counts["rejected"] == {"image id twice": 3}
    assert counts["ignored"] == {"not in this dataset": 1}
    assert counts["in"] == IMAGES + 4
    assert bring(root, again, append=True).counts == counts


def test_an_append_that_fails_leaves_what_was_there(
    root: Path, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    bring(root, feature_files.write_family(tmp_path / "a", "bottom_up", seen[:9]))
    before = store_of(root).content_hash
    second = feature_files.write_family(tmp_path / "b", "bottom_up", seen[9:])
    lines = second.read_text().splitlines()
    feature_files.write_lines(second, [lines[0], *(f"{line}\t" for line in lines[1:])])
    (root / "tonics.toml").write_text(CONFIG.replace("= 0.5", "= 0.2"))
    command = ["-C", str(root), "features", "import", "given", str(second), "--append"]
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, TooManyRejects)
    assert "what was imported before is kept" in str(done.exception)
    report = bring_up_to_date(stages_of(Dataset.open(root))["extract/given"], workers=1)
    assert (report.made, report.counts["out"]) == (0, 9)
    assert store_of(root).content_hash == before
    feature_files.write_lines(second, lines)
    assert bring(root, second, append=True).counts["out"] == IMAGES


def test_a_replacement_that_fails_leaves_no_store_of_two_halves(
    root: Path, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    first = feature_files.write_family(tmp_path / "a", "bottom_up", seen)
    bring(root, first)
    second = tmp_path / "b.tsv"
    feature_files.write_lines(second, [f"{line}\t" for line in first.read_text().splitlines()[1:]])
    shutil.copy(first, tmp_path / "c.tsv")
    with pytest.raises(InputError, match="no line can be read"):
        bring(root, second, format="bottom_up", replace_all=True)
    assert len(store_of(root)) == IMAGES
    lines = first.read_text().splitlines()
    feature_files.write_lines(second, [lines[0], *(f"{line}\t" for line in lines[1:])])
    with pytest.raises(TooManyRejects):
        bring(root, second, replace_all=True)
    assert not (root / "features/given/index.arrow").exists()
    assert bring(root, tmp_path / "c.tsv", replace_all=True).counts["out"] == IMAGES


def test_an_export_replaces_nothing_but_an_export(
    root: Path, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    bring(root, feature_files.write_family(tmp_path / "a", "oscar", seen))
    dataset, mine = Dataset.open(root), tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    options: Any = {"ids": "id", "geometry": True, "replace_all": True}
    for folder in (root, root.parent, root / "features", root / "features/given/new"):
        with pytest.raises(InputError, match="belongs to the dataset"):
            export_features(dataset, "given", folder, **options)
    with pytest.raises(WouldDiscard, match=r"holds 'thesis\.tex', which no export wrote"):
        export_features(dataset, "given", mine, **options)
    assert (root / "tonics.toml").exists()
    assert (mine / "thesis.tex").exists()
    for _ in range(2):
        assert export_features(dataset, "given", root / "oscar", **options).images == IMAGES


def test_images_that_came_later_are_appended_from_the_same_file(
    root: Path, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    late = feature_files.Seen(key="photo_000099", seed=99)
    path = feature_files.write_family(tmp_path, "oscar", [late, *seen])
    assert bring(root, path).counts["ignored"] == {"not in this dataset": 1}
    with (root / "captions.jsonl").open("a") as file:
        file.write('{"image": "photo_000099.jpg", "caption": "one more dog"}\n')
    bring_up_to_date(stages_of(Dataset.open(root))["ingest"], workers=1)
    report = bring(root, path, append=True)
    assert (report.made, report.counts["ignored"]) == (1, {})
    assert len(store_of(root)) == IMAGES + 1
    features = store_of(root)[IMAGES].features
    np.testing.assert_array_equal(features, late.features.astype(np.float16))


def test_files_given_at_once_equal_files_appended(
    root: Path, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    files = [
        feature_files.write_family(tmp_path / name, "scene_graph", part)
        for name, part in (("a", seen[:9]), ("b", seen[9:]))
    ]
    hw = feature_files.write_lines(
        tmp_path / "hw.tsv", [f'{one.key}\t[{{"height": 48, "width": 64}}]' for one in seen]
    )
    bring(root, *files, sizes=hw)
    at_once = store_of(root).content_hash, store_of(root).vocabulary
    bring(root, files[0], sizes=hw, replace_all=True)
    bring(root, files[1], sizes=hw, append=True)
    assert (store_of(root).content_hash, store_of(root).vocabulary) == at_once


def test_a_line_index_saves_reading_and_is_not_trusted_blindly(
    root: Path, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    path = feature_files.write_family(tmp_path, "bottom_up", seen)
    bring(root, path)
    before = store_of(root).content_hash
    lines = path.read_bytes().splitlines(keepends=True)
    offsets = np.cumsum([0, *(len(line) for line in lines[:-1])])
    index = path.with_suffix(".lineidx")
    index.write_text("".join(f"{offset}\n" for offset in offsets))
    bring(root, path, replace_all=True)
    assert store_of(root).content_hash == before
    index.write_text("".join(f"{offset}\n" for offset in np.delete(offsets, 4)))
    with pytest.raises(InputError, match="lineidx"):
        bring(root, path, replace_all=True)
    index.write_text("".join(f"{offset + (offset > 0)}\n" for offset in offsets))
    with pytest.raises(InputError, match="does not say where line 2"):
        bring(root, path, replace_all=True)


def test_an_export_comes_back_as_it_was(
    root: Path, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    bring(root, feature_files.write_family(tmp_path / "in", "vinvl_fe", seen))
    store, out = store_of(root), tmp_path / "out"
    before = {image: store[image] for image in store}
    labels = (root / "features/given/vocabulary.json").read_bytes()
    vocabulary = tmp_path / "vocabulary.json"
    vocabulary.write_bytes(labels)
    export_features(
        Dataset.open(root), "given", out, ids="number", geometry=True, replace_all=False
    )
    rows = json.loads((out / "imageid2idx.json").read_text())
    for name in ("features", "predictions"):
        text = (out / f"{name}.tsv").read_bytes()
        offsets = [int(o) for o in (out / f"{name}.lineidx").read_text().split()]
        for image_id, row in rows.items():
            assert text[offsets[row] :].startswith(f"{image_id}\t".encode())
    cells = (out / "features.tsv").read_text().splitlines()[0].split("\t")
    assert len(cells[2]) == 4 * -(-int(cells[1]) * (feature_files.DIM + 6) * 4 // 3)
    bring(root, out, vocabulary=vocabulary, replace_all=True)
    store = store_of(root)
    assert list(store) == list(before)
    for image, one in before.items():
        for name in ("features", "boxes", "labels", "scores", "attribute_scores"):
            np.testing.assert_array_equal(getattr(store[image], name), getattr(one, name))
        real = one.attribute_scores > 0
        np.testing.assert_array_equal(store[image].attributes[real], one.attributes[real])
    assert [name.name for name in store.vocabulary.labels][:2] == ["label_0", "label_1"]


def test_what_cannot_be_imported_is_said_before_any_work(
    root: Path, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    graph = feature_files.write_family(tmp_path / "graph", "scene_graph", seen)
    with pytest.raises(InputError, match=r"does not say how large its images are.*--sizes"):
        bring(root, graph)
    plain = [feature_files.oscar(one, geometry=False) for one in seen]
    bare = feature_files.write_lines(tmp_path / "bare" / "features.tsv", plain)
    alone = [feature_files.oscar(one, geometry=True) for one in seen]
    lone = feature_files.write_lines(tmp_path / "lone" / "features.tsv", alone)
    with pytest.raises(InputError, match=r"there is no predictions\.tsv beside it; put it there"):
        bring(root, lone)
    with pytest.raises(InputError, match=r"no boxes and no geometry; put predictions\.tsv beside"):
        bring(root, bare)
    other = [feature_files.Seen(key="elsewhere")]
    nobody = feature_files.write_family(tmp_path / "other", "bottom_up", other)
    with pytest.raises(InputError, match="none of its images is in this dataset"):
        bring(root, nobody)
    up = feature_files.write_family(tmp_path / "up", "bottom_up", seen)
    words = feature_files.write_lines(tmp_path / "words.txt", ["dog", "cat"])
    with pytest.raises(InputError, match="leave --vocabulary out"):
        bring(root, up, vocabulary=words)
    with pytest.raises(InputError, match="is of the format"):
        bring(root, up, graph)
    assert not (root / "features").exists()


def test_the_configuration_has_to_speak_of_the_import(root: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(root)
    wanted = Wanted(files=(tmp_path / "x.tsv",))
    with pytest.raises(ConfigError, match=r"add the line \[features.other\]"):
        survey_files(dataset, "other", wanted)
    with pytest.raises(InputError, match=r"nothing imported yet; run 'tonics features import"):
        stages_of(dataset)["extract/given"].check()
    dataset.images_file.unlink()
    with pytest.raises(StaleInput, match="run 'tonics ingest' first"):
        survey_files(dataset, "given", wanted)


def test_two_workers_give_the_same_files(
    root: Path, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    path = feature_files.write_family(tmp_path, "oscar", seen)
    bring(root, path)
    files = sorted((root / "features/given").iterdir())
    before = [file.read_bytes() for file in files]
    stage = stages_of(Dataset.open(root))["extract/given"]
    bring_up_to_date(stage, workers=2, rebuild=True)
    assert [file.read_bytes() for file in files] == before


def test_a_killed_import_goes_on_and_a_plan_is_made_of_it(
    root: Path,
    tmp_path: Path,
    feature_files: ModuleType,
    seen: list[Any],
    command: Callable[..., list[str]],
    run_tonics: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    path = feature_files.write_family(tmp_path, "oscar", seen)
    bring(root, path)
    expected = store_of(root).content_hash
    shutil.rmtree(root / "features")
    shutil.rmtree(root / ".tonics/manifests/extract")
    words = command("-C", root, "features", "import", "given", path, "--workers", "1")
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(root.glob("features/given/00001.arrow*")):
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = [f.stem for f in root.glob(".tonics/manifests/extract/given/0*.json")]
    assert len(finished) < IMAGES // 4, "it was killed too late to test anything"
    kept = {name: _when(root, name) for name in finished}
    done = run_tonics("-C", root, "features", "import", "given", path, "--workers", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["counts"]["out"] == IMAGES
    assert {name: _when(root, name) for name in finished} == kept
    assert store_of(root).content_hash == expected
    assert not list(root.rglob("*.tmp"))
    path.unlink()
    planned = run_tonics("-C", root, "run", "plan")
    assert planned.returncode == 0, planned.stderr
    assert "20 out" in planned.stdout.splitlines()[-1]


def _when(root: Path, shard: str) -> int:
    return (root / "features/given" / f"{shard}.arrow").stat().st_mtime_ns
