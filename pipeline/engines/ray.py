"""The engine for many machines: Ray actors, one a GPU where the stage can use it, else one a core.

An actor gets the stage once, so that a model is loaded once, and makes one shard at a time; paths
and manifests come back. The dataset folder has to be the same on every machine. Who dies is
replaced, and its shard is made again by another: Ray's own restarts are off, so that nobody but
the driver ever hands out a shard.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from ...artifact import Manifest
from ...errors import ConfigError, InputError, TonicsError
from ..config import CONFIG_NAME, Runtime
from ..lock import lock_file
from ..progress import Reached
from ..stage import Shard, Stage
from .machine import one_thread_each, worker_count
from .work import make_shard

_DEATHS = 3  # of actors: so often at one shard, or in a row before any could begin, is no accident
_LOOK_EVERY_S = 0.5
_GONE_S = 10.0  # how long a killed actor may take to be gone
_ROOM_S = 60.0  # how long one waits for Ray to start a worker before saying so
_STORE_BYTES = 100 << 20  # only paths and counts travel

log = logging.getLogger(__name__)


class RayEngine:
    """Makes shards as Ray actors; see ``Engine``.

    Args:
        runtime: ``ray_address`` names a cluster; without one Ray is started on this machine.
        workers: the most actors; 0: one a core or one a GPU.

    Raises:
        ConfigError: a single GPU was asked for by number.
    """

    def __init__(self, runtime: Runtime, workers: int) -> None:
        if ":" in runtime.device:
            found, do = f"{runtime.device!r} with engine = 'ray'", "Ray shares the GPUs out"
            raise ConfigError("runtime.device", found, expected="'auto', 'cpu' or 'cuda'", do=do)
        self.runtime, self.workers, self._started = runtime, workers, False

    def map(self, stage: Stage, shards: Sequence[Shard], reached: Reached) -> Iterator[Manifest]:
        """Make shards and yield their manifests as they finish.

        Raises:
            TonicsError: as the stage does; a shard killed its actor three times; actors do not
                start; a machine does not see the dataset folder.
        """
        if not shards:
            return
        with _interruptible():
            self._connect()
            yield from self._map(stage, shards, reached)

    def _map(self, stage: Stage, shards: Sequence[Shard], reached: Reached) -> Iterator[Manifest]:
        crew = _Crew(stage, self._options(stage), reached)
        waiting, failure = deque(shards), None
        deaths: Counter[str] = Counter()
        try:
            crew.hire(min(self._count(stage), len(shards)))
            while waiting or crew.making:
                for worker, shard, outcome in crew.wait():
                    if isinstance(outcome, Manifest):
                        yield outcome
                    elif isinstance(outcome, RayError) and shard is not None:
                        deaths[shard.name] += 1
                        _check_deaths(stage, shard, deaths[shard.name], outcome)
                        waiting.appendleft(shard)
                        worker = crew.another()
                    elif outcome is not None:
                        failure = failure or outcome
                        waiting.clear()
                    if worker is not None and waiting:
                        crew.give(worker, waiting.popleft())
                    elif worker is not None:
                        crew.idle.append(worker)
                if failure is not None and not crew.making:
                    raise failure
        finally:
            crew.dismiss()

    def close(self) -> None:
        """Shut down what was started here; leave a cluster that was running before."""
        if self._started:
            ray.shutdown()
            self._started = False

    def _connect(self) -> None:
        if ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        quiet: dict[str, Any] = {
            "log_to_driver": False,
            "logging_level": logging.ERROR,
            "configure_logging": False,
        }
        logging.getLogger("ray").setLevel(logging.ERROR)
        address = self.runtime.ray_address
        try:
            with _own_signals(), one_thread_each():
                if address:
                    ray.init(address=address, **quiet)
                else:
                    ray.init(
                        address="local",
                        num_cpus=worker_count(self.workers),
                        include_dashboard=False,
                        object_store_memory=_STORE_BYTES,
                        **quiet,
                    )
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = f"runtime.ray_address = {address!r}" if address else "engine 'ray'"
            do = "is the cluster up ('ray status')?" if address else "see the logs below /tmp/ray"
            raise TonicsError(where, f"Ray does not start ({error})", do=do) from error
        self._started = True
        _silence_errors()

    def _count(self, stage: Stage) -> int:
        resources = ray.cluster_resources()
        kind = "GPU" if self._options(stage)["num_gpus"] else "CPU"
        there = max(1, int(resources.get(kind, 0)))
        return self.workers or there  # more than there are: for a cluster that grows

    def _options(self, stage: Stage) -> dict[str, Any]:
        """What an actor asks of Ray. The second thread answers how far the first one is."""
        gpus = ray.cluster_resources().get("GPU", 0)
        wanted = stage.uses_device and self.runtime.device != "cpu"
        if wanted and self.runtime.device == "cuda" and not gpus:
            do = "say device = \"cpu\" or 'auto', or add machines that have one"
            raise InputError("engine 'ray'", "device = 'cuda', and Ray sees no GPU", do=do)
        num_gpus = 1 if wanted and gpus else 0
        return {"num_cpus": 1, "num_gpus": num_gpus, "max_restarts": 0, "max_concurrency": 2}


class ShardMaker:
    """The actor: a stage, with caches of its own, on some machine."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self._reached = stage, ("", 0, 0)

    def hello(self, proof: str) -> None:
        """Make sure that this machine sees the driver's dataset folder.

        Raises:
            InputError: it sees none, or another one.
        """
        root, node = self.stage.dataset.root, ray.util.get_node_ip_address()
        do = "put it on a file system that all machines mount at the same place"
        if not (root / CONFIG_NAME).is_file():
            raise InputError(root, f"the folder is not there on machine {node}", do=do)
        if proof != _proof(self.stage):
            raise InputError(root, f"machine {node} sees another folder of that name", do=do)

    def make(self, shard: Shard) -> Manifest:
        """Make one shard."""
        return make_shard(self.stage, shard, self._reach)

    def reached(self) -> tuple[str, int, int]:
        """How far the shard under way is."""
        return self._reached

    def _reach(self, shard: str, rows: int, rejected: int) -> None:
        self._reached = (shard, rows, rejected)


