"""Claim: one process streams planned batches from store to torch at 40,000 items a second.

An item is an image of 36 regions of 2,048 float16 (148 KB with its boxes), a batch has 256 of them
and their caption vectors. ``tonics.train.stream`` (one and two threads) against what people use
instead: a ``DataLoader`` whose workers gather the same batches from the same store, and webdataset
reading a tar of the same features in file order (it cannot follow a plan), decoded and stacked.

Everything is in the page cache; torch has one thread. CPU-seconds are those of all processes. The
first batches of each round are not timed: workers start, and memory is touched for the first time.

    python benchmarks/stream.py
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import Cost, median_cpu, median_wall, print_heading, print_table, ratio
from regions import write_store_and_plan

from tonics.features import FeatureStore
from tonics.train import Plan
from tonics.train.stream import CachedTexts, stream

IMAGES, REGIONS, DIM, TEXT_DIM, BATCH = 2560, 36, 2048, 384, 256
WARM_UP = 8
Batches = Iterator[Any]


def main() -> None:
    """Run every way in turn, round after round."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    print_heading(__doc__, "torch", "numpy", "webdataset")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        count = args.batches + WARM_UP
        sizes = {"images": IMAGES, "regions": REGIONS, "dim": DIM, "batch_size": BATCH}
        write_store_and_plan(Path(folder), batches=count, **sizes)
        write_tar(Path(folder))
        fewer = max(2 * WARM_UP, count // 4)  # of the slow ways
        ways: dict[str, tuple[Callable[[], Batches], int]] = {
            "stream, 1 thread": (partial(planned, folder, threads=1), count),
            "stream, 2 threads": (partial(planned, folder, threads=2), count),
            "stream, no thread": (partial(planned, folder, prefetch=0), count),
            "DataLoader, 1 worker": (partial(loaded, folder, workers=1), fewer),
            "DataLoader, 2 workers": (partial(loaded, folder, workers=2), fewer),
            "webdataset, in file order": (partial(web, folder), fewer),
        }
        costs: dict[str, list[Cost]] = {name: [] for name in ways}
        for _ in range(args.rounds):
            for name, (start, batches) in ways.items():
                costs[name].append(per_item(start, batches))
    ours = costs["stream, 1 thread"]
    print(f"Batches of {BATCH} images, {REGIONS} regions of {DIM}")
    print_table(
        [
            "way",
            "items per wall s",
            "items per CPU-s",
            "CPU-s over stream's",
            "wall s over stream's",
        ],
        [
            [
                name,
                round(1 / median_wall(found)),
                round(1 / median_cpu(found)),
                ratio(found, ours),
                ratio(found, ours, of="wall_s"),
            ]
            for name, found in costs.items()
        ],
    )


def per_item(start: Callable[[], Batches], count: int) -> Cost:
    """Take batches one after the other; say what an item of them took, all processes together.

    Workers are counted when they end, hence with their warm-up, which is as much work an item.
    """
    before = cpu_of_children()
    batches = start()
    for _ in range(WARM_UP):
        use(next(batches))
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count - WARM_UP):
        use(next(batches))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    del batches  # workers end, and count
    items = (count - WARM_UP) * BATCH
    cpu_s = cpu / items + (cpu_of_children() - before) / (count * BATCH)
    return Cost(cpu_s=cpu_s, wall_s=wall / items)


def cpu_of_children() -> float:
    """CPU-seconds of processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def use(batch: Any) -> None:
    """Look at a batch, as little as one can."""
    features = batch[0] if isinstance(batch, list | tuple) else batch.features
    assert features.dtype == torch.float16
    assert features.numel() == BATCH * REGIONS * DIM
    features.view(-1)[0].item()


def planned(folder: str, **options: int) -> Batches:
    """Ours."""
    vectors = np.random.default_rng(1).normal(size=(IMAGES, TEXT_DIM)).astype(np.float16)
    plan, store = Plan(f"{folder}/plan"), FeatureStore(f"{folder}/store")
    return iter(stream(plan, store, CachedTexts.of_rows(vectors), **options))


class PlannedBatches(torch.utils.data.Dataset[Any]):
    """A batch of the plan an item, for DataLoader."""

    def __init__(self, folder: str) -> None:
        self.plan, self.store = Plan(f"{folder}/plan"), FeatureStore(f"{folder}/store")
        self.vectors = np.random.default_rng(1).normal(size=(IMAGES, TEXT_DIM)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, step: int) -> tuple[torch.Tensor, ...]:
        pairs = self.plan.batch(step)
        found = self.store.gather(self.plan.images_of(pairs))
        arrays = (found.features, found.geometry, found.cu_seqlens, self.vectors[pairs])
        return tuple(map(torch.from_numpy, arrays))


def loaded(folder: str, *, workers: int) -> Batches:
    """DataLoader, its workers handing batches over in shared memory."""
    options: dict[str, Any] = {"batch_size": None, "shuffle": False, "num_workers": workers}
    return iter(torch.utils.data.DataLoader(PlannedBatches(folder), **options))


def write_tar(folder: Path) -> None:
    """Write the store's features as webdataset does."""
    import webdataset

    store = FeatureStore(folder / "store")
    with webdataset.TarWriter(str(folder / "features.tar")) as writer:
        for image in store:
            regions = store[image]
            parts = {"f.bin": regions.features, "g.bin": regions.geometry}
            data = {name: part.tobytes() for name, part in parts.items()}
            writer.write({"__key__": f"{image:08d}", **data, "txt": f"{image}.jpg"})


def web(folder: str) -> Batches:
    """webdataset, decoded and stacked."""
    import webdataset

    def decode(sample: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        features = np.frombuffer(sample["f.bin"], np.float16).reshape(REGIONS, DIM)
        geometry = np.frombuffer(sample["g.bin"], np.float32).reshape(REGIONS, 6)
        return torch.from_numpy(features.copy()), torch.from_numpy(geometry.copy())

    def stack(samples: list[tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
        return tuple(torch.stack(parts) for parts in zip(*samples, strict=True))

    source = webdataset.WebDataset(f"{folder}/features.tar", shardshuffle=False).repeat()
    return iter(source.map(decode).batched(BATCH, collation_fn=stack))


if __name__ == "__main__":
    main()
