"""Planned batches as ready tensors, through a webdataset pipeline, in exactly the planned order.

    pipeline = stream(plan, store, texts, start=200)     # resume is one integer
    for batch in pipeline:
        ...                                              # batch.features, batch.texts, ...

The stages are ``PlanSource | Gather | AddTexts | Prefetch``. There are no worker processes: one
thread works ahead, so order, content and counts are those of the plan, whatever its depth. Every
rank reads the same plan and takes its own rows of each batch.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from ..artifact import hash_bytes, hash_json
from ..errors import InputError, PlanMismatch, first_ten
from ..features.index import image_key
from .plan import Plan
from .tokens import MAX_TOKENS, Tokens, tokenise

if TYPE_CHECKING:
    from ..features import FeatureStore


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """One rank's rows of a planned batch.

    Attributes:
        step: number of the batch in the plan.
        pairs: (B,) int64 pair numbers.
        features: (sum n, D) float16, the regions of B images end to end.
        geometry: (sum n, 6) float32.
        cu_seqlens: (B + 1,) int32; image k owns rows ``cu_seqlens[k]:cu_seqlens[k + 1]``.
        texts: (B, d) float32 caption vectors, or the captions' tokens (these stay on the CPU).
    """

    step: int
    pairs: np.ndarray
    features: torch.Tensor
    geometry: torch.Tensor
    cu_seqlens: torch.Tensor
    texts: torch.Tensor | Tokens

    def to(self, device: torch.device | str) -> Batch:
        """Copy the tensors to a device."""
        names = ("features", "geometry", "cu_seqlens", "texts")
        moved: dict[str, Any] = {
            n: v.to(device, non_blocking=True)
            for n in names
            if isinstance(v := getattr(self, n), torch.Tensor)
        }
        return replace(self, **moved)


class Texts(Protocol):
    """What the text tower needs of a pair, by pair number.

    Attributes:
        identity: a hash of all there is, for checkpoints.
    """

    identity: str

    def __call__(self, pairs: np.ndarray) -> torch.Tensor | Tokens: ...


class CachedTexts:
    """Caption vectors computed beforehand, for a frozen text tower.

    Args:
        lookup: maps (n,) pair numbers to (n, dim) vectors of any float.
        dim: numbers of a vector.
        identity: a hash of what the vectors were made from.
    """

    def __init__(
        self, lookup: Callable[[np.ndarray], np.ndarray], *, dim: int, identity: str
    ) -> None:
        self.lookup, self.dim, self.identity = lookup, dim, identity

    @classmethod
    def of_rows(cls, vectors: np.ndarray, pairs: np.ndarray | None = None) -> CachedTexts:
        """Serve an array: row k belongs to pair k, or to ``pairs[k]`` (increasing numbers).

        Raises:
            PlanMismatch: (on use) a pair has no row.
        """
        known = np.arange(len(vectors)) if pairs is None else pairs
        identity = hash_json([hash_bytes(np.ascontiguousarray(a).data) for a in (known, vectors)])
        return cls(
            lambda asked: vectors[positions(known, asked)],
            dim=vectors.shape[1],
            identity=identity,
        )

    def __call__(self, pairs: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.array(self.lookup(pairs), np.float32))


class TokenisedTexts:
    """Token ids, made once, for a text tower that is fine-tuned.

    Args:
        pairs: (n,) increasing pair numbers. captions: the caption of each.
        max_tokens: where a caption is cut off.
    """

    def __init__(
        self,
        tokenizer: Any,
        pairs: np.ndarray,
        captions: Sequence[str],
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        self.pairs = pairs
        self.tokens = tokenise(tokenizer, captions, max_tokens)
        arrays = (pairs, self.tokens.ids, self.tokens.cu_seqlens)
        self.identity = hash_json([hash_bytes(np.ascontiguousarray(a).data) for a in arrays])

    @classmethod
    def of_plan(cls, tokenizer: Any, plan: Plan, max_tokens: int = MAX_TOKENS) -> TokenisedTexts:
        """Tokenise every caption of a plan's pairs."""
        pairs = plan.pairs.column("pair").to_numpy()
        return cls(tokenizer, pairs, plan.pairs.column("caption").to_pylist(), max_tokens)

    def __call__(self, pairs: np.ndarray) -> Tokens:
        return self.tokens.take(positions(self.pairs, pairs))


