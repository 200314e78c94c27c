"""What a run says beforehand of its cost, and which files a detector's settings mean."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tonics.errors import InputError
from tonics.features.grid import GridDetector
from tonics.pipeline.build import forecast_notes
from tonics.pipeline.config import Features, Runtime
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.engines.work import make_shard
from tonics.pipeline.forecast import Forecast, Hands, forecast
from tonics.pipeline.graph import stages_of
from tonics.pipeline.stages import extract


@pytest.fixture
def fresh(copy: Path) -> Callable[..., Dataset]:
    """The tiny dataset as opened with other settings, its features not made."""
    shutil.rmtree(copy / "features")
    shutil.rmtree(copy / ".tonics/manifests/extract")

    def opened(**runtime: Any) -> Dataset:
        dataset = Dataset.open(copy)
        return Dataset(copy, dataset.config.model_copy(update={"runtime": Runtime(**runtime)}))

    return opened


def _extract(dataset: Dataset) -> Forecast:
    return forecast(dataset, [stages_of(dataset)["extract/grid"]])[0]


def test_a_forecast_takes_the_detectors_figures_until_a_shard_is_finished(
    fresh: Callable[..., Dataset],
) -> None:
    dataset = fresh(workers=2)
    told = _extract(dataset)
    assert (told.rows, told.shards, told.measured) == (40, 3, False)
    assert told.cpu_s == pytest.approx(40 * GridDetector.cpu_s_per_image)
    assert told.bytes == 40 * GridDetector.bytes_per_image
    assert told.wall_s == pytest.approx(told.cpu_s / 2)
    stage = stages_of(dataset)["extract/grid"]
    made = make_shard(stage, stage.shards()[0], lambda *said: None)
    told = _extract(dataset)  # from a stage that is not finished
    assert (told.rows, told.shards, told.measured) == (24, 2, True)
    assert told.cpu_s == pytest.approx(24 * made.cost["cpu_s"] / 16)
    assert told.bytes == pytest.approx(24 * made.outputs[0].bytes / 16)


def test_a_forecast_does_not_take_another_detectors_cost_for_this_ones(
    fresh: Callable[..., Dataset],
) -> None:
    dataset = fresh()
    stage = stages_of(dataset)["extract/grid"]
    make_shard(stage, stage.shards()[0], lambda *said: None)
    settings = Features(settings={"input_size": 224}, shard_images=16)
    config = dataset.config.model_copy(update={"features": {"grid": settings}})
    assert not _extract(Dataset(dataset.root, config)).measured


def test_a_forecast_for_a_gpu_is_honest(fresh: Callable[..., Dataset]) -> None:
    dataset = fresh(engine="ray", ray_address="somewhere:6379", device="cuda", workers=4)
    stage = stages_of(dataset)["extract/grid"]
    manifest = make_shard(stages_of(fresh(device="cpu"))["extract/grid"], stage.shards()[0], print)
    told = _extract(dataset)  # what was measured on a CPU says nothing of a GPU
    assert (told.cpu_s, told.gpu_s, told.wall_s, told.measured) == (None, None, None, False)
    notes = forecast_notes(dataset, [told], Hands.of(dataset))
    assert "not counted: extract/grid, on a GPU; its first finished shard will tell" in notes
    path = dataset.root / ".tonics/manifests/extract/grid/00000.json"
    manifest.cost["device"] = "cuda"  # type: ignore[index]
    manifest.write(path)
    told = _extract(dataset)
    assert told.gpu_s == pytest.approx(24 * manifest.cost["wall_s"] / 16)
    assert told.wall_s == pytest.approx((told.gpu_s or 0) / 2)  # two shards: two of the four


def test_the_address_of_a_cluster_counts_only_with_the_engine_ray(
    fresh: Callable[..., Dataset],
) -> None:
    assert Hands.of(fresh(engine="ray", ray_address="auto", device="cpu")).cores is None
    here = Hands.of(fresh(ray_address="auto", device="cpu", workers=3))
    assert (here.cores, here.gpus) == (3, None)


def test_a_gpu_that_is_not_there_is_said_beforehand(
    fresh: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cuda:1"):
        with pytest.raises(InputError, match=rf"'{device}' for extract/grid, and torch finds no G"):
            _extract(fresh(device=device))
    dataset = fresh(device="cuda")
    assert forecast(dataset, [stages_of(dataset)["ingest"]]) == []  # needs none
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="torch finds 1 GPUs here"):
        _extract(fresh(device="cuda:1"))
    assert _extract(fresh(device="cuda")).key == "extract/grid"


def test_a_disk_that_is_too_small_is_said_beforehand(
    fresh: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = fresh()
    told, hands = _extract(dataset), Hands.of(dataset)
    assert len(forecast_notes(dataset, [told], hands)) == 1
    usage = shutil.disk_usage(dataset.root)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert forecast_notes(dataset, [told], hands)[-1].startswith("NOT ENOUGH ROOM: 1.0 MB are free")


def test_a_detectors_files_are_the_datasets_and_its_other_settings_are_not(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(
        extract, "load_detector", lambda name, settings, device: asked.append(settings)
    )
    extract._detector.cache_clear()
    given = {"checkpoint": "models/a.pth", "label_map": "/abs/map.json", "nms": "legacy"}
    dataset = Dataset.open(copy)
    features = {"grid": Features(detector="vinvl", settings=given)}
    config = dataset.config.model_copy(update={"features": features})
    assert stages_of(Dataset(dataset.root, config))["extract/grid"].detector is None  # type: ignore[attr-defined]
    extract._detector.cache_clear()
    expected = {"checkpoint": str(dataset.root / "models/a.pth")}
    assert asked == [{**given, **expected}]
