"""Planned batches as ready tensors, through a webdataset pipeline, in exactly the planned order.

    pipeline = stream(plan, store, texts, start=200)     # resume is one integer
    for batch in pipeline:
        ...                                              # batch.features, batch.texts, ...

The stages are ``PlanSource | ReadAhead``. There are no worker processes: threads work ahead, so
order, content and counts are those of the plan, whatever the depth. Every rank reads the same plan
and takes its own rows of each batch.

Regions and token ids are packed, item after item, and no batch holds any padding: nothing would be
gained from sorting captions by length, inside a batch or across.

Batches lie in memory that is used again (fresh memory is ten times slower), but never while anybody
refers to a batch, one of its tensors, or a view of one: keep what you like, it only costs memory.
For a CUDA device the memory is pinned, and copies made with ``non_blocking`` on the stream that was
current when iteration began are waited for before it is used again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...errors import InputError, PlanMismatch, first_ten
from ...features.ahead import work_ahead
from ...features.index import image_key
from ...features.readahead import AHEAD, ask_ahead
from ...features.ring import BufferPool
from ..model.packed import Packed
from ..plan import Plan
from .batch import Batch
from .texts import Texts, texts_of

if TYPE_CHECKING:
    from ...features import FeatureStore


def stream(
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
    threads: int = 1,
    device: torch.device | str = "cpu",
) -> Any:
    """Stream a plan's batches, from batch ``start`` on, or in an order of one's own.

    Args:
        texts: ``CachedTexts``, ``TokenisedTexts``, or a tokenizer, with which all captions of the
            plan are tokenised now.
        steps: which batches, in which order, repeats allowed; None: from ``start`` to the end. They
            are taken ``prefetch`` batches before they are used, one at a time, so that whoever
            decides them may still be deciding; an iterator gives one run of the stream. One that
            waits has to end before the stream is closed: closing waits for it.
        rank, world: this process takes rows ``[rank * B / world, (rank + 1) * B / world)``.
        max_regions: keep only the first regions of each image (they are sorted by score).
        prefetch: batches that may be ready, or under way, before they are asked for; 0 for no
            thread.
        threads: how many work ahead at once.
        device: where the batches will be copied to.

    Returns:
        A ``webdataset.DataPipeline`` of ``Batch``: append stages to it, or iterate.

    Raises:
        InputError: ``start`` is not a batch of the plan, or ``world`` does not divide the batch.
        ImageNotFound: the store does not hold an image of the plan.
        PlanMismatch: the store's image of some number is not the plan's image of that number.
    """
    import webdataset

    return webdataset.DataPipeline(
        PlanSource(plan, start, rank, world, steps=steps),
        ReadAhead(plan, store, texts_of(texts, plan), max_regions, prefetch, threads, device),
    )


def check_images(plan: Plan, store: FeatureStore) -> None:
    """Check that the store holds every image of a plan, and that its numbers mean the same images.

    Raises:
        ImageNotFound: an image is not there.
        PlanMismatch: a number is another image's; images without a key in the store are trusted.
    """
    images, rows = np.unique(plan.pairs.column("image").to_numpy(), return_index=True)
    ids = plan.pairs.column("image_id").take(rows).to_pylist()
    stored = store.image_keys(images)
    planned = np.fromiter(map(image_key, ids), np.uint64, len(ids))
    wrong = np.flatnonzero((stored != 0) & (stored != planned))
    if len(wrong):
        which = first_ten([ids[row] for row in wrong])
        raise PlanMismatch(
            plan.path,
            f"{len(wrong)} of {len(ids)} images are other images in {store.path}: {which}",
            expected="a plan and a store of the same dataset",
            do="the plan was built for another dataset or numbering: build it again with "
            "'tonics plan'",
        )


class PlanSource:
    """First stage: (step, pair numbers) of every batch, or of the ``steps`` one asks for."""

    def __init__(
        self,
        plan: Plan,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        *,
        steps: Iterable[int] | None = None,
    ) -> None:
        if not 0 <= start <= len(plan):
            raise InputError(plan.path, f"start={start}", expected=f"0 to {len(plan)}")
        if not 0 <= rank < world:
            raise InputError(plan.path, f"rank {rank} of {world}", expected=f"0 to {world - 1}")
        plan.rows_per_rank(world)
        self.plan, self.rank, self.world = plan, rank, world
        self.steps = range(start, len(plan)) if steps is None else steps

    def __call__(self) -> Iterator[tuple[int, np.ndarray]]:
        worker = torch.utils.data.get_worker_info()
        if worker is not None and worker.num_workers > 1:
            found = f"a DataLoader with {worker.num_workers} workers"
            do = "iterate the stream itself, or give DataLoader num_workers=0: a thread reads ahead"
            raise InputError("stream", found, expected="one reader, else batches repeat", do=do)
        for step in self.steps:
            yield step, self.plan.rank_rows(step, self.rank, self.world)


class ReadAhead:
    """Second stage: regions and captions of the pairs, read by threads while others are used.

    An error is raised where its batch would have come, and the threads end when the consumer
    stops, wherever that is.
    """

    def __init__(
        self,
        plan: Plan,
        store: FeatureStore,
        texts: Texts,
        max_regions: int | None = None,
        depth: int = 2,
        threads: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        check_images(plan, store)
        self.plan, self.store, self.texts, self.max_regions = plan, store, texts, max_regions
        self.depth, self.threads, self.device = depth, threads, torch.device(device)

    def __call__(self, source: Iterable[tuple[int, np.ndarray]]) -> Iterator[Batch]:
        pool = self._pool()
        asked = ask_ahead(
            self.store,
            source,
            images_of=lambda item: self.plan.images_of(item[1]),
            max_regions=self.max_regions,
            batches=AHEAD if self.depth else 0,
        )
        with contextlib.closing(pool), contextlib.closing(asked):
            yield from work_ahead(
                asked, lambda item: self._read(pool, *item), depth=self.depth, threads=self.threads
            )

    def _read(self, pool: BufferPool, step: int, pairs: np.ndarray) -> Batch:
        images = self.plan.images_of(pairs)
        regions = pool.gather(self.store, images, max_regions=self.max_regions)
        texts = self.texts(pairs)
        return Batch(
            step=step,
            pairs=pairs,
            features=torch.from_numpy(regions.features),
            geometry=self._pinned(torch.from_numpy(regions.geometry)),
            cu_seqlens=self._pinned(torch.from_numpy(regions.cu_seqlens)),
            longest=int(np.diff(regions.cu_seqlens).max(initial=0)),
            texts=texts.map(self._pinned) if isinstance(texts, Packed) else self._pinned(texts),
        )

    def _pinned(self, small: torch.Tensor) -> torch.Tensor:
        """Copy a small tensor to where a GPU can read it; torch knows when it may use that again.

        From other memory a copy is waited for, ``non_blocking`` or not.
        """
        return small.pin_memory() if self.device.type == "cuda" else small

    def _pool(self) -> BufferPool:
        """Memory for batches; made by the consumer's own thread, whose CUDA stream it learns."""
        spare = self.depth + self.threads + 1
        if self.device.type != "cuda":
            return BufferPool(self.store.dim, spare)
        waiting = _copies_of(torch.cuda.current_stream(self.device))
        return BufferPool(self.store.dim, spare, pinned_memory, before_reuse=waiting)


def pinned_memory(shape: tuple[int, int]) -> np.ndarray:
    """Float16 memory that a GPU can copy from by itself; the array keeps its tensor alive."""
    memory: np.ndarray = torch.empty(shape, dtype=torch.float16, pin_memory=True).numpy()
    return memory


def _copies_of(stream: torch.cuda.Stream) -> Callable[[], None]:
    """Make what waits for all copies that were given to a stream so far."""

    def wait() -> None:
        event = torch.cuda.Event(blocking=True)
        event.record(stream)
        event.synchronize()

    return wait