Outcome = Manifest | BaseException | None  # None: a worker is ready for its first shard


class _Crew:
    """The actors of one stage: who is starting, who is making which shard."""

    def __init__(self, stage: Stage, options: dict[str, Any], reached: Reached) -> None:
        self.stage, self.reached = stage, reached
        self.maker: Any = ray.remote(**options)(ShardMaker)
        self.sent = ray.put(stage)
        self.proof = _proof(stage)
        self.starting: dict[Any, Any] = {}  # answer to come -> worker
        self.making: dict[Any, tuple[Any, Shard]] = {}
        self.asked: dict[Any, Any] = {}  # answer how far it is -> worker
        self.idle: list[Any] = []
        self.workers: list[Any] = []
        self.failed_starts = 0
        self._looked, self._hired, self.mentioned = 0.0, time.monotonic(), False

    def hire(self, count: int) -> None:
        """Start so many workers."""
        for _ in range(count):
            worker = self.maker.remote(self.sent)
            self.workers.append(worker)
            self.starting[worker.hello.remote(self.proof)] = worker

    def another(self) -> Any | None:
        """A worker in place of one that died; None when one has to start first."""
        if self.idle:
            return self.idle.pop()
        self.hire(1)
        return None

    def give(self, worker: Any, shard: Shard) -> None:
        """Have a worker make a shard."""
        self.reached(shard.name, 0, 0)
        self.making[worker.make.remote(shard)] = (worker, shard)

    def wait(self) -> Iterator[tuple[Any, Shard | None, Outcome]]:
        """Yield what happened, if anything did within a moment: worker, its shard, the outcome."""
        answers = [*self.starting, *self.making]
        done, _ = ray.wait(answers, num_returns=1, timeout=_LOOK_EVERY_S)
        self._look()
        self._mention_waiting()
        for answer in done:
            starting = answer in self.starting
            worker, shard = (
                (self.starting.pop(answer), None) if starting else self.making.pop(answer)
            )
            try:
                outcome = ray.get(answer)
                self.failed_starts = 0
            except RayTaskError as error:
                outcome = error.cause
            except RayError as error:
                self._bury(worker)
                if starting:
                    self._start_another(error)
                    continue
                outcome = error
            yield worker, shard, outcome

    def dismiss(self) -> None:
        """End all workers; whoever was at work is waited for until it is gone."""
        for worker in self.workers:
            ray.kill(worker)
        if self.making:
            ray.wait([*self.making], num_returns=len(self.making), timeout=_GONE_S)

    def _bury(self, worker: Any) -> None:
        """Make sure that a worker which seems dead is."""
        self.workers.remove(worker)
        ray.kill(worker)

    def _start_another(self, error: RayError) -> None:
        self.failed_starts += 1
        if self.failed_starts >= _DEATHS:
            do = "is the same tonics installed on every machine?"
            raise TonicsError("engine 'ray'", f"workers do not start: {_why(error)}", do=do)
        self.hire(1)

    def _mention_waiting(self) -> None:
        """Say once why nothing happens, where Ray has no room for a worker."""
        if not self.mentioned and not self.making and time.monotonic() - self._hired > _ROOM_S:
            log.warning("%s: Ray has no room for a worker yet; see 'ray status'", self.stage.key)
            self.mentioned = True

    def _look(self) -> None:
        """Ask whoever is at work how far it is, and tell what the answers are."""
        if time.monotonic() - self._looked < _LOOK_EVERY_S:
            return
        self._looked = time.monotonic()
        if self.asked:
            answers, _ = ray.wait([*self.asked], num_returns=len(self.asked), timeout=0)
            for answer in answers:
                self._hear(answer, self.asked.pop(answer))
        silent = set(self.asked.values())
        for worker, _shard in self.making.values():
            if worker not in silent:
                self.asked[worker.reached.remote()] = worker

    def _hear(self, answer: Any, worker: Any) -> None:
        with contextlib.suppress(RayError):  # that it died is dealt with where it matters
            name, rows, rejected = ray.get(answer)
            if (worker, name) in [(w, s.name) for w, s in self.making.values()]:
                self.reached(name, rows, rejected)


