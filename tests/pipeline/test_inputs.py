"""Datasets of tars, and of features alone, go through the stages as image files do."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tonics.errors import InputError
from tonics.features import FeatureStore
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.runner import bring_up_to_date
from tonics.pipeline.stages.extract import ExtractStage
from tonics.pipeline.stages.ingest import IngestStage
from tonics.train import Plan

CONFIG = """
[ingest]
{ingest}
splits = {{ val = 0.0, test = 0.25 }}
[[ingest.sources]]
captions = "{captions}"
columns = {{ caption = "captions", {columns} }}
{features}
[nouns]
[ontology]
min_images = 4
[plans.tonics]
features = "{name}"
batch_size = 4
epochs = 1
phases = [{{ builder = "ontology", params = {{ depth = "leaves" }} }}]
"""


def pack(files: Path, folder: Path, images: int) -> None:
    """Put a drawn dataset's images and captions into two tars, as img2dataset would."""
    folder.mkdir()
    lines = [json.loads(line) for line in (files / "captions.jsonl").read_text().splitlines()]
    for number in (0, 1):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
            for line in lines[number * images // 2 : (number + 1) * images // 2]:
                key = Path(line["image"]).stem
                tar.add(files / "images" / line["image"], f"{key}.png")
                data = json.dumps(line["captions"]).encode()
                info = tarfile.TarInfo(f"{key}.txt")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def build(root: Path) -> None:
    dataset = Dataset.open(root)
    for stage in (IngestStage(dataset), ExtractStage(dataset, "grid")):
        bring_up_to_date(stage, workers=1)


@pytest.fixture
def tars(draw: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path]:
    """Eight drawn images as files and, in another dataset, in tars."""
    files = draw(tmp_path / "files", 8)
    root = tmp_path / "tars"
    root.mkdir()
    pack(files, root / "cc", 8)
    (root / "tonics.toml").write_text(
        "[ingest]\nimage_root = 'cc'\n[[ingest.sources]]\ncaptions = 'cc/*.tar'\n"
        "[features.grid]\nshard_images = 3\n"
    )
    return files, root


def test_features_from_tars_are_those_from_files(tars: tuple[Path, Path]) -> None:
    for root in tars:
        build(root)
    one, other = (FeatureStore(root / "features" / "grid") for root in tars)
    assert len(one.images) == 8
    for image in one.images:
        np.testing.assert_array_equal(one[image].features, other[image].features)
        assert (one[image].width, one[image].height) == (other[image].width, other[image].height)


def test_a_tar_that_went_is_missed(tars: tuple[Path, Path]) -> None:
    root = tars[1]
    bring_up_to_date(IngestStage(Dataset.open(root)), workers=1)
    shutil.move(root / "cc" / "00001.tar", root / "gone.tar")
    with pytest.raises(InputError, match=r"00001.tar/004.png: was there at ingest and is gone"):
        bring_up_to_date(ExtractStage(Dataset.open(root), "grid"), workers=1)
    shutil.move(root / "gone.tar", root / "cc" / "00001.tar")
    bring_up_to_date(ExtractStage(Dataset.open(root), "grid"), workers=1)


def write_features(path: Path, ids: list[str]) -> None:
    """Features in bottom-up-attention's form: three regions of eight numbers an image."""
    rng = np.random.default_rng(0)
    boxes = np.array([[0, 0, 50, 60], [10, 10, 90, 70], [0, 0, 96, 72]], np.float32)
    with path.open("w") as file:
        for image_id in ids:
            features = rng.standard_normal((3, 8)).astype(np.float32)
            cells = [base64.b64encode(a.tobytes()).decode() for a in (boxes, features)]
            file.write("\t".join([image_id, "96", "72", "3", *cells]) + "\n")


@pytest.fixture
def imageless(draw: Callable[..., Path], tmp_path: Path) -> Path:
    """Captions of forty images that are not there, by key, and a file of their features."""
    root = draw(tmp_path / "dataset")
    shutil.rmtree(root / "images")
    lines = [json.loads(line) for line in (root / "captions.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        line["key"] = str(1000 + number)
        del line["image"]
    (root / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_features(root / "features.tsv", [line["key"] for line in lines[:-2]])
    config = {
        "ingest": "image_files = false",
        "captions": "captions.jsonl",
        "columns": 'image = "", image_id = "key"',
        "features": '[features.theirs]\ndetector = "import"',
        "name": "theirs",
    }
    (root / "tonics.toml").write_text(CONFIG.format(**config))
    return root


def test_features_without_images_make_plans(imageless: Path, run_tonics: Callable) -> None:
    def tonics(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return run_tonics("-C", imageless, *words)

    for words in (
        ["ingest"],
        ["features", "import", "theirs", imageless / "features.tsv"],
        ["run"],
    ):
        done = tonics(*words)
        assert done.returncode == 0, done.stderr
    plan = Plan(imageless / "plans" / "tonics")
    keys = set(plan.pairs.column("pair_key").to_pylist())
    assert keys
    assert not {key for key in keys if key.startswith(("1038#", "1039#"))}  # without features
    status = json.loads(tonics("status", "--json").stdout)
    assert {row["state"] for row in status} == {"done"}
    shown = tonics("show", "image", "1000").stdout
    assert "features alone, no image file" in shown
    assert "3 regions" in shown


def test_a_detector_needs_images(imageless: Path, run_tonics: Callable) -> None:
    text = (imageless / "tonics.toml").read_text()
    (imageless / "tonics.toml").write_text(text.replace('"import"', '"grid"'))
    done = run_tonics("-C", imageless, "run", "extract")
    assert done.returncode == 2
    assert "features.theirs.detector: value 'grid' needs images" in done.stderr
    assert "expected 'import'; fill the set with 'tonics features import'" in done.stderr
