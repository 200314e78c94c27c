"""Claim: a planned batch is read at 0.7 x memcpy, 0.9 x numpy memmap, 3 x the best dataset library.

Warm: each way fills the same reused memory with the features of 256 random images (10 to 100
regions of 2,048 float16 each) a batch, everything in the page cache, one thread; against it
``np.copyto`` of as many bytes lying side by side in memory. gather also copies boxes, labels and
scores; only features are counted. webdataset cannot read a planned batch: it reads as many images
in the order of its file.

Cold: before each round the files' pages are dropped (``posix_fadvise``), and every image is read
once; wall time. ``gather_ahead`` of a store that asks the kernel ahead, against one ``preadv`` an
image from 1 to 32 threads, and against page faults; all into memory that was used before, with all
files open. Whether pages really go is checked.

Makes about 500 MB for each way in a temporary folder. A library that is not installed is left out.

    python benchmarks/gather.py
"""

from __future__ import annotations

import argparse
import ctypes
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from measure import Cost, compare, median_cpu, median_wall, print_heading, print_table, ratio, timed
from stores import DIM, Data, Memmap, Ours, Pread, Way, installed

from tonics.features import FeatureStore
from tonics.features.readahead import let_go
from tonics.features.ring import BufferPool, gather_ahead

BATCH = 256
THREADS = (1, 8, 32)


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=2304)
    parser.add_argument("--regions", type=int, nargs=2, default=(10, 100), help="fewest and most")
    parser.add_argument("--batches", type=int, default=9, help="warm batches a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=("warm", "cold"))
    parser.add_argument("--folder", type=Path, help="where to make the files (a disk to measure)")
    args = parser.parse_args()

    print_heading(__doc__, "numpy", "pyarrow")
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        counts = rng.integers(args.regions[0], args.regions[1] + 1, args.images)
        data = Data.make(Path(folder), counts, rng)
        print(f"{args.images:,} images, {data.file.stat().st_size / 1e6:,.0f} MB of features\n")
        if args.only != "cold":
            measure_warm(data, args.batches, args.rounds, rng)
        if args.only != "warm":
            measure_cold(data, args.rounds, rng)


def measure_warm(data: Data, batches: int, rounds: int, rng: np.random.Generator) -> None:
    """Time every way, and memcpy, on the same batches."""
    count = len(data.starts) - 1
    order = np.concatenate([rng.permutation(count) for _ in range(-(-batches * BATCH // count))])
    images = order[: batches * BATCH].reshape(-1, BATCH)
    sizes = [len(data.rows(batch)) for batch in images]
    most = BATCH * int(np.diff(data.starts).max())
    ways: list[Way] = [Ours(data), Memmap(data), Pread(data)]
    for library in installed():
        ways.append(library(data))
        ways[-1].write()
    for way in ways:
        way.open()
        check(data, way, images[0], way.memory(most))
    read: dict[str, list[int]] = {way.name: [] for way in ways}

    def reads(way: Way) -> Callable[[], None]:
        out = way.memory(most)
        return lambda: read[way.name].append(sum(way.read(batch, out) for batch in images))

    out, memory = Memmap(data).memory(most), Memmap(data).memory(int(data.starts[-1]))
    memory[:] = data.features()

    def memcpy() -> None:
        for number, size in enumerate(sizes):
            first = min(number * len(memory) // len(sizes), len(memory) - size)
            np.copyto(out[:size], memory[first : first + size])

    costs = compare({way.name: reads(way) for way in ways} | {"memcpy": memcpy}, rounds)
    for way in ways:
        way.close()
    rows = {name: np.median(found) for name, found in read.items()} | {"memcpy": sum(sizes)}
    ours = costs[Ours.name]
    print(f"Warm: batches of {BATCH} ({sum(sizes) * DIM * 2 / len(sizes) / 1e6:.0f} MB)")
    print_table(
        ["way", "GB per CPU-s", "images per CPU-s", "gather's speed over it"],
        [
            [
                name,
                round(rows[name] * DIM * 2 / median_cpu(found) / 1e9, 2),
                round(batches * BATCH * rows[name] / sum(sizes) / median_cpu(found)),
                ratio(scaled(found, sum(sizes) / rows[name]), ours),
            ]
            for name, found in costs.items()
        ],
    )


def check(data: Data, way: Way, images: np.ndarray, out: np.ndarray) -> None:
    """Compare the first batch, bit by bit."""
    rows = way.read(images, out)
    if way.planned:
        expected = data.features()[data.rows(images)]
        same = np.array_equal(out[:rows].view(np.uint16), expected.view(np.uint16))
        assert same, f"{way.name} reads something else"


def scaled(costs: Sequence[Cost], by: float) -> list[Cost]:
    """Costs of reading as much as others did."""
    return [Cost(cpu_s=c.cpu_s * by, wall_s=c.wall_s * by) for c in costs]


def measure_cold(data: Data, rounds: int, rng: np.random.Generator) -> None:
    """Time ways that read every image once, from files that are not in memory."""
    count = (len(data.starts) - 1) // BATCH * BATCH
    images = rng.permutation(len(data.starts) - 1)[:count].reshape(-1, BATCH)
    size = sum(len(data.rows(batch)) for batch in images) * DIM * 2
    out = Memmap(data).memory(max(len(data.rows(batch)) for batch in images))
    left: list[float] = []
    pool, stores = BufferPool(DIM), []

    def planned(asks_ahead: bool) -> Callable[[], Cost]:
        store = FeatureStore(data.folder / "ours", asks_ahead=asks_ahead)
        for _ in range(2):  # record batches are mapped, and memory was used before
            for _ in gather_ahead(store, images, pool=pool):
                pass
        stores.append(store)

        def run() -> Cost:
            for batch in (batch for each in stores for batch in each._batches.values()):
                let_go(batch.features.ctypes.data, batch.features.nbytes)
            left.append(drop(Ours(data).files()))
            return timed(lambda: [len(batch) for batch in gather_ahead(store, images, pool=pool)])

        return run

    def plain(way: Way) -> Callable[[], Cost]:
        def run() -> Cost:
            left.append(drop(way.files()))
            way.open()
            cost = timed(lambda: [way.read(batch, out) for batch in images])
            way.close()
            return cost

        return run

    asking = "gather_ahead, asking the kernel"
    ways = {asking: planned(True), "gather_ahead, not asking": planned(False)}
    ways |= {way.name: plain(way) for way in (*(Pread(data, n) for n in THREADS), Memmap(data))}
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, run in ways.items():
            cost = run()
            if number:
                costs[name].append(cost)
    there = f"at most {max(left):.0%} of pages were still there"
    print(f"Cold: {size / 1e6:,.0f} MB, every image once; {there}")
    if max(left) > 0.1:
        print("This file system does not let go of pages: these are not cold reads.")
    ours = costs[asking]
    print_table(
        ["way", "GB per wall s", "GB per CPU-s", "gather_ahead's speed over it (wall)"],
        [
            [
                name,
                round(size / median_wall(found) / 1e9, 2),
                round(size / median_cpu(found) / 1e9, 2),
                ratio(found, ours, of="wall_s"),
            ]
            for name, found in costs.items()
        ],
    )


def drop(files: Sequence[Path]) -> float:
    """Drop files from the page cache; return the share of their pages that stayed."""
    pages = stayed = 0
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
        whole = np.memmap(file, np.uint8, "r")
        resident = np.zeros(-(-len(whole) // 4096), np.uint8)
        mincore = ctypes.CDLL(None).mincore
        mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
        mincore(whole.ctypes.data, len(whole), resident.ctypes.data)
        pages, stayed = pages + len(resident), stayed + int((resident & 1).sum())
    return stayed / pages


if __name__ == "__main__":
    main()
