"""Planned batches from tars that ``tonics pack`` wrote, one after the other.

    for batch in packed("shards/mixed", texts, start=200):
        ...                                              # a Batch, as from stream

Tars of a folder are mapped: where a batch's images lie together, its features are a view of the
file and nothing is copied. Others are fetched through fsspec, one request a batch, tried again when
it fails; the features of a tar are kept until the next but one. Every member is compared with its
hash when it is first used.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from bisect import bisect_right
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import FormatError, InputError
from ...features.ahead import work_ahead
from ...features.regions import ordinary_memory
from ..model.packed import Packed
from ..model.tokens import tokenise
from ..plan import Plan
from .batch import Batch
from .pack_files import REPACK
from .pack_tars import Pack, Sample, Tar
from .texts import Texts, checked_tokenizer

_SLACK = 8  # memory is larger by one part in so many than what is needed now
_SPARE = 3  # pieces of memory kept while nobody needs them


def packed(
    path: str | Path | Pack,
    texts: Texts | Any,
    *,
    plan: Plan | None = None,
    start: int = 0,
    rank: int = 0,
    world: int = 1,
    max_regions: int | None = None,
    prefetch: int = 2,
    threads: int = 1,
    device: torch.device | str = "cpu",
) -> Generator[Batch, None, None]:
    """Read a pack's batches from batch ``start`` on, in their order.

    Args:
        path: the pack's folder or URL, or a ``Pack`` that is open.
        texts: ``CachedTexts``, ``TokenisedTexts``, or a tokenizer for the captions in the pack.
        plan: refuse a pack of another plan.
        rank, world: this process takes rows ``[rank * B / world, (rank + 1) * B / world)``: of
            whole batches, or the pack's own series of that rank.
        max_regions, prefetch, threads, device: as ``stream``.

    Returns:
        An iterator of ``Batch``; it may be closed. Features may be views of a mapped file: what is
        written into them stays in this process, and would be seen by later batches of the tar.

    Raises:
        InputError: there is no pack, no such batch, or the pack is for another number of ranks.
        PlanMismatch: it is of another plan. FormatError, also while reading: the manifest, an index
            or a member is not what was written; the message names it.
    """
    pack = path if isinstance(path, Pack) else Pack(path)
    if plan is not None:
        pack.require(plan)
    if not 0 <= start <= len(pack):
        raise InputError(pack.where, f"start={start}", expected=f"0 to {len(pack)}")
    if not hasattr(texts, "identity"):
        checked_tokenizer(texts)
    reader = _Reader(pack, texts, rank, world, max_regions, threads, device)
    return _batches(reader, range(start, len(pack)), prefetch, threads)


def _batches(
    reader: _Reader, steps: range, depth: int, threads: int
) -> Generator[Batch, None, None]:
    with contextlib.closing(work_ahead(steps, reader.batch, depth=depth, threads=threads)) as found:
        yield from found


class _Reader:
    """Reads batches; several threads may, of batches that are close to one another."""

    def __init__(
        self,
        pack: Pack,
        texts: Texts | Any,
        rank: int,
        world: int,
        max_regions: int | None,
        threads: int,
        device: torch.device | str,
    ) -> None:
        self.pack, self.texts, self.rows = pack, texts, pack.rows(rank, world)
        self.kept = 1 + threads  # tars
        self.max_regions, self.device = max_regions, torch.device(device)
        on_gpu = self.device.type == "cuda"
        self._memory = _pinned_rows(pack.dim) if on_gpu else _Memory(pack.dim)
        self.entries = pack.tars(rank if pack.ranks > 1 else 0)
        self.firsts = [tar.first for tar in self.entries]
        self._lock = threading.Lock()
        self._tars: dict[int, Tar] = {}

    def batch(self, step: int) -> Batch:
        """Read a batch."""
        tar = self._tar(bisect_right(self.firsts, step) - 1)
        sample = tar.sample(step - tar.entry.first, self.rows)
        counts = sample.counts
        if self.max_regions is not None:
            counts = np.minimum(counts, self.max_regions)
        features, geometry = self._gather(tar, sample.source, counts)
        cu_seqlens = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        return Batch(
            step=step,
            pairs=sample.pairs,
            features=self._pinned(torch.from_numpy(features)),
            geometry=self._pinned(torch.from_numpy(geometry)),
            cu_seqlens=self._pinned(torch.from_numpy(cu_seqlens)),
            longest=int(counts.max(initial=0)),
            texts=self._texts(sample),
        )

    def _gather(
        self, tar: Tar, source: np.ndarray, counts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Put a batch's regions together: views where they lie together, else copies."""
        features, geometry = [], []
        for number, first, stop in _runs(source, counts):
            part = tar.part(number)
            if stop > len(part.features):
                found = f"rows up to {stop} of a sample with {len(part.features)}"
                raise FormatError(f"{tar.where}: sample {number}", found, do=REPACK)
            features.append(part.features[first:stop])
            geometry.append(part.geometry[first:stop])
        if len(features) == 1:
            return features[0], geometry[0]
        into = self._memory(int(counts.sum()))
        return np.concatenate(features, out=into), np.concatenate(geometry)

    def _texts(self, sample: Sample) -> torch.Tensor | Packed:
        if hasattr(self.texts, "identity"):
            found = self.texts(sample.pairs)
        else:
            found = tokenise(self.texts, sample.captions).packed()
        return found.map(self._pinned) if isinstance(found, Packed) else self._pinned(found)

    def _pinned(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def _tar(self, number: int) -> Tar:
        """Open a tar, and let go of those that nobody reads any more."""
        with self._lock:
            if number not in self._tars:
                self._tars[number] = Tar(self.pack, self.entries[number])
                for old in [n for n in self._tars if n <= number - self.kept]:
                    del self._tars[old]
            return self._tars[number]


class _Memory:
    """Memory for the features of batches, used again once nobody refers to a batch any more."""

    def __init__(self, dim: int) -> None:
        self.dim, self._lock = dim, threading.Lock()
        self._lent: list[tuple[np.ndarray, Callable[[], np.ndarray | None]]] = []

    def __call__(self, rows: int) -> np.ndarray:
        """Lend (rows, D) float16; every view of it keeps it lent."""
        with self._lock:
            free: list[np.ndarray] = []
            taken = []
            for memory, borrower in self._lent:
                if borrower() is None:
                    free.append(memory)
                else:
                    taken.append((memory, borrower))
            free.sort(key=len)
            memory = free.pop() if free else ordinary_memory((0, self.dim))
            if len(memory) < rows:
                memory = ordinary_memory((rows + rows // _SLACK, self.dim))
            lent = np.asarray(memoryview(memory[:rows]))  # type: ignore[arg-type]
            spare = [(old, _nobody) for old in free[-_SPARE:]]
            self._lent = [*taken, *spare, (memory, weakref.ref(lent))]
        return lent


def _nobody() -> None:
    """Stand in for a reference to what is gone."""


def _pinned_rows(dim: int) -> Callable[[int], np.ndarray]:
    """Make what lends pinned memory; torch knows when a device has copied from it."""

    def lend(rows: int) -> np.ndarray:
        lent: np.ndarray = torch.empty(rows, dim, dtype=torch.float16, pin_memory=True).numpy()
        return lent

    return lend


def _runs(source: np.ndarray, counts: np.ndarray) -> list[tuple[int, int, int]]:
    """Join images whose regions follow one another: (sample, first row, end), in order.

    >>> _runs(np.array([[0, 0], [0, 2], [1, 5]]), np.array([2, 3, 1]))
    [(0, 0, 5), (1, 5, 6)]
    """
    starts, stops = source[:, 1], source[:, 1] + counts
    goes_on = (source[1:, 0] == source[:-1, 0]) & (starts[1:] == stops[:-1])
    first = np.flatnonzero(np.append(True, ~goes_on))
    last = np.append(first[1:], len(source)) - 1
    runs = zip(source[first, 0].tolist(), starts[first].tolist(), stops[last].tolist(), strict=True)
    return list(runs)
