"""The engine ``ray`` on a real Ray of this machine: same bytes, whoever is killed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

from tonics import __version__
from tonics.artifact import Manifest
from tonics.errors import ConfigError, InputError, MissingAsset, TonicsError
from tonics.pipeline.config import Config, Runtime
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.engines import open_engine
from tonics.pipeline.graph import stages_of
from tonics.pipeline.lock import lock_file, locked, presence
from tonics.pipeline.progress import Meter
from tonics.pipeline.runner import bring_up_to_date
from tonics.pipeline.verify import verify_dataset

ray = pytest.importorskip("ray")
RaySystemError = pytest.importorskip("ray.exceptions").RaySystemError

SLOW_STAGE = '''
"""A stage whose shards take their time, and kill their makers when told to."""
import os, signal, time
from pathlib import Path
from tonics.artifact import atomic_file
from tonics.errors import InputError
from tonics.pipeline.stage import Made, Stage, row_shards

class Slow(Stage):
    kind = "slow"
    folder = property(lambda self: self.dataset.root / "slow")

    def shards(self):
        return row_shards(40, 10)

    def identity(self, shard):
        return {"rows": shard.name}

    def make(self, shard):
        output = self.folder / f"{shard.name}.txt"
        with atomic_file(output) as tmp:
            tmp.write_text(shard.name)
            for row in range(10):
                slow = (self.dataset.root / "slow-00000").exists()
                time.sleep(0.25 if slow and shard.name == "00000" else 0)
                self.advance(1, row % 2)
            while (self.dataset.root / f"hold-{shard.name}").exists():
                time.sleep(0.01)
            if (self.dataset.root / f"kill-{shard.name}").exists():
                os.kill(os.getpid(), signal.SIGKILL)
            if (self.dataset.root / f"die-beside-{shard.name}").exists():
                while not (self.dataset.root / "heard").exists():
                    time.sleep(0.01)
                os.kill(os.getpid(), signal.SIGKILL)
            if (self.dataset.root / f"fail-{shard.name}").exists():
                raise InputError(output, "found 'x'", do="mend it")
            tmp.write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        return Made(outputs=[output], rows=10)
'''


@pytest.fixture(scope="module")
def stages_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Ray's workers find the stage above."""
    folder = tmp_path_factory.mktemp("stages")
    (folder / "slow_stage.py").write_text(SLOW_STAGE)
    return folder


@pytest.fixture(scope="module")
def running(stages_folder: Path) -> Iterator[None]:
    """Ray, started once; an engine uses what is running, and leaves it running."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(stages_folder))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.syspath_prepend(stages_folder)
        ray.init(
            address="local",
            num_cpus=6,  # as Ray counts: two GPUs that nobody computes on, and room for actors
            num_gpus=2,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=100 << 20,
        )
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, draw: Callable[..., Path]) -> Path:
    """A drawn dataset, ingested, with eight shards of images to extract."""
    folder = draw(tmp_path_factory.mktemp("drawn") / "dataset", images=24)
    text = (folder / "tonics.toml").read_text().replace("shard_images = 16", "shard_images = 3")
    (folder / "tonics.toml").write_text(text)
    bring_up_to_date(stages_of(Dataset.open(folder))["ingest"], workers=1)
    return folder


@pytest.fixture(scope="module")
def expected(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes that extraction in this process gives."""
    folder = tmp_path_factory.mktemp("local") / "dataset"
    shutil.copytree(drawn, folder)
    bring_up_to_date(stages_of(Dataset.open(folder))["extract/grid"], workers=1)
    return _bytes(folder)


@pytest.fixture
def folder(drawn: Path, tmp_path: Path) -> Path:
    """A copy of the drawn dataset that is to be built by Ray."""
    shutil.copytree(drawn, tmp_path / "dataset")
    with (tmp_path / "dataset" / "tonics.toml").open("a") as file:
        file.write('[runtime]\nengine = "ray"\nworkers = 2\n')
    return tmp_path / "dataset"


def _bytes(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (folder / "features/grid").iterdir()}


