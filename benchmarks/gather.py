"""Claim: a planned batch is read at 0.7 times memcpy's and 0.9 times numpy memmap's speed, warm.

``FeatureStore.gather`` fills a reused buffer with the regions of 256 random images (10 to 100
regions of 2,048 float16 each). Against it: ``np.copyto`` of as many bytes lying side by side in
memory, and ``np.take`` by region numbers from one memory-mapped file of the same features. gather
also copies boxes, labels and scores; only features are counted. Everything is in the page cache.
One thread. Makes a store of about 500 MB, and the flat file beside it, in a temporary folder.

    python benchmarks/gather.py
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from measure import compare, median_cpu, print_heading, print_table, ratio
from regions import made_up_regions

from tonics.features import FeatureStore
from tonics.features.detector import Label, Vocabulary
from tonics.features.regions import RegionBuffer, Regions
from tonics.features.writer import write_index, write_shard

DIM, BATCH, SHARDS = 2048, 256, 2


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=2304)
    parser.add_argument("--batches", type=int, default=9, help="batches a round")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()

    print_heading(__doc__, "numpy", "pyarrow")
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        counts = rng.integers(10, 101, args.images)
        flat = make_store(Path(folder), counts, rng)
        measure(Path(folder), flat, counts, args.batches, args.rounds, rng)


def measure(
    folder: Path,
    flat: np.ndarray,
    counts: np.ndarray,
    batches: int,
    rounds: int,
    rng: np.random.Generator,
) -> None:
    """Time the three ways of filling one buffer with the same batches."""
    store = FeatureStore(folder / "store")
    order = rng.permutation(np.resize(rng.permutation(len(counts)), batches * BATCH))
    images = order.reshape(batches, BATCH)
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
    regions = [
        np.concatenate([np.arange(starts[i], starts[i] + counts[i]) for i in batch])
        for batch in images
    ]
    most = max(map(len, regions))
    buffer = RegionBuffer(DIM, most)
    out, memory = np.zeros((most, DIM), np.float16), np.array(flat)

    def gather() -> None:
        for batch in images:
            store.gather(batch, out=buffer)

    def take() -> None:
        for rows in regions:
            np.take(flat, rows, axis=0, out=out[: len(rows)], mode="clip")

    def memcpy() -> None:
        for number, rows in enumerate(regions):
            first = number * len(memory) // len(regions)
            first = min(first, len(memory) - len(rows))
            np.copyto(out[: len(rows)], memory[first : first + len(rows)])

    for batch, rows in zip(images, regions, strict=True):
        assert np.array_equal(
            store.gather(batch, out=buffer).features.view(np.uint16), flat[rows].view(np.uint16)
        ), "gather and memmap read the same"
    costs = compare({"gather": gather, "memmap np.take": take, "memcpy": memcpy}, rounds)
    read = sum(map(len, regions)) * DIM * 2
    print(
        f"{len(counts):,} images, {flat.nbytes / 1e6:,.0f} MB of features, batches of {BATCH} "
        f"({read / batches / 1e6:.0f} MB)"
    )
    print_table(
        ["way", "GB per CPU-s", "gather's speed over it"],
        [
            [name, round(read / median_cpu(found) / 1e9, 2), ratio(found, costs["gather"])]
            for name, found in costs.items()
        ],
    )


def make_store(folder: Path, counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Write the store through its own writer, and the same features as one flat file.

    Returns:
        The flat file, memory-mapped: (sum n, D) float16.
    """
    (folder / "store").mkdir()
    with (folder / "flat").open("wb") as file:
        for number, images in enumerate(np.array_split(np.arange(len(counts)), SHARDS)):
            rows = _rows(images.tolist(), counts, rng, file)
            write_shard(folder / "store" / f"{number:05d}.arrow", rows, dim=DIM)
    write_index(folder / "store", Vocabulary(labels=(Label("thing"),)))
    return np.memmap(folder / "flat", np.float16, "r").reshape(-1, DIM)


def _rows(
    images: list[int], counts: np.ndarray, rng: np.random.Generator, flat: object
) -> Iterator[tuple[int, Regions]]:
    for image in images:
        n = int(counts[image])
        regions = made_up_regions(rng, n, DIM)
        regions.features.tofile(flat)
        yield image, regions


if __name__ == "__main__":
    main()
