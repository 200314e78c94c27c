"""How a plan looks before a GPU hour is spent, beside random batches of the same size.

The absolute cosines of an encoder mean little: each figure stands beside that of a random plan of
the same batch size, epochs and passes over the same pairs, and stands for every phase as well,
because a random third makes the rest look tame.

``quality.json`` is no part of a plan's identity. Its keys; those in brackets need caption vectors:

    version           of these keys, 2
    batches_measured  how many batches similarities are of: all, or evenly spaced ones
    images_measured   the same, for similarities of images
    [suspect_cosine]  the median cosine of two captions of one image; .9 where images have one each
    plan              figures of the whole plan
    phases            figures of each phase, with its ``name``
    random            figures of a random plan; what could not be measured is absent
    [hardest]         ten batches with the highest top-1 of those measured: step, epoch, phase,
    [easiest]         top1, mean, node and groups (the synsets of its groups); ten with the lowest
    warnings          sentences for the user, see ``verdict``

Figures:

    batches, epochs, placed  how many batches and epochs, and pairs in them, repeats counted
    seen_never, seen_once, seen_more  eligible pairs by how often batches hold them
    left_out                 pairs that epochs could not place, by reason
    [top1]                   mean cosine of a caption to the nearest other one of its batch
    [mean]                   mean cosine of two captions of a batch
    [mean_apart]             the same for two that are not of one group
    groups                   how many groups a batch consists of; 0: batches are no set of groups
    [suspects]               share of captions whose nearest is at ``suspect_cosine`` or above: it
                             may be true of both images
    image_top1, image_mean   as for captions, of pooled regions without their common mean
    objects                  mean number of different objects that the pairs of a batch name
    depth                    share of ``batches``, and of ``groups``, by the depth of their object

Objects and depth are there where a builder of the plan needed the ontology.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ....errors import InputError
from ....train.plan_files import REMAINDER_SCHEMA, Batches
from ... import config as configs
from ..curricula import stretches
from ..eligible import Eligible
from ..epochs import build_batches
from .alike import Read
from .counts import reasons
from .measured import Measured, Source
from .verdict import judge

VERSION = 2
_PRODUCTS = 1 << 28  # cosines computed for a plan, at most
_RANDOM_PRODUCTS = 1 << 25
_RANDOM_PAIRS = 1 << 22  # placed by a random plan for comparison, about
_RANDOM_SEED = 7_919  # unlike that of a plan, whose own random batches it is compared with
_EXTREMES = 10


def measure_quality(
    eligible: Eligible,
    batches: Batches,
    vectors: Read | None = None,
    *,
    remainder: pa.Table | None = None,
    random_share: Mapping[str, float] | None = None,
    images: Read | None = None,
    passes: int = 0,
    by_image: Collection[str] = (),
) -> dict[str, Any]:
    """Measure a plan: what ``quality.json`` holds, see above.

    Args:
        vectors: maps (n,) pair numbers to (n, d) caption vectors. images: maps (n,) image numbers,
            increasing, to (n, d) vectors; not asked where ``Eligible`` has them.
        random_share: by the name of each phase, in order: how much of it is random batches.
        passes: as the plan's settings have it, for the random plan.
        by_image: phases that compare images alone, and are not judged by their captions.
    """
    shares = random_share or {f"phase {n}": 0.0 for n in range(int(batches.phase.max()) + 1)}
    source = Source(eligible=eligible, captions=vectors, images=images)
    left = REMAINDER_SCHEMA.empty_table() if remainder is None else remainder
    measured = Measured(source=source, batches=batches, left=left, products=_PRODUCTS)
    plan = measured.figures()
    phases = [{"name": name, **measured.figures(n)} for n, name in enumerate(shares)]
    random = _random_figures(source, batches, passes)
    synsets = eligible.objects.names if eligible.objects else []
    return {
        "version": VERSION,
        "batches_measured": len(measured.steps),
        "images_measured": len(measured.image_steps),
        **({"suspect_cosine": round(source.suspect, 4)} if vectors else {}),
        "plan": plan,
        "phases": phases,
        "random": random,
        **_extremes(measured, shares, synsets),
        "warnings": judge(plan, phases, random, shares, by_image),
    }


def _random_figures(source: Source, batches: Batches, passes: int) -> dict[str, Any]:
    """Figures of a random plan of the same size; of fewer epochs, where those are long.

    How often pairs are seen depends on the epochs, and is told where all were built. Empty where
    the rules leave random batches none.
    """
    epochs = int(batches.epoch.max()) + 1
    built = max(1, min(epochs, _RANDOM_PAIRS // len(source.eligible)))
    plan = configs.Plan(
        batch_size=batches.pairs.shape[1], epochs=built, passes=passes, seed=_RANDOM_SEED
    )
    try:
        found, left = build_batches(source.eligible, plan, stretches("random", plan))
    except InputError:
        return {}
    measured = Measured(source=source, batches=found, left=left, products=_RANDOM_PRODUCTS)
    figures = measured.figures()
    unknown = {"depth"} | (
        {k for k in figures if k.startswith("seen_")} if built < epochs else set()
    )
    return {key: value for key, value in figures.items() if key not in unknown}


def _extremes(
    measured: Measured, shares: Mapping[str, float], names: Sequence[str]
) -> dict[str, Any]:
    """The batches with the most and the least alike captions; of random phases only if all are."""
    if measured.captions is None:
        return {}
    phases = list(shares)
    aimed = np.array([share < 1 for share in shares.values()])
    order = np.argsort(-measured.captions.top1, kind="stable")
    is_aimed = aimed[measured.batches.phase[measured.steps[order]]]
    order = order[is_aimed] if is_aimed.any() else order
    ends = {"hardest": order[:_EXTREMES], "easiest": order[::-1][:_EXTREMES]}
    return {
        key: [_described(measured, i, phases, names) for i in which.tolist()]
        for key, which in ends.items()
    }


def _described(
    measured: Measured, number: int, phases: list[str], names: Sequence[str]
) -> dict[str, Any]:
    """One of the batches that were measured."""
    batches, said, step = measured.batches, measured.captions, int(measured.steps[number])
    assert said is not None, "batches are ranked by their captions"
    groups = batches.groups[step].as_py() if batches.groups is not None else []
    node, *groups = [names[n] if n >= 0 else "" for n in (int(batches.node[step]), *groups)]
    return {
        "step": step,
        "epoch": int(batches.epoch[step]),
        "phase": phases[batches.phase[step]],
        "top1": round(float(said.top1[number]), 4),
        "mean": round(float(said.mean[number]), 4),
        "node": node,
        "groups": groups,
    }


def coverage(eligible: Eligible, batches: Batches, remainder: pa.Table) -> dict[str, Any]:
    """How often pairs are seen in the whole plan, and what each reason kept out of an epoch."""
    times = np.bincount(batches.pairs.reshape(-1), minlength=int(eligible.pair[-1]) + 1)
    values, counts = np.unique(times[eligible.pair], return_counts=True)
    return {
        "pairs_by_times_seen": {str(t): int(c) for t, c in zip(values, counts, strict=True)},
        "placed": int(batches.pairs.size),
        "remainder": reasons(remainder),
    }
