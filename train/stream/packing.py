"""Writes a plan as webdataset tars: a sample a batch, every image once a tar (``pack_files``).

    cuts = lay_out(plan, store)
    with atomic_folder(folder) as tmp:
        write_pack(tmp, plan, store, cuts)

The same plan and store give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa
import xxhash

from ...artifact import hash_bytes
from ...errors import writing_to
from ...features.regions import RegionBuffer
from ..plan import Plan
from .pack_files import (
    MEMBERS,
    PACK_NAME,
    MemberEntry,
    TarEntry,
    index_bytes,
    json_bytes,
    manifest_bytes,
    member_name,
    npy_bytes,
    npy_header,
    padding,
    tar_bytes,
    tar_end,
    tar_header,
    tar_name,
)
from .reading import check_images

if TYPE_CHECKING:
    from ...features import FeatureStore

SHARD_BYTES = 1_000_000_000
INDEX_BYTES = 160  # a member's line in an index takes less
Part = bytes | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Batches that share a tar.

    Attributes:
        first, stop: their steps. bytes: the size of the tar, for each rank.
    """

    first: int
    stop: int
    bytes: tuple[int, ...]

    @property
    def total(self) -> int:
        """The bytes of all ranks, with a bound for those of the indexes."""
        members = len(self.bytes) * len(MEMBERS) * (self.stop - self.first)
        return sum(self.bytes) + INDEX_BYTES * members


def lay_out(
    plan: Plan, store: FeatureStore, *, shard_bytes: int = SHARD_BYTES, ranks: int = 1
) -> list[Cut]:
    """Decide which batches share a tar, and find out how large it will be, without writing any.

    Args:
        shard_bytes: the most bytes of a tar; a batch that is larger has one to itself.
        ranks: write the rows of each rank on their own.

    Raises:
        InputError: the batches cannot be cut for so many ranks. ImageNotFound, PlanMismatch: the
            store lacks images of the plan, or they are others.
    """
    plan.rows_per_rank(ranks)
    check_images(plan, store)
    cuts: list[Cut] = []
    first, sizes = 0, [len(tar_end())] * ranks
    samples = [_Samples(plan, store, rank, ranks) for rank in range(ranks)]
    for step in range(len(plan)):
        grown = [n + s.next(step).bytes for n, s in zip(sizes, samples, strict=True)]
        if step > first and max(grown) > shard_bytes:
            cuts.append(Cut(first=first, stop=step, bytes=tuple(sizes)))
            first = step
            for one in samples:
                one.begin_tar()
            grown = [len(tar_end()) + s.next(step).bytes for s in samples]
        sizes = grown
    if len(plan):
        cuts.append(Cut(first=first, stop=len(plan), bytes=tuple(sizes)))
    return cuts


def write_pack(
    folder: Path,
    plan: Plan,
    store: FeatureStore,
    cuts: Sequence[Cut],
    *,
    created_by: str = "",
    advance: Callable[[int], None] = lambda batches: None,
) -> dict[str, Any]:
    """Write a pack into an empty folder, which the caller makes atomic.

    Args:
        cuts: of ``lay_out``. created_by: the release that writes.
        advance: called with the batches that were written since the last call, those of all ranks
            counted.

    Returns:
        What the manifest says of the whole.
    """
    ranks = len(cuts[0].bytes) if cuts else 1
    about = {
        "created_by": created_by,
        "plan_id": plan.plan_id,
        "features": store.content_hash,
        "batch_size": plan.batch_size,
        "batches": len(plan),
        "ranks": ranks,
        "dim": store.dim,
    }
    buffer = RegionBuffer(store.dim)
    tars = [
        _write_tar(folder, number, cut, _Samples(plan, store, rank, ranks), buffer, advance)
        for rank in range(ranks)
        for number, cut in enumerate(cuts)
    ]
    _write(folder / PACK_NAME, manifest_bytes(about, tars))
    return {**about, "tars": len(tars), "bytes": sum(tar.bytes for tar in tars)}


def _write_tar(
    folder: Path,
    number: int,
    cut: Cut,
    samples: _Samples,
    buffer: RegionBuffer,
    advance: Callable[[int], None],
) -> TarEntry:
    name = tar_name(number, samples.rank, samples.ranks)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    members: list[MemberEntry] = []
    with writing_to(path), path.open("wb") as file:
        for step in range(cut.first, cut.stop):
            for kind, parts in samples.next(step).members(samples.store, buffer):
                members.append(_append(file, member_name(step, kind), parts))
            advance(1)
        file.write(tar_end())
        size = file.tell()
    index = index_bytes(path.name, members)
    entry = TarEntry(
        name=name,
        rank=samples.rank,
        first=cut.first,
        batches=cut.stop - cut.first,
        bytes=size,
        index_xxh3=hash_bytes(index),
    )
    assert size == cut.bytes[samples.rank], "a tar has the size that was laid out"
    _write(folder / entry.index_name, index)
    return entry


