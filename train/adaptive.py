"""The adaptive curriculum: objects open as the model learns to tell their pairs apart.

A plan of curriculum ``adaptive`` holds a pool of batches for every object, and the rule in its
header. A run starts at the root, with batches of any objects. Once the mean accuracy within the
batches of an open object reaches the threshold, the objects right below it open; from then on
batches come from the open objects that nothing below has replaced, by the size of their pools,
beside a fixed share of any objects. (The idea is that of arXiv 2207.14525, whose own rule is not
known to us.)

It decides once per block of steps, from what was seen up to the end of the block before last, so
that the batches of the coming block are known while the current one is trained, and reading ahead
is safe. The state is a few numbers and the log of what was drawn, which replays as a static plan.

    adaptive = Adaptive(plan)
    for block in range(adaptive.blocks):
        for place, batch in enumerate(adaptive.draw(block)):
            ...                                      # train on plan.batch(batch)
            adaptive.saw(block, place, accuracy)     # the same on all ranks: all-reduced
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..artifact import atomic_folder
from ..errors import InputError, PlanMismatch, TonicsError
from .plan import Plan
from .plan_files import REMAINDER_SCHEMA, write_plan


class Adaptive:
    """Which batches of a plan's pools to train on, decided block by block.

    Args:
        plan: of curriculum ``adaptive``. seed: of the draws.

    Raises:
        InputError: the plan has no pools.
    """

    def __init__(self, plan: Plan, seed: int = 0) -> None:
        rule = plan.schedule
        if rule is None:
            do = "build one with curriculum = 'adaptive'"
            raise InputError(plan.path, "a plan without pools", expected="an adaptive plan", do=do)
        self.plan, self.seed = plan, seed
        self.steps, self.block = int(rule["steps"]), int(rule["block"])
        self.threshold, self.root_share = float(rule["threshold"]), float(rule["root_share"])
        self.above: dict[int, int] = dict(zip(rule["pools"], rule["parents"], strict=True))
        nodes = plan.batches.node
        self.pools = {node: np.flatnonzero(nodes == node) for node in self.above}
        self.root = next(node for node, parent in self.above.items() if parent < 0)
        self.opened = {self.root}
        self.drawn: list[list[int]] = []
        self.cursors = dict.fromkeys(self.above, 0)
        self._orders: dict[int, tuple[int, np.ndarray]] = {}
        self.seen: dict[int, dict[int, list[float]]] = {}
        self.decided = 0

    @property
    def blocks(self) -> int:
        """How many blocks a run has; the last one may be shorter."""
        return -(-self.steps // self.block)

    def draw(self, block: int) -> list[int]:
        """Decide the batches of a block: numbers of ``plan``'s batches, in training order.

        Blocks are drawn in order; one that was drawn already is returned again.

        Raises:
            InputError: a block before it was not drawn, or not yet reported by ``saw`` as far as
                the decision needs.
        """
        if 0 <= block < len(self.drawn):
            return self.drawn[block]
        if block != len(self.drawn) or block >= self.blocks:
            expected = f"the next one, {len(self.drawn)} of {self.blocks}"
            raise InputError("adaptive", f"block {block}", expected=expected)
        self._decide(block - 2)
        rng = np.random.default_rng([self.seed, 0, block])
        length = min(self.block, self.steps - block * self.block)
        chosen = self._choose(length, rng)
        self.drawn.append([self._next(node) for node in chosen])
        return self.drawn[block]

    def saw(self, block: int, place: int, accuracy: float) -> None:
        """Report a step of training: the batch at a place of a block that was drawn.

        Args:
            accuracy: share of pairs of the whole batch whose own partner scored highest, both
                directions averaged; the same on all ranks.

        Raises:
            InputError: nothing was drawn there, or the accuracy is no share.
        """
        if not (0 <= block < len(self.drawn) and 0 <= place < len(self.drawn[block])):
            raise InputError("adaptive", f"step {place} of block {block}", expected="a drawn one")
        if not 0 <= accuracy <= 1:
            where = f"adaptive, step {place} of block {block}"
            raise InputError(where, f"accuracy {accuracy}", expected="a share, 0 to 1")
        node = int(self.plan.batches.node[self.drawn[block][place]])
        self.seen.setdefault(block, {}).setdefault(node, []).append(float(accuracy))

    @property
    def frontier(self) -> list[int]:
        """Open objects with a pool that have no open object right below them."""
        replaced = {self.above[node] for node in self.opened}
        return sorted(self.opened - replaced) or [self.root]

    def _decide(self, until: int) -> None:
        """Open what the accuracies up to the end of a block ask for."""
        while self.decided <= until:
            said = self.seen.pop(self.decided, {})
            count = sum(map(len, said.values()))
            if count != len(self.drawn[self.decided]):
                found = f"{count} of {len(self.drawn[self.decided])} steps reported"
                where, do = f"adaptive, block {self.decided}", "call saw() after every step"
                raise InputError(where, found, do=do)
            for node, accuracies in said.items():
                if np.mean(accuracies) >= self.threshold:
                    self.opened |= {n for n, parent in self.above.items() if parent == node}
            self.decided += 1

    def _choose(self, length: int, rng: np.random.Generator) -> list[int]:
        frontier = self.frontier
        sizes = np.array([len(self.pools[node]) for node in frontier], float)
        chosen = rng.choice(frontier, length, p=sizes / sizes.sum())
        return np.where(rng.random(length) < self.root_share, self.root, chosen).tolist()

    def _next(self, node: int) -> int:
        """The next batch of a pool; an exhausted one starts again in another order."""
        cursor = self.cursors[node]
        self.cursors[node] += 1
        around, place = divmod(cursor, len(self.pools[node]))
        if self._orders.get(node, (-1,))[0] != around:
            rng = np.random.default_rng([self.seed, 1, node, around])
            self._orders[node] = (around, rng.permutation(self.pools[node]))
        return int(self._orders[node][1][place])

    # -- saved with a checkpoint, and afterwards -------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything a checkpoint has to hold, as JSON."""
        return {
            "plan_id": self.plan.plan_id,
            "seed": self.seed,
            "opened": sorted(self.opened),
            "drawn": self.drawn,
            "cursors": {str(node): cursor for node, cursor in self.cursors.items()},
            "seen": {str(b): {str(n): a for n, a in s.items()} for b, s in self.seen.items()},
            "decided": self.decided,
        }

    @classmethod
    def resume(cls, plan: Plan, state: Mapping[str, Any], step: int) -> Adaptive:
        """Go on from a state that was saved after ``step`` steps.

        Raises:
            PlanMismatch: the state is of another plan, or of another step.
        """
        if state.get("plan_id") != plan.plan_id:
            raise PlanMismatch(plan.path, "the saved state is of another plan")
        found = cls(plan, state["seed"])
        found.opened, found.drawn = set(state["opened"]), [list(d) for d in state["drawn"]]
        found.cursors = {int(node): cursor for node, cursor in state["cursors"].items()}
        found.seen = {
            int(b): {int(n): list(a) for n, a in s.items()} for b, s in state["seen"].items()
        }
        found.decided = int(state["decided"])
        reported = sum(len(a) for s in found.seen.values() for a in s.values())
        if found.decided * found.block + reported != step:
            told = f"the saved state is of step {found.decided * found.block + reported}"
            raise PlanMismatch(plan.path, told, expected=f"step {step}")
        return found

    def replay(self, folder: str | Path) -> Plan:
        """Write what was drawn as a static plan, which trains the same batches in the same order.

        Args:
            folder: where there is nothing yet, or an earlier replay of this plan.

        Raises:
            InputError: nothing was drawn yet, or the folder holds something else.
        """
        if not self.drawn:
            raise InputError("adaptive", "nothing was drawn", expected="a run to replay")
        steps = np.array([step for block in self.drawn for step in block])
        return write_replay(self.plan, steps, Path(folder))


