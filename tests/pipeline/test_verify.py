"""``tonics verify`` on a feature store: damage anywhere is found, and a run mends exactly that."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tonics import artifact
from tonics.artifact import Manifest, Output
from tonics.features import FeatureStore
from tonics.features.shard import Shard
from tonics.features.writer import write_shard
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.graph import stages_of
from tonics.pipeline.runner import bring_up_to_date
from tonics.pipeline.stage import Stage, manifest_file
from tonics.pipeline.staleness import status_of
from tonics.pipeline.verify import verify_dataset


@pytest.fixture
def stage(little: Path) -> Stage:
    return stages_of(Dataset.open(little))["extract/grid"]


def contents(stage: Stage) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(stage.folder.iterdir())}


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 16
    path.write_bytes(data)


COLUMNS = ("features", "boxes", "labels", "scores", "attributes", "attribute_scores")


def place(path: Path, what: str) -> int:
    """Where in a shard file a byte of something lies."""
    data = path.read_bytes()
    batch = pa.ipc.open_file(path).get_batch(0)
    if what in COLUMNS:
        found = np.ascontiguousarray(getattr(Shard(path).batch(0), what)).tobytes()
    elif what == "offsets":
        found = batch.column("boxes").offsets.to_numpy().tobytes()
    elif what == "padding":  # buffers end at a multiple of 8 bytes, mostly of 64
        widths = batch.column("width").to_numpy().tobytes()
        return data.find(widths) + len(widths) + 1
    elif what == "footer":
        return len(data) - 200
    elif what == "metadata":
        return data.rfind(b"tonics-features") + 3
    else:
        found = batch.column(what).to_numpy(zero_copy_only=False).tobytes()
        found = b"".join(batch.column(what).to_pylist()) if what == "xxh3" else found
    assert data.count(found) == (6 if what == "offsets" else 1), what
    return data.find(found) + len(found) // 2


@pytest.mark.parametrize(
    "what",
    [*COLUMNS, "image", "num_regions", "width", "height", "xxh3", "offsets", "padding", "footer",
     "metadata"],
)  # fmt: skip
def test_damage_anywhere_in_a_shard_is_found_and_only_that_shard_made_anew(
    stage: Stage, what: str
) -> None:
    wanted = contents(stage)
    path = stage.folder / "00001.arrow"
    flip(path, place(path, what))
    assert status_of(stage).done, "the size is right: nobody has noticed yet"
    (problem,) = verify_dataset([stage]).problems
    first, *where = problem.split("\n  ")
    assert first == "extract/grid: features/grid/00001.arrow was altered"
    assert where
    assert "run" not in problem, "advice belongs at the end, once"
    if what in (*COLUMNS, "xxh3"):
        assert f"{path}: batch 0: image " in where[0]
        assert where[0].endswith("was altered")
    if what == "padding":
        assert "every image in it is intact" in where[0]
    assert [s.shard.name for s in status_of(stage).stale] == ["00001"]
    assert bring_up_to_date(stage, workers=1).made == 1
    assert contents(stage) == wanted
    assert verify_dataset([stage]).problems == []


@pytest.mark.parametrize("name", ["index.arrow", "vocabulary.json"])
def test_damage_in_what_speaks_of_all_shards_costs_no_shard(stage: Stage, name: str) -> None:
    wanted = contents(stage)
    size = (stage.folder / name).stat().st_size
    flip(stage.folder / name, size // 2)
    problem = f"extract/grid: features/grid/{name} was altered"
    assert verify_dataset([stage]).problems == [problem]
    assert bring_up_to_date(stage, workers=1).made == 0
    assert contents(stage) == wanted
    FeatureStore(stage.folder)


def test_every_damaged_image_is_named_also_beside_a_broken_shard_and_index(stage: Stage) -> None:
    path = stage.folder / "00002.arrow"
    flip(path, place(path, "features"))
    image = int(re.search(r"image (\d+) was altered", Shard(path).verify()[0])[1])
    (stage.folder / "00000.arrow").write_bytes(b"broken")
    flip(stage.folder / "index.arrow", 900)
    problems = verify_dataset([stage]).problems
    assert len(problems) == 3
    assert any(f"\n  {path}: batch 0: image {image} was altered" in p for p in problems)
    assert any("00000.arrow: damaged" in problem for problem in problems)
    assert any("index.arrow was altered" in problem for problem in problems)
    assert bring_up_to_date(stage, workers=1).made == 2


def test_an_index_that_does_not_fit_its_shards_is_found_and_made_anew(stage: Stage) -> None:
    """Every file is as its manifest says, and yet the index speaks of other rows."""
    path, file = stage.folder / "00001.arrow", manifest_file(stage.dataset, stage.key, "00001")
    batch = Shard(path).batch(0)
    rows = [(image, batch.regions(row)) for row, image in enumerate(batch.images.tolist())]
    rows[2] = rows[2][0], dataclasses.replace(rows[2][1], scores=rows[2][1].scores / 2)
    with artifact.atomic_file(path) as tmp:
        write_shard(tmp, iter(rows), dim=FeatureStore(stage.folder).dim)
    manifest = Manifest.read(file)
    assert manifest
    outputs = (Output.of(stage.dataset.root, path),)
    dataclasses.replace(manifest, outputs=outputs).write(file)
    (problem,) = verify_dataset([stage]).problems
    assert "extract/grid: index.arrow does not fit its shards: " in problem
    assert "content hash differs" in problem
    assert bring_up_to_date(stage, workers=1).made == 0
    assert verify_dataset([stage]).problems == []
