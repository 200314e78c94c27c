"""What an image is to the trainer: the regions a detector saw in it, best first.

``Regions`` is one image, ``RegionBatch`` many of them packed without padding, ``RegionBuffer`` the
reusable memory behind a batch. numpy and xxhash only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xxhash

from ..errors import InputError

MAX_ATTRIBUTES = 16  # K: attributes kept for a region, as many as VinVL's detector emits
MAX_REGIONS = np.iinfo(np.int16).max
Allocate = Callable[[tuple[int, int]], np.ndarray]
CACHE_LINE = 64  # bytes
_SLACK = 8  # a buffer grows by one part in so many beyond what is needed now


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Regions:
    """The regions of one image, in the detector's order, which is by score.

    Attributes:
        features: (n, D) float16.
        boxes: (n, 4) float32, x1 y1 x2 y2 in pixels of the stored image, before any EXIF rotation.
        labels: (n,) uint16, positions in the vocabulary.
        scores: (n,) float32.
        attributes: (n, K) uint16, or (0, K) from a detector that has none.
        attribute_scores: as attributes, float16; an entry with score 0 is filler.
        width: of the stored image, in pixels.
        height: of the stored image, in pixels.
    """

    features: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    attributes: np.ndarray
    attribute_scores: np.ndarray
    width: int
    height: int

    def __len__(self) -> int:
        return len(self.features)

    @property
    def geometry(self) -> np.ndarray:
        """(n, 6) float32: x1/W, y1/H, x2/W, y2/H, w/W, h/H, as VinVL's users append them."""
        n = len(self)
        return _geometry(self.boxes, np.full(n, self.width), np.full(n, self.height))

    @property
    def nbytes(self) -> int:
        """What the arrays take, in memory as on the disk."""
        return sum(array.nbytes for array in self._arrays().values())

    def xxh3(self) -> bytes:
        """Hash features, boxes, labels, scores, attributes and their scores, in this order."""
        state = xxhash.xxh3_128()
        for array in self._arrays().values():
            state.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return state.digest()

    def check(self, where: object, dim: int) -> None:
        """Refuse what a shard must not hold.

        Args:
            where: the image, for the message.
            dim: the store's D.

        Raises:
            InputError: a shape or dtype is wrong, a number is not finite, a box leaves the image.
        """
        n = len(self)
        if n > MAX_REGIONS:
            raise InputError(where, f"{n} regions", expected=f"at most {MAX_REGIONS}")
        if self.width < 1 or self.height < 1:
            raise InputError(
                where, f"image size {self.width} x {self.height}", expected="1 x 1 or more"
            )
        self._check_shapes(where, dim)
        self._check_values(where)

    def _arrays(self) -> dict[str, np.ndarray]:
        names = ("features", "boxes", "labels", "scores", "attributes", "attribute_scores")
        return {name: getattr(self, name) for name in names}

    def _check_shapes(self, where: object, dim: int) -> None:
        n = len(self)
        rows = n if len(self.attributes) else 0
        expected = {
            "features": ("<f2", (n, dim)),
            "boxes": ("<f4", (n, 4)),
            "labels": ("<u2", (n,)),
            "scores": ("<f4", (n,)),
            "attributes": ("<u2", (rows, MAX_ATTRIBUTES)),
            "attribute_scores": ("<f2", (rows, MAX_ATTRIBUTES)),
        }
        for name, array in self._arrays().items():
            dtype, shape = np.dtype(expected[name][0]), expected[name][1]
            if array.dtype != dtype or array.shape != shape:
                found = f"{name} are {array.dtype} {array.shape}"
                raise InputError(where, found, expected=f"{dtype} {shape}")

    def _check_values(self, where: object) -> None:
        for name in ("features", "boxes", "scores", "attribute_scores"):
            array = getattr(self, name)
            finite = np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
            if not finite.all():
                found = f"{name} of region {int(finite.argmin())} hold NaN or infinity"
                raise InputError(where, found, expected="finite numbers (float16 ends at 65504)")
        low, high = self.boxes[:, :2], self.boxes[:, 2:]
        inside = (low >= 0).all(1) & (low <= high).all(1)
        inside &= (high <= np.array([self.width, self.height], np.float32)).all(1)
        if not inside.all():
            region = int(inside.argmin())
            found = f"box {self.boxes[region].tolist()} of region {region}"
            size = f"{self.width} x {self.height}"
            raise InputError(where, found, expected=f"x1 <= x2, y1 <= y2, inside the {size} image")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RegionBatch:
    """The regions of B images, packed: image i owns rows ``cu_seqlens[i]:cu_seqlens[i + 1]``.

    Attributes:
        images: (B,) int64, in the order asked for.
        features: (sum n, D) float16.
        boxes: (sum n, 4) float32, x1 y1 x2 y2 in pixels of the stored image.
        labels: (sum n,) uint16.
        scores: (sum n,) float32.
        cu_seqlens: (B + 1,) int32, starting with 0.
        widths: (B,) int32, pixels.
        heights: (B,) int32, pixels.
    """

    images: np.ndarray
    features: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    cu_seqlens: np.ndarray
    widths: np.ndarray
    heights: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    @property
    def geometry(self) -> np.ndarray:
        """(sum n, 6) float32: x1/W, y1/H, x2/W, y2/H, w/W, h/H."""
        counts = np.diff(self.cu_seqlens)
        return _geometry(
            self.boxes, np.repeat(self.widths, counts), np.repeat(self.heights, counts)
        )


