"""Reads a feature store at memory speed: mapped files, numpy views, one packed copy per batch."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import FormatError, ImageNotFound, InputError, first_ten
from .detector import Vocabulary
from .index import Index, content_hash
from .readahead import exceeds_memory, will_need
from .regions import RegionBatch, RegionBuffer, Regions
from .schema import INDEX_NAME, REBUILD, REMAKE, VOCABULARY_NAME
from .shard import Shard, ShardBatch, without_advice


class FeatureStore:
    """The regions of many images, read-only.

    Opening maps the index and compares the sizes of the shards with it; a shard is mapped when an
    image of it is first read. Threads may share a store; a pickled one opens again where it lands.

    >>> store = FeatureStore("my-dataset/features/grid")        # doctest: +SKIP
    >>> store.gather([7, 3, 7], max_regions=10).features.shape  # doctest: +SKIP
    (30, 1280)

    Args:
        path: the folder with ``index.arrow``.
        asks_ahead: whether to tell the kernel which bytes will be read; when omitted, if the store
            is too large to stay in memory once read.

    Attributes:
        path: the folder.
        asks_ahead: whether it does.
        images: (N,) int64, sorted.
        dim: D, the numbers in one region's feature.
        content_hash: of all rows, however they are cut into shards.

    Raises:
        InputError: there is no store in this folder.
        FormatError: the index is damaged or of another version, or a shard is missing or has
            another size than the index says.
    """

    def __init__(self, path: str | Path, *, asks_ahead: bool | None = None) -> None:
        self.path = Path(path)
        self._index = Index.read(self.path)
        self.images = self._index.image
        self.dim = self._index.dim
        self.content_hash = self._index.content_hash
        self._check_sizes()
        self._told_to_ask = asks_ahead
        size = sum(size for _, size in self._index.files)
        self.asks_ahead = exceeds_memory(size) if asks_ahead is None else asks_ahead
        self._shards: dict[int, Shard] = {}
        self._batches: dict[tuple[int, int], ShardBatch] = {}

    def __reduce__(self) -> tuple[object, ...]:
        return (functools.partial(type(self), asks_ahead=self._told_to_ask), (self.path,))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.path)!r}, {len(self)} images, dim={self.dim})"

    def __contains__(self, image: int) -> bool:
        return bool(self._index.rows(np.array([image]))[1][0])

    def __iter__(self) -> Iterator[int]:
        return map(int, self.images)

    def __getitem__(self, image: int) -> Regions:
        """View the regions of one image.

        Raises:
            ImageNotFound: the store does not hold it.
        """
        at = int(self._rows([image])[0])
        batch = self._batch(int(self._index.file[at]), int(self._index.batch[at]))
        return batch.regions(int(self._index.row[at]))

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What the label and attribute numbers mean."""
        return Vocabulary.read(self.path / VOCABULARY_NAME)

    def num_regions(self, images: np.ndarray | Sequence[int]) -> np.ndarray:
        """Count the regions of each image, (B,) int32, without touching the shards.

        Raises:
            ImageNotFound: a number is not in the store; the message lists the first ten.
        """
        return self._index.num_regions[self._rows(images)]

    def image_keys(self, images: np.ndarray | Sequence[int]) -> np.ndarray:
        """Say whose images these are: (B,) uint64, xxh3-64 of each image_id, 0 where not known.

        Raises:
            ImageNotFound: a number is not in the store; the message lists the first ten.
        """
        return self._index.image_key[self._rows(images)]

    def gather(
        self,
        images: np.ndarray | Sequence[int],
        max_regions: int | None = None,
        out: RegionBuffer | None = None,
        *,
        asked: bool = False,
    ) -> RegionBatch:
        """Read the regions of many images into one packed buffer.

        Args:
            images: (B,) image numbers, any order, repeats allowed.
            max_regions: keep the first so many regions of an image, the detector's best.
            out: memory to fill and return views of; allocated when omitted.
            asked: ``will_need`` was called for these images already.

        Returns:
            The regions in the order asked for.

        Raises:
            ImageNotFound: a number is not in the store; the message lists the first ten.
            InputError: ``out`` is for another D, or its own memory is too small.
            FormatError: a shard is damaged or is not the one that was indexed.
        """
        rows = self._rows(images)
        counts = self._counts(rows, max_regions)
        ends = np.cumsum(counts, dtype=np.int64)
        total = int(ends[-1]) if len(ends) else 0
        buffer = RegionBuffer(self.dim) if out is None else out
        if buffer.dim != self.dim:
            raise InputError("out", f"features of {buffer.dim} numbers", expected=f"{self.dim}")
        buffer.reserve(total)
        if self.asks_ahead and not asked:
            self._ask(rows, counts)
        self._fill(buffer, rows, counts, ends - counts)
        return RegionBatch(
            images=self.images[rows],
            features=buffer.features[:total],
            boxes=buffer.boxes[:total],
            labels=buffer.labels[:total],
            scores=buffer.scores[:total],
            cu_seqlens=np.concatenate([[0], ends]).astype(np.int32),
            widths=self._index.width[rows],
            heights=self._index.height[rows],
        )

    def will_need(self, images: np.ndarray | Sequence[int], max_regions: int | None = None) -> None:
        """Ask the kernel to read what a gather of these images will copy; do not wait for it.

        Raises:
            As ``gather``.
        """
        rows = self._rows(images)
        self._ask(rows, self._counts(rows, max_regions))

    def verify(self) -> list[str]:
        """Read everything and compare it with its hashes and with the index.

        Returns:
            One line for each damage, naming shard, batch and image; empty when all is well.
        """
        problems = self.compare()
        for name, _ in self._index.files:  # mapped for this alone: all of it should not stay
            try:
                problems += Shard(self.path / name).verify()
            except FormatError as error:
                problems.append(without_advice(error))
        return list(dict.fromkeys(problems))

    def compare(self) -> list[str]:
        """Compare the index with the shards and the vocabulary; features are not read.

        Returns:
            One line for each difference.
        """
        problems: list[str] = []
        index, hashes = self._index, np.zeros((len(self), 16), np.uint8)
        for file, (name, _) in enumerate(index.files):
            try:
                shard = Shard(self.path / name)
            except FormatError as error:
                problems.append(without_advice(error))
                continue
            for number in range(shard.num_batches):
                try:
                    batch = self._checked(shard, file, number)
                    hashes[index.rows(batch.images)[0]] = batch.hashes
                except FormatError as error:
                    problems.append(without_advice(error))
        content = content_hash(index.image, index.width, index.height, hashes)
        if not problems and content != self.content_hash:
            problems.append(f"{self.path / INDEX_NAME}: content hash differs from the shards'")
        try:
            if self.vocabulary.content_hash() != index.vocabulary_hash:
                problems.append(f"{self.path / VOCABULARY_NAME} was altered")
        except FormatError as error:
            problems.append(without_advice(error))
        return problems

    def _fill(
        self, buffer: RegionBuffer, rows: np.ndarray, counts: np.ndarray, starts: np.ndarray
    ) -> None:
        """Copy every image to its place, record batch by record batch."""
        into = (buffer.features, buffer.boxes, buffer.labels, buffer.scores)
        for batch, group in self._by_batch(rows):
            columns = (batch.features, batch.boxes, batch.labels, batch.scores)
            pairs = tuple(zip(into, columns, strict=True))
            first = self._index.first_region[rows[group]]
            spans = zip(first.tolist(), counts[group].tolist(), starts[group].tolist(), strict=True)
            for source, count, to in spans:
                there, here = slice(source, source + count), slice(to, to + count)
                for target, column in pairs:
                    target[here] = column[there]

    def _ask(self, rows: np.ndarray, counts: np.ndarray) -> None:
        """Ask for the features of these images, and for the small columns of their record batches.

        The small ones take half a percent of a store: asked for whole, they are soon all in memory,
        where an image's own parts of them would be three more reads an image, for ever.
        """
        starts, stops = [], []
        for batch, group in self._by_batch(rows):
            first = self._index.first_region[rows[group]]
            address, row_bytes = batch.features.ctypes.data, batch.features.strides[0]
            starts.append(address + first * row_bytes)
            stops.append(address + (first + counts[group]) * row_bytes)
            small = [(a.ctypes.data, a.nbytes) for a in (batch.boxes, batch.labels, batch.scores)]
            starts.append(np.array([address for address, _ in small]))
            stops.append(np.array([address + size for address, size in small]))
        if starts:
            will_need(np.concatenate(starts), np.concatenate(stops))

    def _by_batch(self, rows: np.ndarray) -> Iterator[tuple[ShardBatch, np.ndarray]]:
        """Group images by the record batch they lie in, in the order they lie in it.

        Returns:
            Record batches, each with the places in ``rows`` of its images.
        """
        file, number = self._index.file[rows], self._index.batch[rows]
        order = np.lexsort((rows, number, file))
        borders = np.flatnonzero(np.diff(file[order]) | np.diff(number[order])) + 1
        for group in np.split(order, borders):
            if len(group):  # an empty batch splits into one empty group
                yield self._batch(int(file[group[0]]), int(number[group[0]])), group

    def _counts(self, rows: np.ndarray, max_regions: int | None) -> np.ndarray:
        """How many regions of each image to read, (B,) int32."""
        if max_regions is None:
            return self._index.num_regions[rows]
        if max_regions < 0:
            raise InputError("max_regions", repr(max_regions), expected="0 or more, or None")
        return np.minimum(self._index.num_regions[rows], max_regions)

    def _rows(self, images: np.ndarray | Sequence[int]) -> np.ndarray:
        """Find the images' places in the index, (B,) int64."""
        wanted = np.asarray(images)
        if wanted.size == 0:
            return np.zeros(0, np.int64)
        if wanted.ndim != 1 or wanted.dtype.kind not in "iu":
            found = f"{wanted.dtype} {wanted.shape}"
            raise InputError("images", found, expected="one axis of whole numbers")
        rows, there = self._index.rows(wanted)
        if not there.all():
            missing: list[object] = list(dict.fromkeys(wanted[~there].tolist()))
            raise ImageNotFound(self.path, f"holds no image {first_ten(missing)}")
        return rows

    def _batch(self, file: int, number: int) -> ShardBatch:
        batch = self._batches.get((file, number))
        if batch is None:
            batch = self._checked(self._shard(file), file, number)
            self._batches[file, number] = batch  # about 10 KB for 64 MB of features
        return batch

    def _checked(self, shard: Shard, file: int, number: int) -> ShardBatch:
        """Map a record batch.

        Raises:
            FormatError: it is damaged, or not the one that was indexed.
        """
        batch = shard.batch(number)
        if not self._index.agrees(file, number, batch):
            found = f"batch {number} is not what {INDEX_NAME} says"
            raise FormatError(shard.path, found, do=REBUILD)
        return batch

    def _shard(self, file: int) -> Shard:
        shard = self._shards.get(file)
        if shard is None:
            shard = Shard(self.path / self._index.files[file][0], at_random=self.asks_ahead)
            self._shards[file] = shard
        return shard

    def _check_sizes(self) -> None:
        """Compare files with the index: a map shorter than it claims is a bus error when read."""
        for name, size in self._index.files:
            path = self.path / name
            try:
                found = path.stat().st_size
            except FileNotFoundError as error:
                raise FormatError(path, "is missing", do=REMAKE) from error
            if found != size:
                expected = f"{size} as {INDEX_NAME} says"
                raise FormatError(path, f"{found} bytes", expected=expected, do=REMAKE)
