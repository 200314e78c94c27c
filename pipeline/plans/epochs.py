"""Phases become all the batches of a plan, and its remainder: epochs, passes, groups, batches.

An epoch is a series of passes; a pass offers one caption of every image. Builders put the rows of a
pass into groups; what a pass cannot group is offered again in the next one. Groups are dealt into
batches anew in every epoch, so that epochs of a phase in rotation cost a shuffle. What the epoch
cannot place is its remainder, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ...errors import InputError
from ...train.plan_files import REMAINDER_SCHEMA, Batches
from ..config import Plan
from .builder import NO_ROWS, Groups, Offered, join_groups
from .curricula import Part, Stretch
from .deal import Dealt, deal
from .eligible import Eligible, count_before, count_distinct

# Raised when the same settings and builders would give other batches: passes, dealing, what fills
# a batch, which pairs are eligible, when two captions count as equal.
ASSEMBLY_VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """The batches of an epoch, and the rows it does not use.

    Attributes:
        passes: for every pass what each builder of the phase dealt. orders: for every pass of a mix
            the order its batches come in; None: as they were dealt. left: rows.
    """

    passes: list[list[Dealt]]
    orders: list[np.ndarray] | None
    left: np.ndarray

    def __len__(self) -> int:
        return sum(len(dealt.rows) for dealt in self.dealt)

    @property
    def dealt(self) -> list[Dealt]:
        """All that was dealt, pass by pass."""
        return [dealt for parts in self.passes for dealt in parts]

    def batches(self, eligible: Eligible, epoch: int, phase: int) -> list[Batches]:
        """The batches of each pass, in training order."""
        if self.orders is None:
            return [_batches(eligible, dealt, epoch, phase) for dealt in self.dealt]
        return [
            Batches.join([_batches(eligible, dealt, epoch, phase) for dealt in parts]).take(order)
            for parts, order in zip(self.passes, self.orders, strict=True)
        ]


def build_batches(
    eligible: Eligible, plan: Plan, phases: Sequence[Stretch]
) -> tuple[Batches, pa.Table]:
    """Build every batch of a plan.

    Returns:
        The batches, in training order, and the remainder (epoch, phase, pair, reason).

    Raises:
        InputError: there are fewer images than one batch holds.
    """
    require_images(eligible.num_images, len(eligible), plan.batch_size)
    batches, remainder = [], []
    for number, phase in enumerate(phases):
        repeats = any(part.builder.repeats for part in phase.parts)
        for epoch, built in zip(phase.epochs, build_phase(eligible, plan, phase), strict=True):
            batches += built.batches(eligible, epoch, number)
            remainder.append(_remainder(eligible, epoch, number, built.left, repeats))
    if not sum(len(b.pairs) for b in batches):
        raise InputError(
            "plan",
            f"the rules leave no batch of {plan.batch_size} among {len(eligible):,} pairs of "
            f"{eligible.num_images:,} images with {count_distinct(eligible.caption):,} captions",
            expected="batches without equal images or captions",
            do="choose a smaller batch_size in tonics.toml",
        )
    return Batches.join(batches), pa.concat_tables(remainder)


def build_phase(eligible: Eligible, plan: Plan, phase: Stretch) -> Iterator[Epoch]:
    """Build the epochs of a phase; the groups of builders in rotation are built once."""
    cycle = max(part.rotation for part in phase.parts)
    kept: dict[tuple[int, int], Grouped] = {}
    for number, epoch in enumerate(phase.epochs):
        drawn = phase.epochs[number % cycle] if cycle else epoch
        pass_of, part_of = divide(eligible, plan, phase, drawn)
        grouped = []
        for i, part in enumerate(phase.parts):
            key = (i, drawn if part.rotation else epoch)
            own = kept.get(key)
            if own is None:
                rng = np.random.default_rng([plan.seed, *key])
                own = group_part(eligible, plan, part, np.where(part_of == i, pass_of, -1), rng)
            if part.rotation:
                kept[key] = own
            grouped.append(own)
        yield deal_epoch(eligible, plan, grouped, epoch)


def require_images(images: int, pairs: int, batch_size: int) -> None:
    """Refuse a plan of fewer different images than one batch holds.

    Raises:
        InputError: always says how many there are.
    """
    if images < batch_size:
        raise InputError(
            "plan",
            f"{images:,} images ({pairs:,} pairs) are eligible",
            expected=f"at least batch_size = {batch_size}",
            do="choose a smaller batch_size in tonics.toml, or add images",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouped:
    """The groups of a builder's share of an epoch, by pass; ``left``: rows in no group."""

    passes: list[Groups]
    left: np.ndarray