def _append(file: BinaryIO, name: str, parts: Sequence[Part]) -> MemberEntry:
    """Write a member; its content may come in parts."""
    size, state = sum(map(len, parts)), xxhash.xxh3_128()
    file.write(tar_header(name, size))
    offset = file.tell()
    for part in parts:
        state.update(part)
        file.write(part)
    file.write(bytes(padding(size)))
    return MemberEntry(name=name, offset=offset, size=size, xxh3=state.hexdigest())


def _write(path: Path, data: bytes) -> None:
    with writing_to(path):
        path.write_bytes(data)


class _Samples:
    """The samples of one rank, tar by tar: knows which images the tar has already."""

    def __init__(self, plan: Plan, store: FeatureStore, rank: int, ranks: int) -> None:
        self.plan, self.store, self.rank, self.ranks = plan, store, rank, ranks
        self.begin_tar()

    def begin_tar(self) -> None:
        """Forget the images of the last tar."""
        self._places: dict[int, tuple[int, int]] = {}
        self._in_tar = 0

    def next(self, step: int) -> _Sample:
        """Describe the tar's next sample."""
        pairs = self.plan.rank_rows(step, self.rank, self.ranks)
        images = self.plan.images_of(pairs)
        counts = self.store.num_regions(images)
        new, source, rows = self._place(images.tolist(), counts.tolist())
        small = self._small(step, pairs)
        ends = np.cumsum(counts, dtype=np.int32)
        arrays = {
            "pairs.npy": pairs,
            "images.npy": images,
            "cu_seqlens.npy": np.concatenate([[0], ends]),
            "source.npy": np.array(source, np.int64).reshape(-1, 2),
        }
        small |= {kind: npy_bytes(kind, array) for kind, array in arrays.items()}
        self._in_tar += 1
        return _Sample(small=small, images=images[new], rows=rows, dim=self.store.dim)

    def _place(
        self, images: list[int], counts: list[int]
    ) -> tuple[list[int], list[tuple[int, int]], int]:
        """Say which images are new, where each lies, and how many rows the new ones have."""
        new, source, rows = [], [], 0
        for k, (image, count) in enumerate(zip(images, counts, strict=True)):
            if image not in self._places:
                self._places[image] = (self._in_tar, rows)
                new.append(k)
                rows += count
            source.append(self._places[image])
        return new, source, rows

    def _small(self, step: int, pairs: np.ndarray) -> dict[str, bytes]:
        plan, rows = self.plan, self.plan.rows(pairs)
        batch = {
            "step": step,
            "in_tar": self._in_tar,
            "epoch": plan.epoch_of(step),
            "phase": plan.phase_of(step),
            "node": plan.node_of(step),
        }
        keys = plan.pairs.column("pair_key").take(pa.array(rows)).to_pylist()
        files = {"batch": batch, "captions": plan.captions_of(pairs), "pair_keys": keys}
        return {f"{name}.json": json_bytes(value) for name, value in files.items()}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sample:
    """A sample before its regions are read.

    Attributes:
        small: every member but the regions. images: whose regions it brings, in this order.
        rows: how many those are. dim: D.
    """

    small: dict[str, bytes]
    images: np.ndarray
    rows: int
    dim: int

    @property
    def bytes(self) -> int:
        """What it takes in a tar."""
        sizes = [len(data) for data in self.small.values()]
        for kind, width, item in (("geometry.npy", 6, 4), ("features.npy", self.dim, 2)):
            sizes.append(len(npy_header(kind, (self.rows, width))) + self.rows * width * item)
        return tar_bytes(sizes)

    def members(
        self, store: FeatureStore, buffer: RegionBuffer
    ) -> Iterator[tuple[str, Sequence[Part]]]:
        """Yield kind and content of every member, in the order of ``MEMBERS``."""
        regions = store.gather(self.images, out=buffer)
        large = {"geometry.npy": regions.geometry, "features.npy": regions.features}
        for kind in MEMBERS:
            if kind in self.small:
                yield kind, (self.small[kind],)
            else:
                rows = np.ascontiguousarray(large[kind])
                numbers = rows.reshape(-1).view(np.uint8).data
                yield kind, (npy_header(kind, rows.shape), numbers)