def _check_complete(folder: Path, expected: dict[str, bytes]) -> None:
    assert list(folder.rglob("*.tmp*")) == []  # first: the next run would clean up
    stage = stages_of(Dataset.open(folder))["extract/grid"]
    assert verify_dataset([stage]).problems == []
    assert bring_up_to_date(stage).fresh
    assert list((folder / ".tonics/locks/extract-grid").iterdir()) == []
    assert _bytes(folder) == expected


def _maker(folder: Path, still_wanted: Callable[[], bool], leftover: Collection[Path] = ()) -> int:
    """The process that is writing a shard at this moment, as its temporary file is named."""
    while still_wanted():
        for path in {*folder.glob("features/grid/*.arrow.*.tmp")} - {*leftover}:
            return int(path.suffixes[-2].removeprefix("."))
        time.sleep(0.002)
    return 0


@pytest.mark.usefixtures("running")
def test_actors_give_the_bytes_of_one_process(folder: Path, expected: dict[str, bytes]) -> None:
    stage = stages_of(Dataset.open(folder))["extract/grid"]
    report = bring_up_to_date(stage)
    assert (report.made, report.counts["out"]) == (8, 24)
    assert ray.is_initialized()  # it was not ours to shut down
    _check_complete(folder, expected)


@pytest.mark.usefixtures("running")
def test_a_killed_actor_is_replaced_and_its_shard_made_again(
    folder: Path, expected: dict[str, bytes]
) -> None:
    killed = []

    def kill() -> None:
        if pid := _maker(folder, watching.is_set):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    watching = threading.Event()
    watching.set()
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        report = bring_up_to_date(stages_of(Dataset.open(folder))["extract/grid"])
    finally:
        watching.clear()
        killer.join()
    assert report.made == 8
    assert len(killed) == 1
    assert killed[0] != os.getpid()
    _check_complete(folder, expected)


@pytest.mark.slow
def test_a_killed_or_interrupted_driver_is_run_again(
    folder: Path, expected: dict[str, bytes], running: None, command: Callable[..., list[str]]
) -> None:
    words = command("-C", folder, "run", "extract")
    driver, maker = _start_until_at_work(folder, words)
    os.killpg(driver.pid, signal.SIGINT)  # as Ctrl-C does: children too
    out, err = driver.communicate()
    assert (driver.returncode, out.count("\n")) == (130, 1)  # the line of ingest
    waiting, interrupted = err.splitlines()
    assert waiting == "starting Ray ..."
    assert interrupted.startswith("tonics: interrupted; what is finished is kept")
    assert list(folder.rglob("*.tmp*")) == []
    while _alive(maker):  # a moment, if it was done with its shard
        time.sleep(0.01)
    with (folder / "tonics.toml").open("a") as file:  # from here on with what is running
        file.write(f'ray_address = "{ray.get_runtime_context().gcs_address}"\n')
    driver, _ = _start_until_at_work(folder, words)
    driver.kill()
    driver.communicate()
    driver, maker = _start_until_at_work(folder, words)
    os.kill(maker, signal.SIGKILL)
    out, err = driver.communicate()
    assert driver.returncode == 0, err
    assert [line.split()[0] for line in out.splitlines()] == ["ingest", "extract/grid"]
    said = err.splitlines()
    assert said[0].startswith("connecting to Ray at ")
    assert all("images/" in line for line in said[1:])  # nothing of Ray's
    _check_complete(folder, expected)


def _start_until_at_work(folder: Path, words: list[str]) -> tuple[subprocess.Popen[str], int]:
    """Start a driver; return it and the process that is making a shard for it."""
    leftover = {*folder.glob("features/grid/*.tmp")}
    driver = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    maker = _maker(folder, lambda: driver.poll() is None, leftover)
    assert maker, driver.communicate()
    return driver, maker


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# -- with a stage of our own


@pytest.fixture
def slow(running: None, tmp_path: Path):
    """The stage above on an empty dataset, whose engine is Ray with two actors."""
    from slow_stage import Slow

    runtime = Runtime(engine="ray", workers=2)
    (tmp_path / "tonics.toml").write_text("")
    return Slow(Dataset(tmp_path, Config(runtime=runtime)))