def _check_deaths(stage: Stage, shard: Shard, deaths: int, error: RayError) -> None:
    if deaths >= _DEATHS:
        found = f"its worker died {deaths} times: {_why(error)}"
        do = (
            "often it is memory: give Ray fewer workers or the stage smaller shards; see Ray's logs"
        )
        raise TonicsError(f"{stage.key}, shard {shard.name}", found, do=do)


def _why(error: RayError) -> str:
    """Ray's reason without the advice that follows it."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = next((line for line in lines if "dead because" in line or "Error" in line), lines[0])
    return told.partition("Some common causes")[0].strip()[:300]


def _proof(stage: Stage) -> str:
    """What only the folder that the driver works on holds: who has locked the stage, since when."""
    path = lock_file(stage.dataset, stage.key)
    return path.read_text() if path.is_file() else ""


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep our answer to a polite kill: Ray puts its own in place when it starts."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # not the main thread: then Ray could not either
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Pass on what a signal handler raises while Ray waits: its C code wraps it up."""
    try:
        yield
    except SystemError as error:
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None


def _silence_errors() -> None:
    """Keep what Ray prints about dead workers off standard output, where results go.

    Ray has no setting for it: a thread of the driver prints it whatever ``log_to_driver`` says.
    """
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda *args, **options: None
