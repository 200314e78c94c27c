"""Extraction around its detector: images without numbers, replaced files, decoding ahead."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tonics.errors import ConfigError, InputError, MissingAsset, StaleInput
from tonics.features import detector as detectors
from tonics.features.detector import Undescribed
from tonics.pipeline import runner
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.graph import stages_of
from tonics.pipeline.stages import extract
from tonics.pipeline.staleness import status_of

from .conftest import MadeUp


@pytest.fixture
def make(little: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The function that makes shard 0 (8 images) with a detector, on a device."""

    def run(detector: Any, device: str = "cpu") -> Any:
        monkeypatch.setattr(extract, "_detector", lambda *key: detector)
        monkeypatch.setattr(extract, "device_of", lambda dataset: device)
        stage = stages_of(Dataset.open(little))["extract/grid"]
        return stage.make(stage.shards()[0])

    return run


class Choosy(MadeUp):
    """Has no numbers for the second image of each batch."""

    batch_size = 3

    def __call__(self, images: list[Any]) -> list[Any]:
        found: list[Any] = super().__call__(images)
        raise Undescribed("choosy", "no numbers (image 1)", answers=[found[0], None, *found[2:]])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_images_without_numbers_are_rejected_and_the_others_kept(
    make: Callable[..., Any], device: str
) -> None:
    made = make(Choosy(), device)
    assert made.rows == 5
    assert [reject.reason for reject in made.rejected] == ["no numbers"] * 3
    assert len({reject.where for reject in made.rejected}) == 3


def test_decoding_ahead_changes_nothing_but_the_thread(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()
    opened = extract.open_image

    def noted(*given: Any) -> Any:
        threads.add(threading.current_thread())
        return opened(*given)

    monkeypatch.setattr(extract, "open_image", noted)
    alone = make(MadeUp()).outputs[0].read_bytes()
    assert threads == {threading.main_thread()}
    assert make(MadeUp(), "cuda").outputs[0].read_bytes() == alone
    assert len(threads) == 2


class Replaced(MadeUp):
    """Its weights are others each time one looks."""

    looks = 0

    def fingerprint(self) -> dict[str, str]:
        self.looks += 1
        return {"weights": str(self.looks)}


def test_a_detector_that_was_replaced_meanwhile_makes_no_shard(make: Callable[..., Any]) -> None:
    with pytest.raises(StaleInput, match="the detector's files were replaced meanwhile"):
        make(Replaced())


def test_replaced_files_are_loaded_anew(little: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def load(settings: dict[str, Any], device: str) -> MadeUp:
        made.append(Path(settings["weights"]).read_text())
        return MadeUp()

    monkeypatch.setitem(detectors.FILE_SETTINGS, "made-up", ("weights",))
    monkeypatch.setattr("made_up_detector.load", load)
    config = little / "tonics.toml"
    config.write_text(f"{config.read_text()}settings = {{ weights = 'weights.bin' }}\n")
    for content in ("old", "newer"):
        (little / "weights.bin").write_text(content)
        stage: Any = stages_of(Dataset.open(little))["extract/grid"]
        assert stage.detector is stage.detector
    assert made == ["old", "newer"]


class Nested(MadeUp):
    """Tells its settings one by one."""

    def __init__(self, nms_filter: int) -> None:
        self.nms_filter = nms_filter

    def fingerprint(self) -> dict[str, Any]:
        return {"settings": {"nms": "legacy", "nms_filter": self.nms_filter}}


def test_a_changed_setting_is_told_by_its_name(
    little: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stage(nms_filter: int) -> Any:
        monkeypatch.setattr(extract, "_detector", lambda *key: Nested(nms_filter))
        return stages_of(Dataset.open(little))["extract/grid"]

    runner.bring_up_to_date(stage(1), workers=1, rebuild=True)
    assert status_of(stage(1)).done
    assert status_of(stage(2)).why == "3 of 3 shards: detector.settings.nms_filter was 1, is 2"


LABELS = {"label_to_idx": {"thing": 1}, "attribute_to_idx": {"red": 1}}


@pytest.mark.parametrize(
    ("settings", "kind", "says"),
    [
        ("nms_filter = 3", ConfigError, "detector 'vinvl': nms_filter = 3"),
        ("checkpoint = 'no.pth'", MissingAsset, "detector 'vinvl': checkpoint = "),
        ("checkpoint = 'images'", InputError, "images: is a folder"),
        ("label_map = 'captions.jsonl'", InputError, "captions.jsonl: not a label map"),
    ],
)
def test_settings_that_do_not_work_name_their_section(
    little: Path, settings: str, kind: type[Exception], says: str
) -> None:
    (little / "weights.pth").write_bytes(b"weights")
    (little / "labels.json").write_text(json.dumps(LABELS))
    config = little / "tonics.toml"
    given = {"checkpoint": "checkpoint = 'weights.pth'", "label_map": "label_map = 'labels.json'"}
    given[settings.partition(" ")[0]] = settings
    section = "\n[features.found]\ndetector = 'vinvl'\n[features.found.settings]\n"
    config.write_text(config.read_text() + section + "\n".join(given.values()) + "\n")
    stage: Any = stages_of(Dataset.open(little))["extract/found"]
    for ask in (stage.check, lambda: stage.estimate):
        with pytest.raises(kind) as error:
            ask()
        assert type(error.value) is kind
        assert str(error.value).startswith(f"{config}: features.found: ")
        assert says in str(error.value)
