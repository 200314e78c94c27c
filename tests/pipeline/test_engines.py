"""Engines of one machine, who may make a shard, and what is seen of the work."""

from __future__ import annotations

import contextlib
import fcntl
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
from tonics.pipeline.lock import claimed, is_locked, lock_file, locked, shard_lock
from tonics.pipeline.part import Part
from tonics.pipeline.progress import Meter, Pace, Progress
from tonics.pipeline.report import Report
from tonics.pipeline.runner import bring_up_to_date, make_part
from tonics.pipeline.stage import Made, Reject, Shard, Stage, manifest_file, row_shards
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

    def prepare(self) -> None:
        if (self.dataset.root / "unprepared").exists():
            raise InputError("model.pth", "is damaged")

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
    manifest_file(stage.dataset, stage.key, "00000").unlink()
    detector = stage.detector  # type: ignore[attr-defined]
    monkeypatch.setattr(detector, "batch_size", 4)
    made = make_shard(stage, stage.shards()[0], lambda *said: steps.append(said))
    assert steps == [("00000", done, int(done > 0)) for done in (0, 4, 8, 12, 16)]
    assert (made.counts["in"], sum(made.counts["rejected"].values())) == (16, 1)


def test_a_pace_leaves_out_what_it_took_to_get_ready(
    stage: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Pace] = []
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    meter = Meter(12, "letters", seen.append)

    def prepare() -> None:
        nonlocal now
        now += 60

    stage.prepare = prepare  # type: ignore[method-assign]
    for shard in stage.shards():
        make_shard(stage, shard, meter.reached)
        now += 1
        if shard.name == "00000":
            assert seen[-1].elapsed_s == 0


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


def test_a_shard_that_another_finished_is_not_made_again(stage: Steps) -> None:
    _make_first(stage.dataset.root)
    first = manifest_file(stage.dataset, stage.key, "00000").stat().st_mtime_ns
    make_shard(stage, stage.shards()[0], lambda *said: None)
    assert manifest_file(stage.dataset, stage.key, "00000").stat().st_mtime_ns == first


@pytest.mark.parametrize("workers", [1, 2])
def test_a_rebuild_makes_what_is_finished_and_keeps_it_until_its_maker_is_ready(
    stage: Steps, workers: int
) -> None:
    bring_up_to_date(stage, workers=workers)
    files = {p: p.read_bytes() for p in stage.dataset.root.rglob("0*") if p.suffix != ".lock"}
    assert len(files) >= 6
    (stage.dataset.root / "unprepared").touch()
    with pytest.raises(InputError, match="damaged"):
        bring_up_to_date(stage, workers=workers, rebuild=True)
    assert {p: p.read_bytes() for p in files} == files
    assert bring_up_to_date(stage, workers=workers).made == 0
    (stage.dataset.root / "unprepared").unlink()
    before = {p: p.stat().st_mtime_ns for p in files}
    assert bring_up_to_date(stage, workers=workers, rebuild=True).made == 3
    assert all(p.stat().st_mtime_ns > ns for p, ns in before.items())


def test_extraction_loads_its_model_before_an_older_shard_counts_no_more(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Damaged:
        @property
        def model(self) -> None:
            raise InputError("model.pth", "is damaged")

    stage = stages_of(Dataset.open(copy))["extract/grid"]
    stage.anew = True
    monkeypatch.setattr(type(stage), "detector", Damaged())
    with pytest.raises(InputError, match=r"model\.pth: is damaged"):
        make_shard(stage, stage.shards()[0], lambda *said: None)
    assert manifest_file(stage.dataset, stage.key, "00000").exists()


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
    lock.parent.mkdir(parents=True)
    lock.write_text('{"pid": 1, "host": "of a killed run", "since": "then"}')
    with locked(lock, "another part", shared=True):
        assert _part(stage, "1/3").made == 1
        with pytest.raises(LockedError, match=r"at work on it \(parts of it are being made, with"):
            bring_up_to_date(stage)
    with locked(lock, "a plain run"), pytest.raises(LockedError, match="another run is at work"):
        _part(stage, "2/3")


def test_a_lock_that_was_given_up_names_nobody(stage: Steps) -> None:
    lock = lock_file(stage.dataset, stage.key)
    with contextlib.suppress(InputError), locked(lock, "a run that fails"):
        assert str(os.getpid()) in lock.read_text()
        raise InputError("x", "y")
    assert lock.read_text() == ""


def test_a_glance_at_a_lock_refuses_no_run(stage: Steps) -> None:
    lock = lock_file(stage.dataset, stage.key)
    lock.parent.mkdir(parents=True)
    glance = os.open(lock, os.O_RDWR | os.O_CREAT)
    fcntl.flock(glance, fcntl.LOCK_SH)  # as 'tonics status' does
    threading.Timer(0.1, os.close, [glance]).start()
    with locked(lock, "a run"):
        assert is_locked(lock)


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/2/3", "-1/2", ""])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(
        InputError, match=r"--shards: .*, expected K/N, K from 1 to N, such as 3/16"
    ):
        Part.parse(text)
