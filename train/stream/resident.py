"""Planned batches from features that live on the device: copied there once, gathered there.

    if fits(plan, store, "cuda"):
        batches = resident(plan, store, texts, device="cuda")

The batches are those of ``stream``, bit for bit. Lengths and offsets of every image are known on
the host, so that a batch costs the device two gathers and the host no waiting.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from ...errors import InputError
from ...features.ahead import work_ahead
from ...features.readahead import memory_bytes
from ...features.regions import ordinary_memory
from ...features.ring import BufferPool, gather_ahead
from ..model.packed import Packed
from ..model.tokens import packed_places
from ..plan import Plan
from .batch import Batch
from .reading import PlanSource, check_images, pinned_memory
from .texts import Texts, texts_of

if TYPE_CHECKING:
    from ...features import FeatureStore

log = logging.getLogger(__name__)

SHARE = 0.5  # of the free memory; the rest is for weights, optimizer and activations
GEOMETRY = 6  # numbers of a box
_CHUNK_BYTES = 64 << 20
_LOG_EVERY_S = 10.0
_MEMINFO = Path("/proc/meminfo")


def resident(
    plan: Plan,
    store: FeatureStore,
    texts: Texts | Any,
    *,
    start: int = 0,
    steps: Iterable[int] | None = None,
    rank: int = 0,
    world: int = 1,
    max_regions: int | None = None,
    prefetch: int = 2,
    device: torch.device | str,
) -> Generator[Batch, None, None]:
    """Copy the features of a plan's images to a device, then yield its batches there.

    Arguments and errors are those of ``stream``; the features are copied before this returns.

    Args:
        prefetch: batches whose captions and row numbers may be ready before they are asked for.

    Returns:
        An iterator of ``Batch``, everything of it on the device; it may be closed.

    Raises:
        InputError: the features do not fit (``fits``), or as ``stream``.
    """
    source = PlanSource(plan, start, rank, world, steps=steps)
    texts = texts_of(texts, plan)
    check_images(plan, store)
    if not fits(plan, store, device, max_regions):
        need, free = resident_bytes(plan, store, max_regions), free_bytes(device)
        raise InputError(
            f"device {device}",
            f"{free / 1e9:.1f} GB free for {need / 1e9:.1f} GB of features",
            expected=f"the features in at most {SHARE:.0%} of it",
            do="use stream(), or keep fewer regions (max_regions)",
        )
    features = ResidentFeatures(store, images_used(plan), max_regions, device)
    return _batches(plan, features, source, texts, prefetch)


def _batches(
    plan: Plan, features: ResidentFeatures, source: PlanSource, texts: Texts, prefetch: int
) -> Generator[Batch, None, None]:
    def prepare(item: tuple[int, np.ndarray]) -> tuple[int, np.ndarray, _Rows, Any]:
        step, pairs = item
        found = texts(pairs)
        at_hand = found.map(features.ready) if isinstance(found, Packed) else features.ready(found)
        return step, pairs, features.rows(plan.images_of(pairs)), at_hand

    with contextlib.closing(work_ahead(source(), prepare, depth=prefetch)) as prepared:
        for step, pairs, rows, said in prepared:
            regions, geometry = features.gather(rows)
            yield Batch(
                step=step,
                pairs=pairs,
                features=regions,
                geometry=geometry,
                cu_seqlens=features.send(rows.cu_seqlens),
                longest=rows.longest,
                texts=said.map(features.send) if isinstance(said, Packed) else features.send(said),
            )


class _Rows:
    """Which rows of the device's features a batch consists of; tensors on the host."""

    def __init__(self, starts: np.ndarray, counts: np.ndarray, features: ResidentFeatures) -> None:
        self.rows = features.ready(torch.from_numpy(packed_places(starts, counts)))
        cu_seqlens = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        self.cu_seqlens = features.ready(torch.from_numpy(cu_seqlens))
        self.longest = int(counts.max(initial=0))


