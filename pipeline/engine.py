"""Where shards are made: in this process, or in several. An engine maps shards and nothing else.

A worker makes its shard, writes its rejects and its manifest, and returns the manifest: results are
paths and counts, never data. Workers compute on one thread each, so that the bytes of a shard do
not depend on how many workers there are.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from ..artifact import Manifest, Output, drop
from ..errors import TonicsError
from .stage import Shard, Stage, by_reason, manifest_file, write_rejects
from .staleness import full_identity

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def make_shard(stage: Stage, shard: Shard) -> Manifest:
    """Make one shard and write its manifest: from then on it is finished, whatever happens."""
    started, cpu = time.monotonic(), time.process_time()
    manifest_path = manifest_file(stage.dataset, stage.key, shard.name)
    manifest_path.parent.mkdir(parents=True, exist_ok=True)  # says: files here are ours
    drop(manifest_path)  # from here on an older manifest would vouch for bytes it does not know
    identity = full_identity(stage, shard)
    made = stage.make(shard)
    kept = write_rejects(stage.dataset, stage.key, shard.name, made.rejected)
    manifest = Manifest(
        stage=stage.key,
        shard=shard.name,
        identity=identity,
        outputs=tuple(Output.of(stage.dataset.root, Path(p)) for p in [*made.outputs, *kept]),
        counts={
            "in": shard.rows,
            "out": made.rows,
            "rejected": by_reason(made.rejected),
            "ignored": dict(made.ignored),
            **made.counts,
        },
        cost={
            "wall_s": round(time.monotonic() - started, 3),
            "cpu_s": round(time.process_time() - cpu, 3),
        },
    )
    manifest.write(manifest_path)
    return manifest


def map_shards(stage: Stage, shards: Sequence[Shard], workers: int) -> Iterator[Manifest]:
    """Make shards with ``workers`` processes (1: in this one); yield manifests as they finish.

    When one shard fails, those under way are finished and kept, the rest is not begun.
    """
    if workers <= 1 or len(shards) <= 1:
        for shard in shards:
            yield make_shard(stage, shard)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(workers, len(shards)),
        mp_context=context,
        initializer=_start_worker,
        initargs=(stage,),
    )
    with _one_thread_each():
        pending = {pool.submit(_make_in_worker, shard) for shard in shards}
    try:
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
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
        pool.shutdown(wait=True, cancel_futures=True)


def worker_count(wanted: int) -> int:
    """How many processes to use: as asked, or one a core this process may use."""
    return wanted or len(os.sched_getaffinity(0))


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Compute with so many torch threads inside the block; with one, sums add up in one order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Start processes inside the block with one compute thread: libraries look only once."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


_worker: dict[str, Stage] = {}


def _start_worker(stage: Stage) -> None:
    """Prepare a worker: its stage, with caches of its own; no Ctrl-C, no life after the parent."""
    _worker["stage"] = stage
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _make_in_worker(shard: Shard) -> Manifest:
    return make_shard(_worker["stage"], shard)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
