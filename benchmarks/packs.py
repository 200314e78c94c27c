"""Claim: our reader takes a pack's batches at five times the speed of plain webdataset.

Both read the same tars (``tonics pack``) from the page cache in one process, torch and numpy on one
thread. webdataset reads them with its stock decoders and the function of docs/packs.md. Ours
compares every member with its hash as well. ``copied`` copies the features of each batch once more,
into memory that is used again, as whoever hands them to a device does; without, a batch of ours is
a view of the file.

``once`` packs an epoch a tar, so that a batch lies in one piece; ``again`` packs several, so that
the images of later batches lie scattered over those before.

    python benchmarks/packs.py
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import compare, median_cpu, median_wall, print_heading, print_table, ratio
from regions import write_store_and_plan

from tonics.features import FeatureStore
from tonics.train import Plan
from tonics.train.stream import CachedTexts, packed
from tonics.train.stream.packing import lay_out, write_pack

REGIONS, DIM, TEXT_DIM = 36, 2048, 384
PAGE = Path(__file__).resolve().parent.parent / "docs" / "packs.md"


def main() -> None:
    """Pack, then read in turn, round after round."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    print_heading(__doc__, "torch", "numpy", "webdataset")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for name, images in (("once", args.batches), ("again", args.batches // 3)):
            root = Path(folder, name)
            root.mkdir()
            write_packed(root, images * args.batch_size, args.batches, args.batch_size)
            print_rates(name, root, args)


def write_packed(root: Path, images: int, batches: int, batch_size: int) -> None:
    """Write a store, a plan that goes through its images again and again, and a pack of one tar."""
    write_store_and_plan(
        root,
        images=images,
        regions=REGIONS,
        dim=DIM,
        batches=batches,
        batch_size=batch_size,
        passes=True,
    )
    plan, store = Plan(root / "plan"), FeatureStore(root / "store")
    (root / "pack").mkdir()
    write_pack(root / "pack", plan, store, lay_out(plan, store, shard_bytes=1 << 40))


def print_rates(name: str, root: Path, args: argparse.Namespace) -> None:
    """Compare the readers on one pack."""
    ways: dict[str, Callable[[], Any]] = {
        "webdataset": partial(read, partial(web, root)),
        "ours": partial(read, partial(ours, root)),
        "ours, no thread": partial(read, partial(ours, root, prefetch=0)),
        "webdataset, copied": partial(read, partial(web, root), copied=True),
        "ours, copied": partial(read, partial(ours, root), copied=True),
    }
    costs = compare(ways, args.rounds)
    items = args.batches * args.batch_size
    rows = []
    for way, found in costs.items():
        base = costs["webdataset, copied" if way.endswith("copied") else "webdataset"]
        per_cpu, per_wall = items / median_cpu(found), items / median_wall(found)
        rows.append([way, round(per_cpu), round(per_wall), ratio(base, found)])
    size = sum(f.stat().st_size for f in (root / "pack").iterdir())
    print(f"{name}: {args.batches} batches of {args.batch_size}, {size / 1e6:,.0f} MB")
    columns = ["way", "items per CPU-s", "items per wall s", "times webdataset's speed a CPU-s"]
    print_table(columns, rows)


def read(start: Callable[[], Iterator[np.ndarray]], copied: bool = False) -> None:
    """Take the features of every batch; look at a number, or copy all."""
    into = np.zeros((0, DIM), np.float16)
    for features in start():
        if copied:
            if len(into) < len(features):
                into = np.zeros_like(features)
            np.copyto(into[: len(features)], features)
        assert features[0, 0] >= 0


def ours(root: Path, **options: int) -> Iterator[np.ndarray]:
    """Features of every batch, by our reader, texts and all."""
    vectors = np.zeros((1 << 16, TEXT_DIM), np.float16)
    texts = CachedTexts(vectors.__getitem__, dim=TEXT_DIM, identity="zeros")
    for batch in packed(root / "pack", texts, **options):
        yield batch.features.numpy()


def web(root: Path) -> Iterator[np.ndarray]:
    """Features of every batch, by webdataset and the function that the documentation gives."""
    import webdataset

    (source,) = re.findall(r"```python\n(import numpy.*?)```", PAGE.read_text("utf-8"), re.S)
    scope: dict[str, Any] = {}
    exec(source, scope)
    tars = [str(tar) for tar in sorted((root / "pack").glob("*.tar"))]
    dataset = webdataset.WebDataset(tars, shardshuffle=False).decode()
    for sample in dataset.compose(scope["whole_batches"]):
        yield sample["features.npy"]


if __name__ == "__main__":
    main()
