"""A plan in somebody else's trainer: their row numbers, and what their ranks really received."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import PlanMismatch, first_ten

if TYPE_CHECKING:
    from .plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignedPlan:
    """A plan in the row numbers of somebody's own dataset; see ``Plan.align``.

    Attributes:
        table: (largest pair number + 1,) int64 the dataset row of each pair number; 0 where the
            plan does not use a number.
    """

    plan: Plan
    table: np.ndarray

    def __len__(self) -> int:
        return len(self.plan)

    @property
    def batch_size(self) -> int:
        """Rows in a global batch."""
        return self.plan.batch_size

    def batch(self, step: int) -> np.ndarray:
        """The (B,) int64 dataset rows of a global batch."""
        return self._translate(self.plan.batch(step))

    def rank_rows(self, step: int, rank: int, world: int) -> np.ndarray:
        """This rank's dataset rows of a global batch."""
        return self._translate(self.plan.rank_rows(step, rank, world))

    def iterate(self, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[np.ndarray]:
        """Yield this rank's dataset rows of every batch from ``start`` on."""
        for step in range(start, len(self)):
            yield self.rank_rows(step, rank, world)

    def audit(self, step: int, rows: Sequence[int] | np.ndarray) -> None:
        """As ``Plan.audit``, with dataset rows instead of pair numbers."""
        audit_batch(str(self.plan.path), step, self.batch(step), rows)

    def _translate(self, pairs: np.ndarray) -> np.ndarray:
        return self.table[pairs]


def audit_batch(
    where: str, step: int, planned: np.ndarray, received: Sequence[int] | np.ndarray
) -> None:
    """Compare what all ranks received, in rank order, with a planned batch."""
    got = _gather_ranks(np.asarray(received, dtype=np.int64).reshape(-1))
    if len(got) == len(planned) and np.array_equal(got, planned):
        return
    absent = np.setdiff1d(planned, got).tolist()
    foreign = np.setdiff1d(got, planned).tolist()
    if absent or foreign:
        missing, extra = first_ten(absent) or "none", first_ten(foreign) or "none"
        found = f"{len(got)} rows; missing {missing}; not planned {extra}"
    else:
        found = f"the {len(planned)} planned rows in another order or repeated ({len(got)} rows)"
    raise PlanMismatch(
        f"{where}, batch {step}",
        found,
        expected=f"exactly the {len(planned)} planned rows, in order",
        do="check for a sampler that your framework replaced or re-sharded",
    )


def _gather_ranks(rows: np.ndarray) -> np.ndarray:
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return rows
    everyone: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyone, rows)
    return np.concatenate(everyone)