def divide(
    eligible: Eligible, plan: Plan, phase: Stretch, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Deal rows over the passes of an epoch and the builders of its phase.

    Returns:
        (n,) int64 pass of each row, -1: none; (n,) int64 its builder.
    """
    rng = np.random.default_rng([plan.seed, len(phase.parts), epoch, 0])
    pass_of = assign_passes(eligible.image, rng)
    if plan.passes:
        pass_of[pass_of >= plan.passes] = -1
    return pass_of, _assign_parts([part.share for part in phase.parts], len(eligible), rng)


def group_part(
    eligible: Eligible, plan: Plan, part: Part, pass_of: np.ndarray, rng: np.random.Generator
) -> Grouped:
    """Let a builder group the rows of each pass; what one pass leaves, the next one offers.

    Args:
        pass_of: (n,) int64 pass of each of the builder's rows, -1 for others; changed.
    """
    offered_at_all = pass_of >= 0
    left, passes = NO_ROWS, list[Groups]()
    for number in range(int(pass_of.max(initial=-1)) + 1):
        rows = np.concatenate([left, np.flatnonzero(pass_of == number)])
        after = np.flatnonzero(pass_of > number)
        if _too_few(eligible, plan, rows):
            if _too_few(eligible, plan, np.concatenate([rows, after])):  # all to come together
                left = np.concatenate([rows, after])
                break
            left = rows
            continue
        groups = _group_pass(eligible, plan, part, rows, after, rng)
        passes.append(groups)
        left = groups.left
        if part.builder.swaps:
            left = _swap(eligible.image, pass_of, rows, groups.rows, after)
    if part.builder.repeats:
        left = _never_used(offered_at_all, passes)
    return Grouped(passes=passes, left=left)


def _group_pass(
    eligible: Eligible,
    plan: Plan,
    part: Part,
    rows: np.ndarray,
    later: np.ndarray,
    rng: np.random.Generator,
) -> Groups:
    swaps = part.builder.swaps
    offered = Offered(
        rows=rows,
        batch_size=plan.batch_size,
        later=later[np.isin(eligible.image[later], eligible.image[rows])] if swaps else NO_ROWS,
    )
    return part.builder.build(eligible, offered, part.params, rng)


def _swap(
    image: np.ndarray, pass_of: np.ndarray, rows: np.ndarray, used: np.ndarray, after: np.ndarray
) -> np.ndarray:
    """Give rows whose image was used through a row of a later pass the turn of that row.

    Returns:
        The offered rows that were neither used nor swapped.
    """
    offered = np.setdiff1d(rows, used)
    early = np.intersect1d(used, after)
    if not len(early):
        return offered
    offered = offered[np.argsort(image[offered], kind="stable")]
    place = np.searchsorted(image[offered], image[early])
    mine = offered[place]
    assert np.array_equal(image[mine], image[early]), "a caption was used for an image not offered"
    pass_of[mine] = pass_of[early]
    pass_of[early] = -1
    return np.delete(offered, place)


def _too_few(eligible: Eligible, plan: Plan, rows: np.ndarray) -> bool:
    return count_distinct(eligible.image[rows]) < plan.batch_size


def _never_used(offered: np.ndarray, passes: list[Groups]) -> np.ndarray:
    """The rows of an epoch that no group has, for builders that repeat some."""
    used = np.zeros(len(offered), bool)
    for groups in passes:
        used[groups.rows] = True
    return np.flatnonzero(offered & ~used)


def deal_epoch(eligible: Eligible, plan: Plan, grouped: Sequence[Grouped], epoch: int) -> Epoch:
    """Put the groups of an epoch into batches; groups without a batch wait for the next pass."""
    rng = np.random.default_rng([plan.seed, len(grouped), epoch, 1])
    passes: list[list[Dealt]] = []
    waiting: dict[int, Groups] = {}
    for number in range(max(len(part.passes) for part in grouped)):
        passes.append([])
        for i, part in enumerate(grouped):
            if number >= len(part.passes):
                continue
            groups = part.passes[number]
            offered = [waiting[i], groups] if i in waiting else [groups]
            together = join_groups(offered, groups.rows.shape[1], NO_ROWS)
            dealt = deal(eligible, together, plan.batch_size, rng)
            passes[-1].append(dealt)
            waiting[i] = dealt.undealt
    counts = [sum(len(dealt.rows) for dealt in parts) for parts in passes]
    orders = [rng.permutation(n) for n in counts] if len(grouped) > 1 else None
    unused = [part.left for part in grouped]
    unused += [groups.rows.reshape(-1) for groups in waiting.values()]
    return Epoch(passes=passes, orders=orders, left=np.concatenate(unused))


def assign_passes(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Deal each image's captions over the passes in random order: (n,) int64 pass of each row."""
    mixed, passes = rng.permutation(len(image)), np.empty(len(image), np.int64)
    passes[mixed] = count_before(image[mixed])
    return passes


def _assign_parts(shares: Sequence[float], rows: int, rng: np.random.Generator) -> np.ndarray:
    """Divide rows at random among the builders of a phase: (n,) int64."""
    if len(shares) == 1:
        return np.zeros(rows, np.int64)
    return np.searchsorted(np.cumsum(shares)[:-1], rng.random(rows), side="right")


def _batches(eligible: Eligible, dealt: Dealt, epoch: int, phase: int) -> Batches:
    count = len(dealt.rows)
    return Batches(
        epoch=np.full(count, epoch, np.int32),
        phase=np.full(count, phase, np.int16),
        node=dealt.node.astype(np.int32),
        pairs=eligible.pair[dealt.rows],
        groups=_lists(dealt.groups),
    )


def _lists(groups: np.ndarray) -> pa.ListArray:
    """(k, g) numbers as k lists."""
    starts = np.arange(len(groups) + 1, dtype=np.int32) * groups.shape[1]
    return pa.ListArray.from_arrays(starts, groups.reshape(-1).astype(np.int32))


def _remainder(
    eligible: Eligible, epoch: int, phase: int, left: np.ndarray, repeats: bool
) -> pa.Table:
    left = np.sort(left)
    columns = {
        "epoch": np.full(len(left), epoch, np.int32),
        "phase": np.full(len(left), phase, np.int16),
        "pair": eligible.pair[left],
        "reason": ["not drawn"] * len(left) if repeats else _reasons(eligible, left),
    }
    return pa.table(columns, schema=REMAINDER_SCHEMA)


def _reasons(eligible: Eligible, left: np.ndarray) -> list[str]:
    """Why each row found no place: its caption, its image, or just the end of the epoch."""
    repeated = [
        counts[inverse] > 1
        for groups in (eligible.caption, eligible.image)
        for _, inverse, counts in [np.unique(groups[left], return_inverse=True, return_counts=True)]
    ]
    return [
        "caption repeated" if caption else "image repeated" if image else "less than a batch left"
        for caption, image in zip(*repeated, strict=True)
    ]
