"""A plan as torch's batch sampler: five lines to any trainer that is built on a DataLoader.

    aligned = Plan("my-photos/plans/mixed").align(my_keys)     # "image_id#k" of each of your rows
    sampler = PlanBatchSampler(aligned, rank, world)
    loader = DataLoader(my_dataset, batch_sampler=sampler)
    for epoch in range(sampler.epochs):
        sampler.set_epoch(epoch)
        for step, batch in zip(sampler.steps, loader): ...

A rank receives its slice of the *rows* of every planned batch, so that all ranks together hold one
planned batch a step. Most frameworks would deal whole batches to ranks in turn: docs/recipes says
what to tell each. What would break a plan without a word is refused here, and ``check`` asks a
finished loader, whoever made it, what it is going to read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from torch.utils.data import BatchSampler

from ..errors import InputError, PlanMismatch, first_ten
from .alignment import AlignedPlan
from .plan import Plan


class PlanBatchSampler(BatchSampler):
    """Yields the rows of planned batches, whole and in order; torch's batch sampler protocol.

    Nothing here counts what was trained on (loaders read ahead): the state of a run is the number
    of steps it has done, handed back as ``start``.

    Args:
        plan: an ``AlignedPlan`` yields rows of your dataset, a ``Plan`` its own pair numbers.
        rank, world: this process takes rows ``[rank * B / world, (rank + 1) * B / world)``. Leave
            both out where the framework slices batches itself (accelerate's ``split_batches``);
            then, among several processes, a batch refuses to be read before it was sliced.
        start: the first step that is still to do; the epochs before its own are over.
        one_epoch: serve the whole plan as one epoch, for frameworks that never say which epoch it
            is, or ask only once how long an epoch is.

    Attributes:
        batch_size: rows a batch that is yielded. sampler: itself, through which Lightning and
            accelerate reach ``set_epoch``. drop_last: False.

    Raises:
        InputError: ``world`` does not divide the batch, there is no such rank or start, or the plan
            is empty or adaptive.
    """

    def __init__(
        self,
        plan: Plan | AlignedPlan,
        rank: int | None = None,
        world: int | None = None,
        *,
        start: int = 0,
        one_epoch: bool = False,
    ) -> None:
        self.plan = plan
        self._plan = plan.plan if isinstance(plan, AlignedPlan) else plan
        self._check_plan()
        if (rank is None) != (world is None):
            expected = "both, or neither where the framework slices batches"
            raise InputError(self._where, f"rank={rank}, world={world}", expected=expected)
        self._sliced = world is not None
        self.rank, self.world = rank or 0, 1 if world is None else world
        per_rank = self._plan.rows_per_rank(self.world)
        self._plan.rank_rows(0, self.rank, self.world)
        if not 0 <= start <= len(plan):
            raise InputError(self._where, f"start={start}", expected=f"0 to {len(plan)}")
        self.batch_size, self.drop_last = per_rank, False
        self.sampler: Any = self
        self.start, self.one_epoch = start, one_epoch
        self._first = 0 if one_epoch else self._plan.epoch_of(min(start, len(plan) - 1))
        self.epoch, self._yielded = self._first, 0

    @property
    def _where(self) -> str:
        return str(self._plan.path)

    def _check_plan(self) -> None:
        if self._plan.schedule is not None:
            found = "the batches of an adaptive plan are pools to draw from"
            raise InputError(self._where, found, expected="a list of batches", do="use its replay")
        if not len(self._plan):
            raise InputError(self._where, "a plan without batches", expected="at least one")

    @property
    def epochs(self) -> int:
        """How many epochs are served: the plan's, or one."""
        return 1 if self.one_epoch else self._plan.epochs

    @property
    def steps(self) -> range:
        """The plan's steps that the current epoch yields: from ``start`` on where it begins there.

        Raises:
            InputError: the current epoch was over before ``start``.
        """
        if self.epoch < self._first:
            do = f"begin with epoch {self._first}, or leave start out where the framework skips"
            found = f"epoch {self.epoch} was over before start={self.start}"
            raise InputError(self._where, found, do=do)
        whole = range(len(self.plan)) if self.one_epoch else self._plan.epoch_range(self.epoch)
        return range(max(whole.start, self.start), whole.stop)

    def set_epoch(self, epoch: int) -> None:
        """Serve this epoch from now on, from its beginning; calling it again changes nothing.

        Raises:
            InputError: there is no such epoch, or an epoch of a plan whose epochs differ in length
                was left before its end, as by a framework that asked for the length only once.
        """
        if not 0 <= epoch < self.epochs:
            do = "train for as many epochs as the plan has"
            if self.one_epoch:
                do = "train for one epoch: the whole plan is served as one"
            raise InputError(
                self._where, f"epoch {epoch}", expected=f"0 to {self.epochs - 1}", do=do
            )
        if epoch != self.epoch:
            self._refuse_cut_short()
        self.epoch, self._yielded = epoch, 0

    def _refuse_cut_short(self) -> None:
        if not 0 < self._yielded < len(self) or self._even:
            return
        raise InputError(
            self._where,
            f"epoch {self.epoch} was left after {self._yielded} of {len(self)} batches",
            expected="whole epochs; those of this plan differ in length",
            do="serve it as one: PlanBatchSampler(..., one_epoch=True)",
        )

    @property
    def _even(self) -> bool:
        return len({len(self._plan.epoch_range(e)) for e in range(self.epochs)}) == 1

    def __len__(self) -> int:
        """How many batches the current epoch yields."""
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the rows of each batch of the current epoch.

        Raises:
            InputError: the epoch was served to its end and ``set_epoch`` not called since.
        """
        steps = self.steps
        if steps and self._yielded >= len(steps):
            do = f"call set_epoch({self.epoch + 1}), or pass one_epoch=True and train for one epoch"
            raise InputError(
                self._where,
                f"epoch {self.epoch} is asked for again, after all its batches",
                expected="set_epoch before each epoch: this framework did not call it",
                do=do,
            )
        return self._serve(steps)

    def _serve(self, steps: range) -> Iterator[list[int]]:
        for count, step in enumerate(steps, 1):
            self._yielded = count
            rows = self.plan.rank_rows(step, self.rank, self.world).tolist()
            yield (
                rows
                if self._sliced
                else WholeBatch.among_ranks(rows, f"{self._where}, batch {step}")
            )

    def __call__(self, dataset: Any = None, batch_size: int | None = None, **_: Any) -> Any:
        """Return itself: what sentence-transformers calls to make a batch sampler.

        Raises:
            PlanMismatch: the dataset has fewer rows than the plan uses, or ``batch_size`` is not
                the plan's.
        """
        if batch_size not in (None, self.batch_size):
            found = f"the framework's batch size is {batch_size}"
            do = f"set per_device_train_batch_size={self.batch_size}"
            raise PlanMismatch(self._where, found, expected=f"the plan's {self.batch_size}", do=do)
        last = int(max(self.plan.batch(step).max() for step in self.steps))
        if dataset is not None and len(dataset) <= last:
            found = f"a dataset of {len(dataset)} rows"
            do = "align the plan with the keys of this dataset; evaluate with an evaluator"
            raise PlanMismatch(self._where, found, expected=f"more than {last} rows", do=do)
        return self

    def check(self, loader: Any) -> None:
        """Check what a loader is going to read in the current epoch, without reading any data.

        Call it in every process once the framework has made or wrapped the loader: it walks the
        loader's lists of rows and compares them with this rank's share of the plan. Ranks are those
        of ``torch.distributed`` where they were not given.

        Raises:
            PlanMismatch: the loader does not use this sampler, or batches are missing, repeated,
                cut, or another rank's.
        """
        outer: Any = getattr(loader, "batch_sampler", None)
        if not _leads_to(outer, self):
            found = f"{type(loader).__name__} reads from {type(outer).__name__}"
            do = "pass batch_sampler=, and switch off the framework's own distributed sampler"
            raise PlanMismatch(self._where, found, expected="this PlanBatchSampler", do=do)
        rank, world = (self.rank, self.world) if self._sliced else _process_group()
        yielded, self._yielded = self._yielded, 0
        try:
            for step, rows in zip_longest(self.steps, outer):
                self._check_batch(step, rows, rank, world)
        finally:
            self._yielded = yielded

    def _check_batch(self, step: int | None, rows: list[int] | None, rank: int, world: int) -> None:
        where = f"{self._where}, epoch {self.epoch}"
        do = "let the framework slice rows (split_batches), or hand it no sampler to shard"
        if step is None or rows is None:
            found = "more batches" if step is None else f"no batch {step}"
            raise PlanMismatch(where, found, expected=f"{len(self)} batches", do=do)
        planned = self.plan.rank_rows(step, rank, world).tolist()
        if rows[:] != planned:
            found = f"rank {rank} of {world} would read rows {first_ten(rows[:])} as batch {step}"
            raise PlanMismatch(where, found, expected=first_ten(planned), do=do)


class WholeBatch(list[int]):
    """The rows of a global batch, which may be sliced but not read: several ranks share it."""

    where = ""

    @classmethod
    def among_ranks(cls, rows: list[int], where: str) -> list[int]:
        """The rows as they are in a lone process; guarded where a process group is there."""
        if _process_group()[1] == 1:
            return rows
        whole = cls(rows)
        whole.where = where
        return whole

    def __iter__(self) -> Iterator[int]:
        raise InputError(
            self.where,
            f"one of several processes would read all {len(self)} rows",
            expected="its slice of them",
            do="pass rank and world to PlanBatchSampler, or split_batches=True to accelerate",
        )

    def __reduce__(self) -> tuple[Any, ...]:  # a loader's workers refuse it as well
        return (_whole, (self[:], self.where))


def _whole(rows: list[int], where: str) -> WholeBatch:
    whole = WholeBatch(rows)
    whole.where = where
    return whole


def _leads_to(outer: Any, sampler: PlanBatchSampler) -> bool:
    """Whether wrappers (``.batch_sampler`` of each) end in this sampler."""
    while outer is not None and outer is not sampler:
        outer = getattr(outer, "batch_sampler", None)
    return outer is sampler


def _process_group() -> tuple[int, int]:
    """Rank and world of ``torch.distributed``; of a lone process where there is no group."""
    distributed = sys.modules["torch"].distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()
