"""Made-up regions, and a plan of them, for programs that need some: only their sizes matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from tonics.features.detector import Label, Vocabulary
from tonics.features.regions import MAX_ATTRIBUTES, Regions
from tonics.features.writer import write_index, write_shard
from tonics.train.plan_files import REMAINDER_SCHEMA, Batches, write_plan


def made_up_regions(rng: np.random.Generator, count: int, dim: int) -> Regions:
    """Regions of one image: ``count`` of ``dim`` random numbers, best first."""
    return Regions(
        features=rng.random((count, dim), np.float32).astype(np.float16),
        boxes=np.tile(np.array([1, 1, 50, 50], np.float32), (count, 1)),
        labels=np.zeros(count, np.uint16),
        scores=np.linspace(1, 0.5, count, dtype=np.float32),
        attributes=np.zeros((0, MAX_ATTRIBUTES), np.uint16),
        attribute_scores=np.zeros((0, MAX_ATTRIBUTES), np.float16),
        width=100,
        height=100,
    )


def write_store_and_plan(
    folder: Path,
    *,
    images: int,
    regions: int,
    dim: int,
    batches: int,
    batch_size: int,
    passes: bool = False,
) -> None:
    """Write ``store``, random regions, and ``plan``, batches of its images drawn at random.

    Every image has one caption, whose pair number is the image's.

    Args:
        passes: every image once before any comes again.
    """
    rng = np.random.default_rng(0)
    (folder / "store").mkdir()
    rows = ((image, made_up_regions(rng, regions, dim)) for image in range(images))
    write_shard(folder / "store" / "00000.arrow", rows, dim=dim)
    write_index(folder / "store", Vocabulary(labels=(Label("thing"),)))
    names = [f"{image}.jpg" for image in range(images)]
    pairs = {
        "pair": np.arange(images),
        "pair_key": [f"{name}#0" for name in names],
        "image": np.arange(images),
        "image_id": names,
        "caption": names,
        "split": ["train"] * images,
        "caption_hash": np.arange(images, dtype=np.uint64),
    }
    planned = Batches(
        epoch=np.zeros(batches, np.int32),
        phase=np.zeros(batches, np.int16),
        node=np.full(batches, -1, np.int32),
        pairs=_batches(rng, images, batches, batch_size, passes),
    )
    header = {"batch_size": batch_size, "sub_block": 1, "nodes": [], "inputs": {}, "phases": []}
    (folder / "plan").mkdir()
    none_left = REMAINDER_SCHEMA.empty_table()
    counts = {"counts": {"epochs": 1}}
    write_plan(folder / "plan", header | counts, planned, pa.table(pairs), none_left, {})


def _batches(
    rng: np.random.Generator, images: int, batches: int, batch_size: int, passes: bool
) -> np.ndarray:
    if not passes:
        return np.stack([rng.permutation(images)[:batch_size] for _ in range(batches)])
    count = batches * batch_size
    rows = np.concatenate([rng.permutation(images) for _ in range(-(-count // images))])
    return rows[:count].reshape(batches, batch_size)
