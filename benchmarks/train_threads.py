"""Claim: on one torch thread small heads cost the fewest CPU-seconds; two stall on shared cores.

Runs the trainer with a frozen text tower (batches of 128 images, 39 regions of 1,280 numbers,
caption vectors of 384) with one and with two torch threads, with nothing else to do and beside one
busy process, and compares CPU and wall time a step. Reading batches is part of it, start and
checkpoint are not. This is why ``tonics train`` takes one thread for such runs on a CPU
(``threads`` under ``[runtime]`` in ``tonics.toml`` overrides it).

    python benchmarks/train_threads.py
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measure import (
    Cost,
    in_fresh_process,
    median_cpu,
    median_wall,
    print_heading,
    print_table,
    ratio,
)
from regions import write_store_and_plan

from tonics.features import FeatureStore
from tonics.train import Plan

IMAGES, REGIONS, DIM, TEXT_DIM, BATCH = 1024, 39, 1280, 384, 128
WARM_UP = 5


def main() -> None:
    """Run the four cases in turn, round after round."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    print_heading(__doc__, "torch", "numpy")
    cases = [(threads, busy) for busy in (False, True) for threads in (1, 2)]
    runs: dict[tuple[int, bool], list[Cost]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"images": IMAGES, "regions": REGIONS, "dim": DIM, "batch_size": BATCH}
        write_store_and_plan(Path(folder), batches=args.steps + WARM_UP + 1, **sizes)
        for _ in range(args.rounds):
            for threads, busy in cases:
                with busy_process() if busy else contextlib.nullcontext():
                    runs[threads, busy].append(in_fresh_process(one_step, folder, threads))
    print(f"{args.steps} steps of {BATCH} images, {REGIONS} regions of {DIM}")
    columns = ["beside it", "threads", "CPU-ms a step", "wall ms a step"]
    print_table(
        [*columns, "CPU over one thread's", "wall over one thread's"],
        [
            [
                "a busy process" if busy else "nothing of ours",
                threads,
                round(1000 * median_cpu(found), 1),
                round(1000 * median_wall(found), 1),
                ratio(found, runs[1, busy]),
                ratio(found, runs[1, busy], of="wall_s"),
            ]
            for (threads, busy), found in runs.items()
        ],
    )


def one_step(folder: str, threads: int) -> Cost:
    """Train; return what a step took, the first ones and the last (a checkpoint) left out."""
    import torch

    from tonics.train.config import TrainConfig
    from tonics.train.stream import CachedTexts
    from tonics.train.trainer import train

    torch.set_num_threads(threads)
    at: dict[int, tuple[float, float]] = {}

    def note(step: int, total: int, metrics: dict[str, Any]) -> None:
        if step in (WARM_UP, total - 1):
            at[step] = time.process_time(), time.perf_counter()

    vectors = np.random.default_rng(1).normal(size=(IMAGES, TEXT_DIM)).astype(np.float16)
    plan, store = Plan(f"{folder}/plan"), FeatureStore(f"{folder}/store")
    with tempfile.TemporaryDirectory() as run:
        config = TrainConfig(checkpoint_every=10**9, pooling="mean")
        train(config, plan, store, CachedTexts.of_rows(vectors), Path(run), progress=note)
    first, last = sorted(at)
    cpu_s, wall_s = ((b - a) / (last - first) for a, b in zip(at[first], at[last], strict=True))
    return Cost(cpu_s=cpu_s, wall_s=wall_s)


@contextlib.contextmanager
def busy_process() -> Iterator[None]:
    """Keep one core busy inside the block."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
