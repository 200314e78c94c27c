"""Aim: a plan of 3.3 million pairs for 20 epochs opens in milliseconds, a batch is microseconds.

Writes a plan of random pair numbers in a process of its own, whose memory and time are printed, and
opens it in others: once with its files fresh in the page cache, as after writing. Then single calls
are timed. What the numbers mean (``images_of``, ``captions_of``) costs a table of all pairs at the
first call; the others are views.

    python benchmarks/plan_reader.py
    python benchmarks/plan_reader.py --pairs 500000 --epochs 4
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from measure import in_fresh_process, peak_bytes, print_heading, print_table, timed

from tonics.train.plan import Plan
from tonics.train.plan_files import REMAINDER_SCHEMA, Batches, write_plan

WORLD, GROUP, MEMORY = 8, 16, "resident bytes"


def main() -> None:
    """Write once, open several times, call many times."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=3_300_000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5, help="times the plan is opened")
    parser.add_argument("--calls", type=int, default=2000, help="of each kind")
    parser.add_argument("--folder", type=Path, help="where the plan is written, for a while")
    args = parser.parse_args()

    print_heading(__doc__, "numpy", "pyarrow")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        size = (args.pairs, args.epochs, args.batch_size)
        cpu_s, wall_s, before, peak = in_fresh_process(write, Path(folder), *size)
        files = {f.name: f.stat().st_size for f in Path(folder).iterdir()}
        print(f"{args.pairs:,} pairs x {args.epochs} epochs, batches of {args.batch_size}")
        columns = ["written in", "CPU-s", "wall s", "MB on disk", "peak MB", "arrays given, MB"]
        megabytes = [round(n / 1e6) for n in (sum(files.values()), peak, before)]
        print_table(columns, [["write_plan", round(cpu_s, 1), round(wall_s, 1), *megabytes]])
        opened = [in_fresh_process(read, Path(folder), args.calls) for _ in range(args.rounds)]
        memory = round(max(found.pop(MEMORY) for found in opened) / 1e6)
        rows = [
            [what, *(round(q, 2) for q in (median(opened, what), low(opened, what)))]
            for what in opened[0]
        ]
        print(f"microseconds a call, of {args.rounds} processes: the median, and the least")
        print_table(["call", "median", "least"], rows)
        print(f"{memory:,} MB resident at the end, mapped pages of the plan included")


def write(folder: Path, pairs: int, epochs: int, batch_size: int) -> tuple[float, float, int, int]:
    """Write a plan of random numbers: CPU and wall seconds, memory before, and at the peak."""
    rng, per_epoch = np.random.default_rng(0), pairs // batch_size
    numbers = np.empty((per_epoch * epochs, batch_size), np.int64)
    for epoch in range(epochs):
        drawn = rng.permutation(pairs)[: per_epoch * batch_size]
        numbers[epoch * per_epoch : (epoch + 1) * per_epoch] = drawn.reshape(-1, batch_size)
    count = len(numbers)
    batches = Batches(
        epoch=np.repeat(np.arange(epochs, dtype=np.int32), per_epoch),
        phase=np.zeros(count, np.int16),
        node=np.full(count, -1, np.int32),
        pairs=numbers,
        groups=groups_of(count, batch_size // GROUP),
    )
    header = {
        "created_by": "benchmark",
        "batch_size": batch_size,
        "sub_block": 1,
        "counts": {"epochs": epochs},
        "phases": [],
        "nodes": [],
        "inputs": {},
    }
    table, before = pairs_table(pairs), peak_bytes()
    cost = timed(
        lambda: write_plan(folder, header, batches, table, REMAINDER_SCHEMA.empty_table(), {})
    )
    return cost.cpu_s, cost.wall_s, before, peak_bytes()


def groups_of(count: int, groups: int) -> pa.ListArray:
    """No object for any of so many groups of each batch."""
    starts = pa.array(np.arange(count + 1, dtype=np.int32) * groups)
    return pa.ListArray.from_arrays(starts, pa.array(np.full(count * groups, -1, np.int32)))


def pairs_table(count: int) -> pa.Table:
    """Made-up pairs, one caption an image, in sentences of 55 characters."""
    pair = pa.array(np.arange(count))
    name = pc.binary_join_element_wise(pair.cast(pa.string()), ".jpg", "")
    sentence = pa.scalar("a brown dog jumps over a fence beside a red barn, ")
    return pa.table(
        {
            "pair": pair,
            "pair_key": pc.binary_join_element_wise(name, "0", "#"),
            "image": pair,
            "image_id": name,
            "caption": pc.binary_join_element_wise(sentence, pair.cast(pa.string()), ""),
            "split": pa.repeat("train", count),
            "caption_hash": pair.cast(pa.uint64()),
        }
    )


def read(folder: Path, calls: int) -> dict[str, float]:
    """Microseconds of each kind of call: medians of ``calls`` where it is repeated."""
    start = time.perf_counter()
    plan = Plan(folder)
    opened = 1e6 * (time.perf_counter() - start)
    steps = np.random.default_rng(0).integers(len(plan), size=calls).tolist()
    rank = plan.batch_size // WORLD
    first_of = 1e6 * _seconds(lambda: plan.images_of(plan.batch(0)))
    return {
        "Plan(folder)": opened,
        "the first images_of(batch)": first_of,
        "batch(i)": _median(plan.batch, steps),
        f"rank_rows(i, 3, {WORLD})": _median(lambda i: plan.rank_rows(i, 3, WORLD), steps),
        "batch(i), and its numbers read": _median(lambda i: plan.batch(i).sum(), steps),
        f"images_of({plan.batch_size} pairs)": _median(
            lambda i: plan.images_of(plan.batch(i)), steps
        ),
        f"images_of({rank} pairs)": _median(
            lambda i: plan.images_of(plan.rank_rows(i, 3, WORLD)), steps
        ),
        f"captions_of({rank} pairs)": _median(
            lambda i: plan.captions_of(plan.rank_rows(i, 3, WORLD)), steps
        ),
        MEMORY: peak_bytes(),
    }


def _median(call: Callable[[int], object], steps: list[int]) -> float:
    return 1e6 * statistics.median(_seconds(lambda step=step: call(step)) for step in steps)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def median(opened: list[dict[str, float]], what: str) -> float:
    """The median of one kind of call over processes."""
    return statistics.median(found[what] for found in opened)


def low(opened: list[dict[str, float]], what: str) -> float:
    """The least of one kind of call over processes."""
    return min(found[what] for found in opened)


if __name__ == "__main__":
    main()
