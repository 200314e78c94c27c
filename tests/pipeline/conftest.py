"""A dataset of drawn images and made-up regions: ingest and extract in a second."""

from __future__ import annotations

import shutil
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tonics.features import Regions
from tonics.features import detector as detectors
from tonics.features.detector import Label, Vocabulary
from tonics.pipeline import runner
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.graph import stages_of

DIM, ATTRIBUTES = 32, 16


class MadeUp:
    """Invents regions from an image's pixels."""

    dim = DIM
    vocabulary = Vocabulary(labels=(Label("thing"), Label("other")), attributes=("red", "wet"))
    batch_size = 4
    cpu_s_per_image, bytes_per_image = 0.001, 1000

    def fingerprint(self) -> dict[str, str]:
        return {"made up": "1"}

    def __call__(self, images: list[Any]) -> list[Regions]:
        return [self._regions(np.asarray(image)) for image in images]

    def _regions(self, pixels: np.ndarray) -> Regions:
        rng = np.random.default_rng(int(pixels.astype(np.int64).sum()))
        n = int(rng.integers(1, 6))
        height, width = pixels.shape[:2]
        return Regions(
            features=rng.standard_normal((n, DIM)).astype(np.float16),
            boxes=np.tile(np.array([1, 2, width - 1, height], np.float32), (n, 1)),
            labels=rng.integers(0, 2, n).astype(np.uint16),
            scores=np.linspace(1, 0.5, n, dtype=np.float32),
            attributes=rng.integers(0, 2, (n, ATTRIBUTES)).astype(np.uint16),
            attribute_scores=rng.random((n, ATTRIBUTES)).astype(np.float16),
            width=width,
            height=height,
        )


@pytest.fixture(scope="session")
def _made_up() -> Iterator[None]:
    module = types.ModuleType("made_up_detector")
    module.load = lambda settings, device: MadeUp()  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "made_up_detector", module)
        patched.setitem(detectors.DETECTORS, "made-up", ("made_up_detector", "load"))
        yield


@pytest.fixture(scope="session")
def _little(
    _made_up: None, draw: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = draw(tmp_path_factory.mktemp("little") / "dataset", images=20)
    config = "[ingest]\nimage_root = 'images'\n[[ingest.sources]]\ncaptions = 'captions.jsonl'\n"
    config += "columns = { caption = 'captions' }\n"
    config += "[features.grid]\ndetector = 'made-up'\nshard_images = 8\n"
    (folder / "tonics.toml").write_text(config)
    for key in ("ingest", "extract/grid"):
        runner.bring_up_to_date(stages_of(Dataset.open(folder))[key], workers=1)
    return folder


@pytest.fixture
def little(_little: Path, tmp_path: Path) -> Path:
    """Twenty images in three shards of made-up regions, to be changed at will."""
    return Path(shutil.copytree(_little, tmp_path / "little"))


@pytest.fixture(scope="session")
def planned(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny dataset with more plans: ``mixed`` (groups of four) and ``other`` (random,
    another seed); read it, never change it.
    """
    folder = tmp_path_factory.mktemp("planned") / "dataset"
    shutil.copytree(built, folder)
    with (folder / "tonics.toml").open("a") as file:
        file.write(PLANS)
    stages = stages_of(Dataset.open(folder))
    for name in ("mixed", "other"):
        runner.bring_up_to_date(stages[f"plan/{name}"], workers=1)
    return folder


PLANS = """
[plans.mixed]
batch_size = 8
epochs = 3
embeddings = "captions"
curriculum = "tonics-mixed"
[plans.other]
batch_size = 8
epochs = 2
seed = 1
"""