def test_a_shard_that_keeps_killing_its_actor_is_one_clear_error(slow) -> None:
    (slow.dataset.root / "kill-00002").touch()
    with pytest.raises(TonicsError, match=r"^slow, shard 00002: its worker died 3 times: ") as told:
        bring_up_to_date(slow)
    assert len(str(told.value)) < 700
    assert list(slow.dataset.root.rglob("*.tmp*")) == []
    (slow.dataset.root / "kill-00002").unlink()
    assert bring_up_to_date(slow).counts["out"] == 40


def test_an_error_in_an_actor_is_the_stages_own_and_others_are_finished(slow, monkeypatch) -> None:
    kill = ray.kill

    def kill_and_fail(worker: object) -> None:
        kill(worker)
        raise RaySystemError("broken pipe")  # which must not hide what happened before

    monkeypatch.setattr(ray, "kill", kill_and_fail)
    (slow.dataset.root / "fail-00001").touch()
    with pytest.raises(InputError, match=r"00001.txt: found 'x'; mend it$"):
        bring_up_to_date(slow)
    assert (slow.folder / "00000.txt").exists()  # was under way
    assert not (slow.folder / "00003.txt").exists()  # was not begun
    assert list(slow.dataset.root.rglob("*.tmp*")) == []


def test_progress_is_seen_while_a_shard_is_under_way_and_ends_exact(slow) -> None:
    (slow.dataset.root / "slow-00000").touch()
    seen: list[tuple[int, int]] = []
    meter = Meter(40, "rows", lambda pace: seen.append((pace.done, pace.rejected)))
    with open_engine(slow.dataset.config.runtime) as engine:
        for made in engine.map(slow, slow.shards(), meter.reached):
            assert isinstance(made, Manifest)
            meter.finished(made.shard, made.counts["in"], 0)
    assert seen[-1] == (40, 0)
    assert any(rejected for _, rejected in seen)  # only an unfinished shard has said so
    assert len({done for done, _ in seen}) > 5


def test_an_actor_refuses_another_folder_of_the_same_name(slow) -> None:
    from tonics.pipeline.engines.crew import ShardMaker

    maker = ShardMaker(slow)
    with presence(slow.dataset) as driver:
        maker.hello(driver, __version__)
        with pytest.raises(InputError, match=rf"tonics {__version__} on machine .*, and 0.0.1 wh"):
            maker.hello(driver, "0.0.1")
    another = "sees another folder of that name; put it on a file sys"
    with pytest.raises(InputError, match=another):
        maker.hello(driver, __version__)
    lock = lock_file(slow.dataset, slow.key)
    with (  # as parts do: what holds a shared lock is the same for all
        locked(lock, "a part", shared=True),
        presence(Dataset(slow.dataset.root / "mounted", slow.dataset.config)) as elsewhere,
        pytest.raises(InputError, match=another),
    ):
        maker.hello(elsewhere, __version__)
    (slow.dataset.root / "tonics.toml").unlink()
    with pytest.raises(InputError, match="the folder is not there on machine"):
        maker.hello(driver, __version__)


def test_a_file_of_a_run_that_was_killed_is_cleared_away(slow) -> None:
    folder = slow.dataset.state / "locks"
    with presence(slow.dataset) as other:
        (folder / "driver-0.lock").write_text("killed")
        with presence(slow.dataset):
            assert (folder / other.name).exists()
            assert not (folder / "driver-0.lock").exists()
    assert list(folder.iterdir()) == []


def test_nothing_is_begun_again_after_a_failure(slow, monkeypatch) -> None:
    from tonics.pipeline.engines import crew

    (slow.dataset.root / "fail-00001").touch()
    (slow.dataset.root / "die-beside-00000").touch()
    cause_of = crew.cause_of

    def heard(error: Exception, where: str) -> BaseException:
        (slow.dataset.root / "heard").touch()
        return cause_of(error, where)

    monkeypatch.setattr(crew, "cause_of", heard)
    with pytest.raises(InputError, match=r"00001.txt: found 'x'; mend it$"):
        bring_up_to_date(slow)
    assert list(slow.folder.glob("*.txt")) == []


class Odd(Exception):
    """What cannot be sent to another process."""

    def __reduce__(self) -> str:
        raise TypeError("not to be pickled")


