from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tonics.errors import InputError, MissingAsset
from tonics.pipeline.demo import scenes as demo_scenes
from tonics.pipeline.demo.layout import MIN_VISIBLE
from tonics.pipeline.demo.scenes import compose

SCENES = 70  # more than one chunk


@pytest.fixture(scope="module")
def composed(stamps, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "scenes"
    return out, compose(out, scenes=SCENES, stamps=stamps)


def truths(out: Path):
    return [json.loads(line) for line in (out / "truth.jsonl").read_text().splitlines()]


def contents(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def test_the_folder_holds_images_captions_and_truth(composed):
    out, summary = composed
    assert sorted(p.name for p in out.iterdir()) == [
        "captions.json",
        "images",
        "scenes.json",
        "truth.jsonl",
    ]
    assert len(list((out / "images").glob("*.jpg"))) == SCENES
    assert (summary.scenes, summary.composed, summary.captions) == (SCENES, SCENES, 5 * SCENES)


def test_captions_have_the_form_of_coco(composed):
    out, _ = composed
    coco = json.loads((out / "captions.json").read_text())
    assert set(coco) == {"info", "licenses", "images", "annotations"}
    for image in coco["images"]:
        with Image.open(out / "images" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])
            assert picture.mode == "RGB"
    by_image = {image["id"]: [] for image in coco["images"]}
    for annotation in coco["annotations"]:
        by_image[annotation["image_id"]].append(annotation["caption"])
    for truth in truths(out):
        assert by_image[truth["image_id"]] == [c["caption"] for c in truth["captions"]]
    numbers = [annotation["id"] for annotation in coco["annotations"]]
    assert len(set(numbers)) == 5 * SCENES


def test_boxes_counts_and_visibility_are_sound(composed):
    out, _ = composed
    for truth in truths(out):
        assert 2 <= len(truth["objects"]) <= 4
        for planted in truth["objects"]:
            assert len(planted["boxes_xyxy"]) == planted["count"] == len(planted["visible"])
            assert min(planted["visible"]) >= MIN_VISIBLE
            for x1, y1, x2, y2 in planted["boxes_xyxy"]:
                assert 0 <= x1 < x2 <= truth["width"]
                assert 0 <= y1 < y2 <= truth["height"]


def test_a_box_holds_its_object(composed):
    """The drawn apple is the only wholly red thing: its box must be mostly red, its frame not."""
    out, _ = composed
    checked = 0
    for truth in truths(out):
        pixels = np.asarray(Image.open(out / "images" / truth["image"])).astype(int)
        red = (pixels[..., 0] > 150) & (pixels[..., 1] < 70) & (pixels[..., 2] < 70)
        for planted in truth["objects"]:
            if planted["noun"] != "apple" or truth["ground"] in ("carpet", "tablecloth", "wall"):
                continue
            for (x1, y1, x2, y2), visible in zip(
                planted["boxes_xyxy"], planted["visible"], strict=True
            ):
                if visible == 1.0:
                    share = red[y1:y2, x1:x2].mean()
                    assert 0.6 < share < 0.9, "an ellipse fills 0.785 of its box"
                    checked += 1
    assert checked >= 5


def test_same_bytes_with_two_workers_and_as_part_of_more_scenes(composed, stamps, tmp_path):
    out, _ = composed
    more = compose(tmp_path, scenes=SCENES + 65, stamps=stamps, workers=2)
    assert more.composed == SCENES + 65
    for name, data in contents(out / "images").items():
        assert (tmp_path / "images" / name).read_bytes() == data, name
    assert truths(tmp_path)[:SCENES] == truths(out)


def test_another_seed_gives_other_scenes(composed, stamps, tmp_path):
    out, _ = composed
    compose(tmp_path, scenes=5, seed=1, stamps=stamps)
    assert truths(tmp_path)[0] != truths(out)[0]


def test_what_is_complete_is_not_made_again(stamps, tmp_path):
    compose(tmp_path, scenes=5, stamps=stamps)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = compose(tmp_path, scenes=5, stamps=stamps)
    assert again.composed == 0
    assert again.scenes == 5
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    "lost", ["captions.json", "truth.jsonl", "scenes.json", "images/000003.jpg"]
)
def test_what_was_lost_is_made_again(composed, stamps, tmp_path, lost):
    compose(tmp_path, scenes=5, stamps=stamps)
    before = contents(tmp_path)
    if lost == "scenes.json":  # as when the last moment of a run was cut off
        (tmp_path / ".scenes").mkdir()
    (tmp_path / lost).unlink()
    assert compose(tmp_path, scenes=5, stamps=stamps).composed == 5
    assert contents(tmp_path) == before


def test_other_settings_replace_the_scenes(stamps, tmp_path):
    compose(tmp_path, scenes=8, stamps=stamps)
    compose(tmp_path, scenes=5, stamps=stamps)
    assert len(list((tmp_path / "images").iterdir())) == 5
    assert len(truths(tmp_path)) == 5


def test_a_killed_run_leaves_nothing_half_and_is_taken_up(composed, stamps, tmp_path):
    out, _ = composed
    target = tmp_path / "scenes"
    code = (
        "from pathlib import Path; from tonics.pipeline.demo.scenes import compose; "
        f"compose(Path({str(target)!r}), scenes={SCENES + 65}, stamps=Path({str(stamps)!r}))"
    )
    run = subprocess.Popen([sys.executable, "-c", code])
    while not list(target.glob(".scenes/*/000000-000060")):
        assert run.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert not any((target / name).exists() for name in ("images", "captions.json", "truth.jsonl"))
    summary = compose(target, scenes=SCENES, stamps=stamps)
    assert summary.composed == SCENES - 60, "the finished chunk was made again"
    assert contents(target) == contents(out)


@pytest.mark.parametrize("moment", ["_link", "_coco", "write_json"])
def test_a_run_that_stops_while_gathering_is_taken_up(
    composed, stamps, tmp_path, monkeypatch, moment
):
    out, _ = composed
    with monkeypatch.context() as patch:
        patch.setattr(demo_scenes, moment, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            compose(tmp_path, scenes=SCENES, stamps=stamps)
    assert not (tmp_path / "scenes.json").exists()
    assert compose(tmp_path, scenes=SCENES, stamps=stamps).composed == 0
    assert contents(tmp_path) == contents(out)


def test_somebody_elses_images_are_not_replaced(stamps, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match="was not made by the demo"):
        compose(tmp_path, scenes=5, stamps=stamps)
    assert (tmp_path / "images" / "holiday.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize(("name", "value"), [("scenes", 0), ("seed", -1), ("workers", 0)])
def test_arguments_out_of_range_are_named(stamps, tmp_path, name, value):
    with pytest.raises(InputError, match=f"demo {name}: {value}, expected at least"):
        compose(tmp_path, stamps=stamps, **{"scenes": 5, name: value})


def test_a_folder_without_stamps_is_one_line(tmp_path):
    with pytest.raises(MissingAsset, match="tuxpaint-stamps-default") as caught:
        compose(tmp_path / "out", scenes=5, stamps=tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_summary_says_when_there_are_too_few(composed):
    _, summary = composed
    said = "\n".join(summary.lines())
    assert "too few scenes" in said
    assert "1500 are enough" in said
    assert "no photograph of: " in said
    assert "guitar" in said