def ordinary_memory(shape: tuple[int, int]) -> np.ndarray:
    """Float16 memory that begins at a whole cache line.

    numpy's own large arrays begin 16 bytes after one: copies to there run a sixth slower, and a
    third slower from pages that begin where theirs do (measured on AVX-512 machines).
    """
    size = 2 * shape[0] * shape[1]
    memory = np.empty(size + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + size].view(np.float16).reshape(shape)


class RegionBuffer:
    """Memory that one batch after another is gathered into: reused pages are ten times faster.

    It grows to the largest batch it has held. A batch gathered into it is views of it, and holds
    until the next gather into the same buffer.

    Args:
        dim: the store's D.
        regions: how many regions to make room for at once.
        features: (capacity, D) float16 memory of your own to fill, such as the numpy view of a
            pinned tensor; it is never replaced, so a batch that does not fit is an error.
        allocate: makes the float16 memory for features of a shape, when there is to be more.
    """

    def __init__(
        self,
        dim: int,
        regions: int = 0,
        *,
        features: np.ndarray | None = None,
        allocate: Allocate = ordinary_memory,
    ) -> None:
        if features is not None and (features.dtype != np.float16 or features.shape[1:] != (dim,)):
            found = f"features are {features.dtype} {features.shape}"
            raise InputError("RegionBuffer", found, expected=f"float16 (capacity, {dim})")
        self.dim = dim
        self._owned = features is None
        self._new_features = allocate
        self.features = np.empty((0, dim), np.float16) if features is None else features
        self._allocate(max(regions, len(self.features)))

    def __len__(self) -> int:
        return len(self.boxes)

    def reserve(self, regions: int) -> None:
        """Make room for a batch of so many regions, and a little more: batches differ in size.

        Raises:
            InputError: the memory given at construction is too small for it.
        """
        if regions > len(self):
            self._allocate(regions + regions // _SLACK if self._owned else regions)

    def _allocate(self, regions: int) -> None:
        if self._owned and regions:
            self.features = self._new_features((regions, self.dim))
        elif regions > len(self.features):
            found = f"room for {len(self.features)} regions"
            raise InputError("RegionBuffer", found, expected=f"{regions} or more")
        self.boxes = np.empty((regions, 4), np.float32)
        self.labels = np.empty(regions, np.uint16)
        self.scores = np.empty(regions, np.float32)


def _geometry(boxes: np.ndarray, widths: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Derive the six numbers of each box from the size of its own image, all in float32."""
    size = np.stack([widths, heights], axis=1).astype(np.float32)
    low, high = boxes[:, :2], boxes[:, 2:]
    return np.concatenate([low / size, high / size, (high - low) / size], axis=1)