class ResidentFeatures:
    """Features and geometry of some images on a device.

    Args:
        images: (n,) increasing image numbers of the store.
        max_regions: keep only the first regions of each.

    Attributes:
        features: (R, D) float16, image after image. geometry: (R, 6) float32.
    """

    def __init__(
        self,
        store: FeatureStore,
        images: np.ndarray,
        max_regions: int | None,
        device: torch.device | str,
    ) -> None:
        self.device, self.images = torch.device(device), images
        self.counts = _counts(store, images, max_regions)
        self.starts = np.cumsum(self.counts) - self.counts
        total = int(self.counts.sum())
        self.features = torch.empty(total, store.dim, dtype=torch.float16, device=self.device)
        self.geometry = torch.empty(total, GEOMETRY, dtype=torch.float32, device=self.device)
        self._load(store, max_regions)

    def rows(self, images: np.ndarray) -> _Rows:
        """Find the rows of a batch's images."""
        at = np.searchsorted(self.images, images)
        return _Rows(self.starts[at], self.counts[at], self)

    def gather(self, rows: _Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """Pick the rows of a batch on the device: features and geometry."""
        index = self.send(rows.rows)
        return self.features.index_select(0, index), self.geometry.index_select(0, index)

    def ready(self, small: torch.Tensor) -> torch.Tensor:
        """Put a small tensor where the device can copy it from by itself."""
        return small.pin_memory() if self.device.type == "cuda" else small

    def send(self, small: torch.Tensor) -> torch.Tensor:
        """Copy a small tensor to the device, without waiting for a GPU."""
        return small.to(self.device, non_blocking=self.device.type == "cuda")

    def _load(self, store: FeatureStore, max_regions: int | None) -> None:
        """Copy the features in pieces, which bound what the host needs."""
        on_gpu = self.device.type == "cuda"
        pool = BufferPool(store.dim, 2, pinned_memory if on_gpu else ordinary_memory)
        chunks = self._chunks(store.dim)
        pieces = gather_ahead(store, chunks, max_regions=max_regions, depth=1, pool=pool)
        began = said = time.monotonic()
        at, total = 0, len(self.features)
        with contextlib.closing(pieces):
            for piece in pieces:
                here = slice(at, at + len(piece.features))
                self.features[here].copy_(torch.from_numpy(piece.features))
                self.geometry[here].copy_(torch.from_numpy(piece.geometry))
                at = here.stop
                if time.monotonic() - said > _LOG_EVERY_S:
                    said = time.monotonic()
                    log.info("%d%% of the features are on %s", 100 * at // total, self.device)
        size, took = self.features.nbytes + self.geometry.nbytes, time.monotonic() - began
        found = (len(self.images), size / 1e9, self.device, took)
        log.info("the features of %d images (%.1f GB) are on %s after %.1f s", *found)

    def _chunks(self, dim: int) -> list[np.ndarray]:
        """Cut the images into pieces of some megabytes."""
        per_chunk = max(1, _CHUNK_BYTES // (2 * dim))
        cuts = np.flatnonzero(np.diff(self.starts // per_chunk)) + 1
        return [chunk for chunk in np.split(self.images, cuts) if len(chunk)]


def fits(
    plan: Plan, store: FeatureStore, device: torch.device | str, max_regions: int | None = None
) -> bool:
    """Tell whether the features of a plan's images leave a device enough memory for training."""
    return resident_bytes(plan, store, max_regions) <= SHARE * free_bytes(device)


def resident_bytes(plan: Plan, store: FeatureStore, max_regions: int | None = None) -> int:
    """The bytes that features and geometry of the images of a plan take on a device.

    Raises:
        ImageNotFound: the store does not hold an image of the plan.
    """
    regions = int(_counts(store, images_used(plan), max_regions).sum())
    return regions * (2 * store.dim + 4 * GEOMETRY)


def free_bytes(device: torch.device | str) -> int:
    """Memory a device has to give: of a GPU what the driver and torch's own cache hold free."""
    where = torch.device(device)
    if where.type == "cuda":
        free, _ = torch.cuda.mem_get_info(where)
        cached = torch.cuda.memory_reserved(where) - torch.cuda.memory_allocated(where)
        return free + cached
    lines = _MEMINFO.read_text().splitlines() if _MEMINFO.exists() else []
    found = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
    return min([*found, memory_bytes()])


def images_used(plan: Plan) -> np.ndarray:
    """The images of all batches of a plan, increasing."""
    images = plan.pairs.column("image").take(pa.array(plan.used_rows)).to_numpy()
    return np.flatnonzero(np.bincount(images))


def _counts(store: FeatureStore, images: np.ndarray, max_regions: int | None) -> np.ndarray:
    """(n,) int64 regions of each image, after the cut."""
    counts = store.num_regions(images).astype(np.int64)
    return counts if max_regions is None else np.minimum(counts, max_regions)
