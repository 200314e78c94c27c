"""Engines of one machine, who may make a shard, and what is seen of the work."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tonics.artifact import Manifest, atomic_file
from tonics.errors import InputError, LockedError, TonicsError
from tonics.pipeline.config import Config, Runtime
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.engines.local import LocalEngine
from tonics.pipeline.engines.work import make_shard
from tonics.pipeline.graph import stages_of
from tonics.pipeline.lock import claimed, lock_file, locked, shard_lock
from tonics.pipeline.progress import Meter, Pace, Progress
from tonics.pipeline.runner import Part, Report, bring_up_to_date, make_part
from tonics.pipeline.stage import Made, Reject, Shard, Stage, row_shards
from tonics.pipeline.staleness import status_of

SPAWN = multiprocessing.get_context("spawn")


class Steps(Stage):
    """Writes who made a shard, and says how far it is after every row."""

    kind: ClassVar[str] = "steps"
    unit: ClassVar[str] = "letters"

    @property
    def folder(self) -> Path:
        return self.dataset.root / "steps"

    def shards(self) -> list[Shard]:
        return row_shards(12, 4)

    def identity(self, shard: Shard) -> dict[str, Any]:
        return {"rows": shard.name}

    def make(self, shard: Shard) -> Made:
        output = self.folder / f"{shard.name}.txt"
        while (self.dataset.root / "wait").exists():
            time.sleep(0.01)
        with atomic_file(output) as tmp:
            tmp.write_text(str(os.getpid()))
            if (self.dataset.root / "die").exists():
                os._exit(1)
            for _ in range(shard.rows):
                self.advance(1, 0)
                time.sleep(0.4 if (self.dataset.root / "slow").exists() else 0)
        return Made(outputs=[output], rows=3, rejected=[Reject(where="x", reason="odd")])


@pytest.fixture
def stage(tmp_path: Path) -> Steps:
    return Steps(Dataset(tmp_path, Config()))


# -- progress


def _followed(stage: Stage, workers: int) -> list[tuple[int, int]]:
    seen: list[tuple[int, int]] = []
    meter = Meter(12, "letters", lambda pace: seen.append((pace.done, pace.rejected)))
    for made in LocalEngine(Runtime(), workers).map(stage, stage.shards(), meter.reached):
        meter.finished(made.shard, made.counts["in"], made.counts["rejected"]["odd"])
    return seen


def test_a_stage_is_followed_row_by_row_in_this_process(stage: Steps) -> None:
    seen = _followed(stage, 1)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {done for done, _ in seen} == set(range(13))
    assert seen[-1] == (12, 3)


def test_a_pool_tells_how_far_its_shards_are_and_ends_exact(stage: Steps) -> None:
    (stage.dataset.root / "slow").touch()
    seen = _followed(stage, 2)
    assert any(done % 4 for done, _ in seen)  # the middle of a shard
    assert seen[-1] == (12, 3)
    makers = {p.read_text() for p in stage.folder.iterdir()}
    assert str(os.getpid()) not in makers


def test_a_worker_that_dies_is_one_clear_error(stage: Steps) -> None:
    (stage.dataset.root / "die").touch()
    with pytest.raises(TonicsError, match=r"^steps: a worker process died; run again; with --work"):
        bring_up_to_date(stage, workers=2)
    assert list(stage.dataset.root.rglob("*.tmp")) == []
    (stage.dataset.root / "die").unlink()
    assert bring_up_to_date(stage, workers=2).made == 3


def test_sums_are_exact_whatever_is_said_twice_late_or_never() -> None:
    meter = Meter(30, "images", lambda pace: None)
    meter.reached("a", 7, 2)
    meter.reached("b", 3, 0)
    meter.reached("a", 0, 0)  # its worker died: once more from the start
    meter.reached("a", 4, 1)
    assert (meter.done, meter.rejected) == (7, 1)
    meter.finished("a", 10, 3)
    meter.reached("a", 6, 2)  # a late word of the first worker
    meter.finished("b", 10, 0)
    meter.finished("c", 10, 0)
    assert (meter.done, meter.rejected) == (30, 3)


def test_plain_lines_come_soon_and_then_ever_more_seldom(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    times = []
    with Progress().task("extract/vinvl", 1000, "images") as meter:
        for row in range(1000):
            meter.reached("00000", row, row // 500)
            if said := capsys.readouterr().err:
                times.append((now - 100, said))
            now += 2.5
    assert [t for t, _ in times[:6]] == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0]
    gaps = [b - a for (a, _), (b, _) in itertools.pairwise(times[6:])]
    assert set(gaps) == {300.0}
    assert times[0][1] == (
        "extract/vinvl: 2 of 1,000 images (24 images/min, 41.6 min left, 0 rejected)\n"
    )
    assert times[-1][1].endswith("1 rejected)\n")


@pytest.mark.parametrize(
    ("done", "seconds", "says"),
    [
        (12_000, 10, "1,200 images/s"),
        (15, 10, "1.5 images/s"),
        (1, 24, "2.5 images/min"),
        (1, 7200, "0.5 images/h"),
        (0, 0, "0.0 images/h"),
    ],
)
def test_a_pace_is_said_in_a_unit_that_fits(done: int, seconds: float, says: str) -> None:
    pace = Pace(done=done, total=20_000, rejected=0, elapsed_s=seconds, unit="images")
    assert pace.rate == says


def test_extraction_advances_with_every_batch_of_the_detector(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stages_of(Dataset.open(copy))["extract/grid"]
    steps: list[tuple[str, int, int]] = []
    (copy / "images/003.png").write_bytes(b"no image")
    detector = stage.detector  # type: ignore[attr-defined]
    monkeypatch.setattr(detector, "batch_size", 4)
    made = make_shard(stage, stage.shards()[0], lambda *said: steps.append(said))
    assert steps == [("00000", done, int(done > 0)) for done in (0, 4, 8, 12, 16)]
    assert (made.counts["in"], sum(made.counts["rejected"].values())) == (16, 1)


# -- one maker a shard


def _make_first(root: Path) -> None:
    stage = Steps(Dataset(root, Config()))
    make_shard(stage, stage.shards()[0], lambda *said: None)


@pytest.fixture
def elsewhere(stage: Steps) -> Iterator[multiprocessing.process.BaseProcess]:
    """Another process that is making the first shard, until the file 'wait' is gone."""
    (stage.dataset.root / "wait").touch()
    other = SPAWN.Process(target=_make_first, args=(stage.dataset.root,))
    other.start()
    lock = shard_lock(stage.dataset, stage.key, "00000")
    while not (lock.exists() and lock.read_text()):
        assert other.is_alive() or not lock.exists()
        time.sleep(0.01)
    yield other
    other.kill()
    other.join()


def test_a_shard_that_another_makes_is_waited_for_and_not_made_twice(
    stage: Steps, elsewhere: multiprocessing.process.BaseProcess
) -> None:
    threading.Timer(0.5, (stage.dataset.root / "wait").unlink).start()
    made = make_shard(stage, stage.shards()[0], lambda *said: None)
    assert isinstance(made, Manifest)
    assert (stage.folder / "00000.txt").read_text() == str(elsewhere.pid)
    assert not shard_lock(stage.dataset, stage.key, "00000").exists()


def test_the_shard_of_a_maker_that_dies_is_taken_over(
    stage: Steps, elsewhere: multiprocessing.process.BaseProcess
) -> None:
    def kill() -> None:
        elsewhere.kill()
        (stage.dataset.root / "wait").unlink()

    threading.Timer(0.5, kill).start()
    make_shard(stage, stage.shards()[0], lambda *said: None)
    assert (stage.folder / "00000.txt").read_text() == str(os.getpid())


def test_a_maker_that_does_not_end_is_named(
    stage: Steps, elsewhere: multiprocessing.process.BaseProcess
) -> None:
    lock = shard_lock(stage.dataset, stage.key, "00000")
    with (
        pytest.raises(LockedError, match=rf"steps, .*still making it \(pid {elsewhere.pid} on "),
        claimed(lock, "steps, shard 00000", patience_s=0.3),
    ):
        pass


# -- parts of a stage, a machine each


def _part(stage: Stage, text: str) -> Report:
    return make_part(stage, Part.parse(text), LocalEngine(Runtime(), 1), Progress(quiet=True))


def test_parts_are_made_apart_and_finished_by_a_plain_run(stage: Steps) -> None:
    report = _part(stage, "1/2")
    assert (report.made, report.counts["in"], report.counts["rejected"]) == (2, 8, {"odd": 2})
    assert "part 1/2: 2 shards made; 'tonics steps' finishes the stage" in report.line()
    assert sorted(p.name for p in stage.folder.iterdir()) == ["00000.txt", "00002.txt"]
    assert status_of(stage).merged is None
    assert _part(stage, "1/2").made == 0
    assert _part(stage, "2/2").made == 1
    done = bring_up_to_date(stage)
    assert (done.made, done.counts["shards"], done.counts["in"]) == (0, 3, 12)
    (stage.folder / "00001.txt").unlink()
    _part(stage, "2/2")
    assert status_of(stage).why == "not finished yet"  # a merged manifest of before would lie


def test_parts_share_a_stage_and_a_plain_run_does_not(stage: Steps) -> None:
    lock = lock_file(stage.dataset, stage.key)
    with locked(lock, "another part", shared=True):
        assert _part(stage, "1/3").made == 1
        with pytest.raises(LockedError, match="another run is at work"):
            bring_up_to_date(stage)
    with locked(lock, "a plain run"), pytest.raises(LockedError, match="another run is at work"):
        _part(stage, "2/3")


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/2/3", "-1/2", ""])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(
        InputError, match=r"--shards: .*, expected K/N, K from 1 to N, such as 3/16"
    ):
        Part.parse(text)
