"""The engine for one machine: this process, or several processes.

Workers compute on one thread each, so that the bytes of a shard do not depend on how many workers
there are.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection

from ...artifact import Manifest
from ...errors import TonicsError
from ..config import Runtime
from ..progress import Reached, Tell, silent
from ..stage import Shard, Stage
from .machine import device_of, one_thread_each, worker_count
from .work import make_shard

_REPORT_EVERY_S = 0.5


class LocalEngine:
    """One process, or a pool of them; see ``Engine``.

    Args:
        workers: 1: this process. 0: a process a core, and where a GPU computes this one alone.
    """

    def __init__(self, runtime: Runtime, workers: int, tell: Tell = silent) -> None:
        self.workers = workers

    def map(self, stage: Stage, shards: Sequence[Shard], reached: Reached) -> Iterator[Manifest]:
        """Make shards and yield their manifests as they finish."""
        count = min(self._workers_of(stage), len(shards))
        if count > 1:
            yield from _map_pool(stage, shards, count, reached)
            return
        for shard in shards:
            yield make_shard(stage, shard, reached)

    def close(self) -> None:
        """Nothing outlives ``map``."""

    def _workers_of(self, stage: Stage) -> int:
        if not stage.parallel:
            return 1
        if not self.workers and stage.uses_device and device_of(stage.dataset) != "cpu":
            return 1  # every process would put a model of its own on the GPU
        return worker_count(self.workers)


def _map_pool(
    stage: Stage, shards: Sequence[Shard], count: int, reached: Reached
) -> Iterator[Manifest]:
    context = multiprocessing.get_context("spawn")
    reports, sender = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        count, mp_context=context, initializer=_start_worker, initargs=(stage, sender)
    )
    with one_thread_each():
        pending = {pool.submit(_make_in_worker, shard) for shard in shards}
    try:
        while pending:
            done, pending = wait(pending, _REPORT_EVERY_S, return_when=FIRST_COMPLETED)
            while reports.poll():
                reached(*reports.recv())
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        do = "run again; with --workers 1 the reason shows itself (often: not enough memory)"
        raise TonicsError(stage.key, "a worker process died", do=do) from error
    except BaseException as error:
        if not isinstance(error, Exception):  # interrupted: nobody waits for shards under way
            for worker in multiprocessing.active_children():
                worker.terminate()
        raise
    finally:
        sender.close()
        _drain_until_done(pool, reports)


def _drain_until_done(pool: ProcessPoolExecutor, reports: Connection) -> None:
    """Wait for shards under way; a full pipe that nobody reads would hold their makers up."""
    closing = threading.Thread(target=pool.shutdown, kwargs={"wait": True, "cancel_futures": True})
    closing.start()
    try:
        while reports.poll(None):
            reports.recv()
    except (EOFError, OSError):  # the last worker is gone
        pass
    closing.join()
    reports.close()


class _Worker:
    """What a worker process keeps: its stage, with caches of its own, and where it reports to."""

    def __init__(self, stage: Stage, sender: Connection) -> None:
        self.stage, self.sender, self.last = stage, sender, 0.0

    def reached(self, shard: str, rows: int, rejected: int) -> None:
        """Report now and then. Short messages are written whole: the pipe needs no lock."""
        now = time.monotonic()
        if not rows or now - self.last >= _REPORT_EVERY_S:
            self.last = now
            self.sender.send((shard, rows, rejected))


_worker: list[_Worker] = []


def _start_worker(stage: Stage, sender: Connection) -> None:
    """Prepare a worker; no Ctrl-C, no life after the parent."""
    _worker[:] = [_Worker(stage, sender)]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _make_in_worker(shard: Shard) -> Manifest:
    worker = _worker[0]
    return make_shard(worker.stage, shard, worker.reached)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
