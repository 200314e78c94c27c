"""Which batches a run trains on, in which order: the plan's own, or decided as the model learns.

course = course_of(plan, total, seed=0, ranks=ranks)
for position, batch in enumerate(stream(..., steps=course.steps(start)), start):
    ...
    course.saw(position, accuracy)                   # stays on the device
"""

from __future__ import annotations

import queue
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from .adaptive import Adaptive, require_replay, write_replay
from .plan import Plan
from .ranks import Ranks


class Course:
    """The batches of a plan as they stand."""

    def __init__(self, plan: Plan, total: int) -> None:
        self.plan, self.total = plan, total

    def steps(self, start: int) -> Iterator[int]:
        """Numbers of the plan's batches, from position ``start`` of the run on."""
        return iter(range(start, self.total))

    def batch_at(self, position: int) -> int:
        """Which of the plan's batches was trained on at a position."""
        return position

    def saw(self, position: int, accuracy: torch.Tensor) -> None:
        """Take in the accuracies (2,) of this rank's rows of the batch at a position."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to hold, as JSON; asked for on all ranks at once."""
        return {}

    def resume(self, state: Mapping[str, Any], position: int) -> None:
        """Go on from a state that was saved before the batch at ``position``."""

    def facts(self) -> dict[str, Any]:
        """What the metrics should say of it."""
        return {}

    def prepare(self, run: Path) -> None:
        """Refuse, before anything is trained, a run's folder that ``finish`` could not write to."""

    def finish(self, run: Path) -> None:
        """Write what is to be kept of it into the run's folder."""

    def close(self) -> None:
        """Let go of whoever waits for further steps."""


class AdaptiveCourse(Course):
    """Batches drawn from pools, block by block.

    The draws of a block are known one block ahead. Accuracies stay on the device until a block ends
    (or a checkpoint is written), are added up over all ranks as whole numbers, and so are the same
    everywhere. However far a reader is allowed to work ahead, it waits for what is not decided yet.
    """

    def __init__(self, plan: Plan, total: int, seed: int, ranks: Ranks) -> None:
        super().__init__(plan, total)
        self.adaptive, self.ranks = Adaptive(plan, seed), ranks
        self.rows = plan.rows_per_rank(ranks.world)
        self._waiting: list[torch.Tensor] = []
        self._reported = 0
        self._decided: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def steps(self, start: int) -> Iterator[int]:
        """Numbers of the plan's batches; blocks where the next one is not decided yet."""
        block, place = divmod(start, self.adaptive.block)
        ahead = range(block, min(block + 2, self.adaptive.blocks))
        drawn = [step for number in ahead for step in self.adaptive.draw(number)]
        self._offer(drawn[place:])
        return self._take(self.total - start)

    def _offer(self, steps: list[int]) -> None:
        for step in steps:
            self._decided.put(step)

    def _take(self, count: int) -> Iterator[int]:
        for _ in range(count):
            step = self._decided.get()
            if step is None:
                return
            yield step

    def batch_at(self, position: int) -> int:
        block, place = divmod(position, self.adaptive.block)
        return self.adaptive.drawn[block][place]

    def saw(self, position: int, accuracy: torch.Tensor) -> None:
        """Take in a batch's accuracies; at the end of a block decide the one after the next."""
        self._waiting.append(accuracy.detach())
        block, rest = divmod(position + 1, self.adaptive.block)
        if not rest:
            self._report()
            if block + 1 < self.adaptive.blocks:
                self._offer(self.adaptive.draw(block + 1))

    def _report(self) -> None:
        """Read what waits on the device, once for all of it, and tell the curriculum."""
        if not self._waiting:
            return
        hits = (torch.stack(self._waiting).double().sum(1) * self.rows).round()
        asked = 2 * self.rows * self.ranks.world
        for hit in self.ranks.reduce(hits).tolist():
            block, place = divmod(self._reported, self.adaptive.block)
            self.adaptive.saw(block, place, hit / asked)
            self._reported += 1
        self._waiting.clear()

    def state(self) -> dict[str, Any]:
        self._report()
        return self.adaptive.state()

    def resume(self, state: Mapping[str, Any], position: int) -> None:
        self.adaptive = Adaptive.resume(self.plan, state, position)
        self._reported = position

    def facts(self) -> dict[str, Any]:
        return {"opened": len(self.adaptive.opened)}

    def prepare(self, run: Path) -> None:
        require_replay(run / "replay", self.plan)

    def finish(self, run: Path) -> None:
        """Write the batches trained on as a static plan, ``replay``."""
        drawn = [step for block in self.adaptive.drawn for step in block]
        write_replay(self.plan, drawn[: self.total], run / "replay")

    def close(self) -> None:
        self._decided.put(None)


def course_of(plan: Plan, total: int, seed: int, ranks: Ranks) -> Course:
    """The course of a run over a plan: its own order, or one drawn from its pools."""
    if plan.schedule is None:
        return Course(plan, total)
    return AdaptiveCourse(plan, total, seed, ranks)
