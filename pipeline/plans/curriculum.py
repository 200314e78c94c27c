"""Phases, epochs and passes become all the batches of a plan, and its remainder.

An epoch is a series of passes; a pass offers one caption of every image. What a pass cannot place
is offered again in the next one; what the epoch cannot place is its remainder, with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from ...errors import ConfigError, InputError
from ...train.plan import REMAINDER_SCHEMA, Batches
from ..config import Phase, Plan
from ..config import Section as Params
from . import BUILDERS
from .builder import Batched, Builder, join
from .eligible import Eligible, count_distinct

# Raised when the same settings and builders would give other batches: passes, what fills a batch,
# which pairs are eligible, when two captions count as equal.
ASSEMBLY_VERSION = 1

CURRICULA: dict[str, tuple[Phase, ...]] = {
    "random": (Phase(builder="random"),),
    # From any objects to the same object, level by level; ends in mixed batches, because training
    # that ends in same-object batches forgets how to tell objects apart.
    "tonics": (
        Phase(builder="random", share=0.3),
        Phase(builder="ontology", share=0.2, params={"depth": 3}),
        Phase(builder="ontology", share=0.3, params={"depth": "leaves"}),
        Phase(builder="random", share=0.2),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """One phase as it will be built: which epochs, with which builder and checked settings.

    Attributes:
        name: unlike that of any other phase of the plan.
    """

    name: str
    builder: Builder
    params: Params
    epochs: range


def stretches(where: str, plan: Plan) -> list[Stretch]:
    """Turn a plan's section into phases with whole epochs.

    Raises:
        ConfigError: an unknown builder, curriculum or setting; shares that do not add up to 1; more
            phases than epochs.
    """
    phases = _phases(where, plan)
    total = sum(phase.share for phase in phases)
    if abs(total - 1) > 1e-6:
        shares = [phase.share for phase in phases]
        raise ConfigError(f"{where}.phases", f"shares {shares} add up to {total:g}", expected="1")
    counts = apportion([phase.share for phase in phases], plan.epochs)
    if 0 in counts:
        raise ConfigError(
            f"{where}.epochs",
            f"{plan.epochs} epochs for {len(phases)} phases",
            expected="at least one epoch a phase",
            do="raise epochs, or give the phases more even shares",
        )
    starts = np.cumsum([0, *counts])
    params = [_params(f"{where}.phases[{i}].params", phase) for i, phase in enumerate(phases)]
    names = _names([phase.builder for phase in phases], params)
    return [
        Stretch(
            name=names[i],
            builder=BUILDERS[phase.builder],
            params=params[i],
            epochs=range(int(starts[i]), int(starts[i + 1])),
        )
        for i, phase in enumerate(phases)
    ]


def _names(builders: Sequence[str], params: Sequence[Params]) -> list[str]:
    """Name phases by builder and settings; the second of a kind gets a 2.

    >>> _names(["random", "random"], [Params(), Params()])
    ['random', 'random 2']
    """
    names: list[str] = []
    seen: Counter[str] = Counter()
    for builder, settings in zip(builders, params, strict=True):
        values = settings.model_dump(mode="json").items()
        words = [str(v) if isinstance(v, str) else f"{key} {v}" for key, v in values]
        name = " ".join([builder, *words])
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return names


def _phases(where: str, plan: Plan) -> Sequence[Phase]:
    if plan.phases and plan.curriculum:
        do = "keep one of the two"
        raise ConfigError(where, "both curriculum and phases", expected="one of them", do=do)
    if plan.phases:
        return plan.phases
    name = plan.curriculum or "random"
    if name not in CURRICULA:
        known = ", ".join(CURRICULA)
        raise ConfigError(f"{where}.curriculum", f"value {name!r}", expected=f"one of {known}")
    return CURRICULA[name]


def _builder(where: str, name: str) -> Builder:
    if name not in BUILDERS:
        known = ", ".join(BUILDERS)
        raise ConfigError(f"{where}.builder", f"value {name!r}", expected=f"one of {known}")
    return BUILDERS[name]


def _params(where: str, phase: Phase) -> Params:
    model = _builder(where.removesuffix(".params"), phase.builder).params
    try:
        return model.model_validate(phase.params)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else "?"
        allowed = ", ".join(model.model_fields) or "none"
        raise ConfigError(
            f"{where}.{key}",
            f"{first['input']!r} ({first['msg']})",
            expected=f"settings of builder {phase.builder!r}: {allowed}",
        ) from error


def apportion(shares: Sequence[float], total: int) -> list[int]:
    """Divide whole epochs by shares, the largest remainders first; every phase gets one if it can.

    >>> apportion([0.34, 0.66], 10), apportion([0.05, 0.95], 10)
    ([3, 7], [1, 9])
    """
    exact = np.array(shares) * total
    counts = np.floor(exact + 1e-9).astype(int)
    for i in np.argsort(-(exact - counts), kind="stable")[: total - counts.sum()]:
        counts[i] += 1
    for i in np.flatnonzero(counts == 0):
        richest = int(np.argmax(counts))
        if counts[richest] > 1:
            counts[i], counts[richest] = 1, counts[richest] - 1
    return counts.tolist()


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
    built, remainder = [], []
    for number, phase in enumerate(phases):
        for epoch in phase.epochs:
            batched = build_epoch(eligible, plan, phase, epoch)
            built.append((epoch, number, batched))
            remainder.append(_remainder(eligible, epoch, number, batched.left))
    rows = np.concatenate([b.rows for _, _, b in built])
    if not len(rows):
        raise InputError(
            "plan",
            f"the rules leave no batch of {plan.batch_size} among {len(eligible):,} pairs of "
            f"{eligible.num_images:,} images with {count_distinct(eligible.caption):,} captions",
            expected="batches without equal images or captions",
            do="choose a smaller batch_size in tonics.toml",
        )
    sizes = [len(b.rows) for _, _, b in built]
    batches = Batches(
        epoch=np.repeat([e for e, _, _ in built], sizes).astype(np.int32),
        phase=np.repeat([p for _, p, _ in built], sizes).astype(np.int16),
        node=np.concatenate([b.node for _, _, b in built]).astype(np.int32),
        pairs=eligible.pair[rows],
    )
    return batches, pa.concat_tables(remainder)


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


def build_epoch(eligible: Eligible, plan: Plan, phase: Stretch, epoch: int) -> Batched:
    """Build one epoch: its passes, one after the other; what one leaves, the next one offers."""
    rng = np.random.default_rng([plan.seed, epoch])
    pass_of = assign_passes(eligible.image, rng)
    wanted = plan.passes or int(pass_of.max()) + 1
    parts: list[Batched] = []
    left = np.empty(0, np.int64)
    for number in range(wanted):
        rows = np.concatenate([left, np.flatnonzero(pass_of == number)])
        if count_distinct(eligible.image[rows]) < plan.batch_size:
            # Later passes hold no image that this one lacks: no batch can come of them any more.
            later = (pass_of > number) & (pass_of < wanted)
            left = np.concatenate([rows, np.flatnonzero(later)])
            break
        part = phase.builder.build(eligible, rows, plan.batch_size, phase.params, rng)
        parts.append(part)
        left = part.left
    joined = join(parts, plan.batch_size)
    return Batched(rows=joined.rows, node=joined.node, left=left)


def assign_passes(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Deal each image's captions over the passes in random order: (n,) int64 pass of each row."""
    order = np.lexsort((rng.random(len(image)), image))
    grouped = image[order]
    first = np.r_[True, grouped[1:] != grouped[:-1]]
    start = np.maximum.accumulate(np.where(first, np.arange(len(image)), 0))
    passes = np.empty(len(image), np.int64)
    passes[order] = np.arange(len(image)) - start
    return passes


def _remainder(eligible: Eligible, epoch: int, phase: int, left: np.ndarray) -> pa.Table:
    left = np.sort(left)
    columns = {
        "epoch": np.full(len(left), epoch, np.int32),
        "phase": np.full(len(left), phase, np.int16),
        "pair": eligible.pair[left],
        "reason": _reasons(eligible, left),
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