def write_replay(plan: Plan, steps: Sequence[int] | np.ndarray, folder: Path) -> Plan:
    """Write some batches of a plan, in a given order, as a plan of one epoch and phase.

    The remainder is empty: what a decision did not draw was not left over by a rule.
    """
    require_replay(folder, plan)
    steps = np.asarray(steps)
    zeros = np.zeros(len(steps), np.int32)
    batches = replace(plan.batches.take(steps), epoch=zeros, phase=zeros.astype(np.int16))
    phase = {"name": "replay", "builder": "replay", "params": {"of": plan.plan_id}}
    counts = {**plan.header["counts"], "batches": len(steps), "epochs": 1, "remainder": 0}
    outside = ("plan_id", "schedule", "batches_hash", "groups_hash", "remainder_hash", "coverage")
    header = {k: v for k, v in plan.header.items() if k not in outside}
    header |= {
        "counts": counts,
        "phases": [{**phase, "first_epoch": 0, "epochs": 1}],
        "coverage": {"placed": int(batches.pairs.size)},
    }
    remainder = pa.table({name: [] for name in REMAINDER_SCHEMA.names}, schema=REMAINDER_SCHEMA)
    with atomic_folder(folder) as tmp:
        write_plan(tmp, header, batches, plan.pairs, remainder, {})
    return Plan(folder)


def require_replay(folder: Path, plan: Plan) -> None:
    """Refuse a folder that holds anything but a replay of a plan.

    Raises:
        InputError: it does.
    """
    if folder.exists() and not _replays(folder, plan):
        found, do = "holds something else already", "name another folder, or delete this one"
        raise InputError(folder, found, expected="an earlier replay, or nothing", do=do)


def _replays(folder: Path, plan: Plan) -> bool:
    try:
        return Plan(folder).header["phases"][0]["params"] == {"of": plan.plan_id}
    except TonicsError:
        return False