def positions(known: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Find pair numbers in an increasing array.

    Raises:
        PlanMismatch: a number is not there.
    """
    at = np.searchsorted(known, pairs)
    found = known.take(at, mode="clip") == pairs if len(known) else np.zeros(len(pairs), bool)
    if not np.all(found):
        missing = first_ten(np.asarray(pairs)[~found].tolist())
        raise PlanMismatch("texts", f"no caption for pairs {missing}", do="run 'tonics embed'")
    return at


def stream(
    plan: Plan,
    store: FeatureStore,
    texts: Texts,
    *,
    start: int = 0,
    rank: int = 0,
    world: int = 1,
    max_regions: int | None = None,
    prefetch: int = 2,
) -> Any:
    """Stream a plan's batches, from batch ``start`` on.

    Args:
        texts: ``CachedTexts`` or ``TokenisedTexts``.
        rank, world: this process takes rows ``[rank * B / world, (rank + 1) * B / world)``.
        max_regions: keep only the first regions of each image (they are sorted by score).
        prefetch: batches a thread may work ahead; 0 for none.

    Returns:
        A ``webdataset.DataPipeline`` of ``Batch``: append stages to it, or iterate.

    Raises:
        InputError: ``start`` is not a batch of the plan, or ``world`` does not divide the batch.
        ImageNotFound: the store does not hold an image of the plan.
        PlanMismatch: the store's image of some number is not the plan's image of that number.
    """
    import webdataset

    return webdataset.DataPipeline(
        PlanSource(plan, start, rank, world),
        Gather(plan, store, max_regions),
        AddTexts(texts),
        Prefetch(prefetch),
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
    """First stage: (step, pair numbers) of every batch."""

    def __init__(self, plan: Plan, start: int = 0, rank: int = 0, world: int = 1) -> None:
        if not 0 <= start <= len(plan):
            raise InputError(plan.path, f"start={start}", expected=f"0 to {len(plan)}")
        if not 0 <= rank < world:
            raise InputError(plan.path, f"rank {rank} of {world}", expected=f"0 to {world - 1}")
        plan.rows_per_rank(world)
        self.plan, self.start, self.rank, self.world = plan, start, rank, world

    def __call__(self) -> Iterator[tuple[int, np.ndarray]]:
        worker = torch.utils.data.get_worker_info()
        if worker is not None and worker.num_workers > 1:
            found = f"a DataLoader with {worker.num_workers} workers"
            do = "iterate the stream itself, or give DataLoader num_workers=0: a thread reads ahead"
            raise InputError("stream", found, expected="one reader, else batches repeat", do=do)
        for step in range(self.start, len(self.plan)):
            yield step, self.plan.rank_rows(step, self.rank, self.world)


class Gather:
    """Second stage: reads the regions of the pairs' images."""

    def __init__(self, plan: Plan, store: FeatureStore, max_regions: int | None) -> None:
        check_images(plan, store)
        self.plan, self.store, self.max_regions = plan, store, max_regions

    def __call__(
        self, source: Iterable[tuple[int, np.ndarray]]
    ) -> Iterator[tuple[int, np.ndarray, Any]]:
        for step, pairs in source:
            images = self.plan.images_of(pairs)
            yield step, pairs, self.store.gather(images, max_regions=self.max_regions)


class AddTexts:
    """Third stage: puts captions beside the regions, as tensors."""

    def __init__(self, texts: Texts) -> None:
        self.texts = texts

    def __call__(self, source: Iterable[tuple[int, np.ndarray, Any]]) -> Iterator[Batch]:
        for step, pairs, regions in source:
            yield Batch(
                step=step,
                pairs=pairs,
                features=torch.from_numpy(regions.features),
                geometry=torch.from_numpy(regions.geometry),
                cu_seqlens=torch.from_numpy(regions.cu_seqlens),
                texts=self.texts(pairs),
            )


class Prefetch:
    """Last stage: a thread works ``depth`` items ahead.

    Order is kept, an error of an earlier stage is raised where its item would have come, and the
    thread ends when the consumer stops, wherever that is.
    """

    def __init__(self, depth: int) -> None:
        self.depth = depth

    def __call__(self, source: Iterable[Any]) -> Iterator[Any]:
        if not self.depth:
            yield from source
            return
        ready: queue.Queue[tuple[Any, BaseException | None, bool]] = queue.Queue(self.depth)
        stop = threading.Event()
        thread = threading.Thread(
            target=_fill, args=(source, ready, stop), name="tonics-prefetch", daemon=True
        )
        thread.start()
        try:
            while True:
                item, error, ended = ready.get()
                if error is not None:
                    raise error
                if ended:
                    return
                yield item
        finally:
            stop.set()
            _empty(ready)
            thread.join()


def _empty(ready: queue.Queue[Any]) -> None:
    """Empty a queue, so that a producer blocked on it goes on."""
    while not ready.empty():
        ready.get_nowait()


def _fill(source: Iterable[Any], ready: queue.Queue[Any], stop: threading.Event) -> None:
    """Put items until there are no more or the consumer has stopped."""
    error: BaseException | None = None
    try:
        for item in source:
            ready.put((item, None, False))
            if stop.is_set():
                return
    except BaseException as caught:  # whatever it is, it belongs to the consumer
        error = caught
    ready.put((None, error, True))
