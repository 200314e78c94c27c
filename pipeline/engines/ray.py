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
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from ...artifact import Manifest
from ...errors import ConfigError, InputError, TonicsError
from ..config import Runtime
from ..lock import presence
from ..progress import Reached, Tell, silent
from ..stage import Shard, Stage
from .crew import Crew, why
from .local import LocalEngine
from .machine import one_thread_each, worker_count

_STORE_BYTES = 100 << 20  # only paths and counts travel
_WORTH_CPU_S = 10.0  # a Ray of our own, and its workers, take longer to start


class RayEngine:
    """Makes shards as Ray actors; see ``Engine``.

    Args:
        runtime: ``ray_address`` names a cluster; without one Ray is started on this machine.
        workers: the most actors; 0: one a core or one a GPU.
        tell: told what one is waiting for.

    Raises:
        ConfigError: a single GPU was asked for by number.
    """

    def __init__(self, runtime: Runtime, workers: int, tell: Tell = silent) -> None:
        if ":" in runtime.device:
            found, do = f"{runtime.device!r} with engine = 'ray'", "Ray shares the GPUs out"
            raise ConfigError("runtime.device", found, expected="'auto', 'cpu' or 'cuda'", do=do)
        self.runtime, self.workers, self.tell, self._started = runtime, workers, tell, False

    def map(self, stage: Stage, shards: Sequence[Shard], reached: Reached) -> Iterator[Manifest]:
        """Make shards and yield their manifests as they finish.

        Raises:
            TonicsError: as the stage does; a shard killed its actor three times; actors do not
                start; a machine does not see the dataset folder; Ray itself is gone.
        """
        if not shards:
            return
        if not ray.is_initialized() and _is_little(stage, shards):
            yield from LocalEngine(self.runtime, 1).map(stage, shards, reached)
            return
        with _interruptible():
            self._connect()
            try:
                yield from self._map(stage, shards, reached)
            except RayError as error:
                do = "is it up ('ray status')? run again: what is finished is kept"
                raise TonicsError("engine 'ray'", f"Ray is gone: {why(error)}", do=do) from error

    def _map(self, stage: Stage, shards: Sequence[Shard], reached: Reached) -> Iterator[Manifest]:
        with presence(stage.dataset) as driver:
            crew = Crew(stage, self._options(stage), driver, reached)
            yield from self._supervise(crew, shards)

    def _supervise(self, crew: Crew, shards: Sequence[Shard]) -> Iterator[Manifest]:
        waiting, failure = deque(shards), None
        try:
            crew.hire(min(self._count(crew.stage), len(shards)))
            while waiting or crew.making:
                for worker, shard, outcome in crew.wait():
                    if isinstance(outcome, Manifest):
                        yield outcome
                    elif isinstance(outcome, RayError) and shard is not None:
                        worker = None  # dead
                        if failure is None:
                            waiting.appendleft(shard)
                            crew.replace(shard, outcome)
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
        address = self.runtime.ray_address
        self.tell(f"connecting to Ray at {address} ..." if address else "starting Ray ...")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        quiet: dict[str, Any] = {
            "log_to_driver": False,
            "logging_level": logging.ERROR,
            "configure_logging": False,
        }
        logging.getLogger("ray").setLevel(logging.ERROR)
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


def _is_little(stage: Stage, shards: Sequence[Shard]) -> bool:
    """Whether work is done here before a Ray has started; what may want a GPU is not."""
    rows, each_s = sum(shard.rows for shard in shards), stage.estimate.cpu_s
    return not stage.uses_device and 0 < rows * each_s < _WORTH_CPU_S


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
