"""Batches with their figures: what is read of a plan to report on it, and averages over phases.

All batches are compared where that is affordable, else evenly spaced ones of every phase; averages
weigh each phase by how many batches it has, not by how many were compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from ....errors import InputError, first_ten
from ....train.plan_files import Batches
from ..eligible import Eligible
from ..similarity import SCALE
from .alike import Alike, Read, compare_within, spread, unit
from .counts import depths, group_nodes, objects_met, reasons, seen

_IMAGE_PRODUCTS = 1 << 26
_IMAGES = 4096  # whose regions are read
_SAMPLE_PAIRS = 2_000
_ONE_CAPTION = 0.9  # stands for the cosine of two captions of one image where there are no two


@dataclass(frozen=True, kw_only=True)
class Source:
    """What eligible pairs say and show.

    Attributes:
        captions: maps (n,) pair numbers to (n, d) caption vectors. images: maps (n,) image numbers,
            increasing, to (n, d) vectors; not asked where ``Eligible`` has them.
    """

    eligible: Eligible
    captions: Read | None
    images: Read | None

    @cached_property
    def suspect(self) -> float:
        """The median cosine of two captions of one image."""
        assert self.captions is not None, "no caption vectors to read"
        image, pair = self.eligible.image, self.eligible.pair
        order = np.argsort(image, kind="stable")
        twins = np.flatnonzero(np.diff(image[order]) == 0)
        if not len(twins):
            return _ONE_CAPTION
        rng = np.random.default_rng(0)
        chosen = np.sort(rng.choice(twins, min(len(twins), _SAMPLE_PAIRS), replace=False))
        a, b = (unit(self.captions(pair[order[chosen + k]])) for k in (0, 1))
        return float(np.median((a * b).sum(axis=1)))

    def said(self, rows: np.ndarray) -> np.ndarray:
        """(n, d) caption vectors of rows."""
        assert self.captions is not None, "no caption vectors to read"
        return self.captions(self.eligible.pair[rows])

    def batches_to_see(self, size: int) -> int:
        """How many batches of ``size`` to compare by their images; 0 where there are no vectors."""
        if self.images is None and not self._loaded:
            return 0
        most = _IMAGE_PRODUCTS // (size * size)
        return max(2, most if self._few or self._loaded else min(most, _IMAGES // size))

    def shown(self, rows: np.ndarray) -> Read:
        """What maps any of the given rows to the vectors of their images."""
        if self._loaded:
            return lambda some: self.eligible.vectors["image"].take(some) / np.float32(SCALE)
        numbers, pooled = self._pooled if self._few else self._pool(np.unique(self._image[rows]))
        return lambda some: pooled[np.searchsorted(numbers, self._image[some])]

    @property
    def _loaded(self) -> bool:
        return "image" in self.eligible.vectors

    @property
    def _few(self) -> bool:
        return self.eligible.num_images <= _IMAGES

    @cached_property
    def _image(self) -> np.ndarray:
        return self.eligible.table.column("image").to_numpy()

    @cached_property
    def _pooled(self) -> tuple[np.ndarray, np.ndarray]:
        return self._pool(np.unique(self._image))

    def _pool(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert self.images is not None, "no image vectors to read"
        return numbers, self.images(numbers)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The batches of a plan and what was measured of them.

    Attributes:
        left: what epochs left out (``REMAINDER_SCHEMA``). products: cosines to compute, at most.
    """

    source: Source
    batches: Batches
    left: pa.Table
    products: int

    @cached_property
    def steps(self) -> np.ndarray:
        """(m,) the batches whose captions are compared and whose objects are counted."""
        return spread(self.batches.phase, max(2, self.products // self._size**2))

    @cached_property
    def image_steps(self) -> np.ndarray:
        """(m,) the batches whose images are compared."""
        most = self.source.batches_to_see(self._size)
        return spread(self.batches.phase, most) if most else np.empty(0, np.int64)

    @cached_property
    def captions(self) -> Alike | None:
        """Of ``steps``; None without caption vectors.

        Raises:
            InputError: a vector is not finite; so for images.
        """
        if self.source.captions is None:
            return None
        groups, _ = group_nodes(self.batches)
        read, rows = self.source.said, self._measured_rows
        found = compare_within(read, rows, groups[self.steps], self.source.suspect)
        return self._finite("caption vectors", found, read, rows)

    @cached_property
    def images(self) -> Alike | None:
        """Of ``image_steps``; None without image vectors."""
        if not len(self.image_steps):
            return None
        rows = self._rows(self.image_steps)
        read = self.source.shown(rows)
        return self._finite("image vectors", compare_within(read, rows), read, rows)

    def _finite(self, what: str, found: Alike, read: Read, rows: np.ndarray) -> Alike:
        """The same, once it is known that no vector is NaN or infinite."""
        if np.isfinite(found.top1).all():
            return found
        some = np.unique(rows[~np.isfinite(found.top1)])
        bad = self.source.eligible.pair[some[~np.isfinite(read(some)).all(axis=1)]]
        raise InputError(
            f"{what}, by pair",
            f"{len(bad):,} are not finite (NaN or infinite): {first_ten(bad.tolist())}",
            expected="finite numbers",
            do="compute them again; a half-precision encoder may have overflowed",
        )

    @cached_property
    def objects(self) -> np.ndarray | None:
        """(m,) how many objects the pairs of each of ``steps`` name; None without objects."""
        objects = self.source.eligible.objects
        return None if objects is None else objects_met(objects, self._measured_rows)

    @cached_property
    def _measured_rows(self) -> np.ndarray:
        return self._rows(self.steps)

    def figures(self, phase: int | None = None) -> dict[str, Any]:
        """The figures of ``quality.json``, of one phase or of the whole plan."""
        batches, objects = self.batches, self.source.eligible.objects
        which = np.ones(len(batches.phase), bool) if phase is None else batches.phase == phase
        pairs = batches.pairs if phase is None else batches.pairs[which]
        left = self.left.column("phase").to_numpy()
        averaged = self._averaged() if len(pairs) else {}
        found: dict[str, Any] = {
            "batches": len(pairs),
            "epochs": len(np.unique(batches.epoch[which])),
            "placed": int(pairs.size),
            "groups": self._groups(which),
            **seen(self.source.eligible.pair, pairs),
            "left_out": reasons(self.left if phase is None else self.left.filter(left == phase)),
            **{name: self._average(*of, which) for name, of in averaged.items()},
        }
        return found | ({} if objects is None else {"depth": depths(objects, batches, which)})

    def _groups(self, which: np.ndarray) -> float:
        """How many groups a batch consists of, on average; 0 where batches are no set of groups."""
        if self.batches.groups is None or not which.any():
            return 0.0
        return round(float(self.batches.groups.value_lengths().to_numpy()[which].mean()), 2)

    def _averaged(self) -> dict[str, tuple[np.ndarray, np.ndarray, int]]:
        """Figures that are means over batches: of which ones, the numbers, and digits to keep."""
        found: dict[str, tuple[np.ndarray, np.ndarray, int]] = {}
        if said := self.captions:
            values = {"top1": said.top1, "mean": said.mean, "mean_apart": said.apart}
            values["suspects"] = said.suspects
            found |= {name: (self.steps, value, 4) for name, value in values.items()}
        if shown := self.images:
            found["image_top1"] = (self.image_steps, shown.top1, 4)
            found["image_mean"] = (self.image_steps, shown.mean, 4)
        if self.objects is not None:
            found["objects"] = (self.steps, self.objects, 1)
        return found

    def _average(
        self, steps: np.ndarray, values: np.ndarray, digits: int, which: np.ndarray
    ) -> float:
        """The mean of a figure over the phases of ``which``, weighed by their batches."""
        numbers, counts = np.unique(self.batches.phase[which], return_counts=True)
        means = [values[self.batches.phase[steps] == number].mean() for number in numbers]
        return round(float(np.average(means, weights=counts)), digits) + 0.0  # never -0.0

    def _rows(self, steps: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.source.eligible.pair, self.batches.pairs[steps])

    @property
    def _size(self) -> int:
        return int(self.batches.pairs.shape[1])