def test_an_error_that_cannot_travel_is_told_and_is_no_death() -> None:
    from ray.exceptions import RayError, RayTaskError

    from tonics.pipeline.engines.crew import cause_of

    told = RayTaskError("make", "Traceback\nOdd: cannot travel", Odd("cannot travel"))
    cause = cause_of(told, "slow")
    assert not isinstance(cause, RayError)
    assert re.match(r"slow: a worker failed: .*cannot travel", str(cause))
    sent = cause_of(RayTaskError("make", "Traceback", ValueError("x")), "slow")
    assert isinstance(sent, ValueError)


def test_idle_workers_that_died_are_not_a_shards_doing(slow, monkeypatch) -> None:
    from tonics.pipeline.engines.crew import Crew

    hold = slow.dataset.root / "hold-00000"
    hold.touch()
    crews: list[Crew] = []
    start = Crew.__init__

    def started(crew: Crew, *given: object) -> None:
        start(crew, *given)
        crews.append(crew)

    def reached(shard: str, rows: int, rejected: int) -> None:
        """Once the others are idle: kill them all, then the one at work."""
        crew = crews[0]
        if shard == "00000" and rows and len(crew.idle) == 2 and not crew.deaths:
            hold.unlink()
            for worker in [*crew.idle, *(worker for worker, _ in crew.making.values())]:
                ray.kill(worker)

    monkeypatch.setattr(Crew, "__init__", started)
    with open_engine(slow.dataset.config.runtime, workers=3) as engine:
        made = list(engine.map(slow, slow.shards(), reached))
    assert len(made) == 4
    assert crews[0].deaths == {"00000": 1}


def test_a_ray_that_is_gone_is_one_clear_error(slow, monkeypatch) -> None:
    def gone(*given: object, **options: object) -> None:
        raise RaySystemError("broken pipe")

    monkeypatch.setattr(ray, "wait", gone)
    with (
        pytest.raises(TonicsError, match=r"^engine 'ray': Ray is gone: .*broken pipe.*is finished"),
        open_engine(slow.dataset.config.runtime) as engine,
    ):
        list(engine.map(slow, slow.shards(), lambda *said: None))


def test_actors_share_the_gpus_that_ray_counts(slow, monkeypatch) -> None:
    monkeypatch.setattr(type(slow), "uses_device", True)
    runtime = Runtime(engine="ray", device="cuda")
    with open_engine(runtime) as engine:
        assert engine._count(slow) == 2  # type: ignore[attr-defined]
    with open_engine(runtime, workers=4) as engine:  # the others wait, and are not needed
        assert engine._options(slow)["num_gpus"] == 1  # type: ignore[attr-defined]
        assert len(list(engine.map(slow, slow.shards(), lambda *said: None))) == 4
    assert {p.read_text() for p in slow.folder.glob("*.txt")} <= {"0", "1"}
    with open_engine(Runtime(engine="ray", device="cpu")) as engine:
        assert engine._options(slow)["num_gpus"] == 0  # type: ignore[attr-defined]


def test_little_work_does_not_start_ray(drawn: Path, monkeypatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda *given, **options: pytest.fail("started"))
    stage = stages_of(Dataset.open(drawn))["ingest"]
    with open_engine(Runtime(engine="ray")) as engine:
        assert len(list(engine.map(stage, stage.shards(), lambda *said: None))) == 1


def test_a_gpu_that_ray_does_not_see_is_one_clear_error(slow, monkeypatch) -> None:
    monkeypatch.setattr(type(slow), "uses_device", True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    runtime = Runtime(engine="ray", device="cuda")
    with (
        pytest.raises(InputError, match="device = 'cuda', and Ray sees no GPU"),
        open_engine(runtime) as engine,
    ):
        list(engine.map(slow, slow.shards(), lambda *said: None))


def test_what_ray_cannot_do_is_refused_before_it_starts(monkeypatch) -> None:
    with (
        pytest.raises(
            ConfigError, match=r"'cuda:1' with engine = 'ray', expected 'auto', 'cpu' or"
        ),
        open_engine(Runtime(engine="ray", device="cuda:1")),
    ):
        pass
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    monkeypatch.delitem(__import__("sys").modules, "tonics.pipeline.engines.ray", raising=False)
    with (
        pytest.raises(MissingAsset, match=r"engine 'ray': .*; pip install 'tonics\[ray\]'$"),
        open_engine(Runtime(engine="ray")),
    ):
        pass
