"""Every builder keeps the rules: exact size, no equal images or captions, nothing lost or twice."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tonics.errors import InputError
from tonics.pipeline.config import Phase
from tonics.pipeline.plans import BUILDERS
from tonics.pipeline.plans.eligible import Eligible
from tonics.train.plan import Plan
from tonics.train.plan_files import Batches, write_plan

from . import made_up
from .made_up import PHASES, build_phase, make_eligible, name_of, rows_of, say

shapes = st.lists(st.integers(1, 4), min_size=8, max_size=60)
every_builder = pytest.mark.parametrize("phase", PHASES, ids=name_of)


def repeats(phase: Phase) -> bool:
    """Whether pairs may come several times in an epoch."""
    return any(BUILDERS[name].repeats for name in (phase.builder, *phase.mix) if name)


def check(eligible: Eligible, batches: Batches, left: np.ndarray, phase: Phase, size: int) -> None:
    """The rules of a plan, for one epoch."""
    row = rows_of(eligible, batches)
    assert np.array_equal(eligible.pair[row], batches.pairs)
    assert row.shape[1] == size
    for groups in (eligible.image, eligible.caption):
        ordered = np.sort(groups[row], axis=1)
        assert np.all(ordered[:, 1:] != ordered[:, :-1])
    placed = batches.pairs.ravel().tolist()
    if repeats(phase):
        placed = sorted(set(placed))
    # Each pair once: placed, or left with a reason.
    assert sorted([*placed, *left.tolist()]) == eligible.pair.tolist()


@every_builder
@settings(max_examples=40, deadline=None)
@given(shape=shapes, kinds=st.integers(8, 400), size=st.integers(2, 8), seed=st.integers(0, 99))
def test_rules(phase: Phase, shape: list[int], kinds: int, size: int, seed: int) -> None:
    assume(size in (4, 6, 8) or "communities" not in (phase.builder, *phase.mix))
    eligible = make_eligible(shape, kinds, seed)
    try:
        batches, remainder = build_phase(eligible, phase, size, seed=seed)
    except InputError:
        # Only then may nothing fit.
        few = min(len(shape), len(np.unique(eligible.caption)))
        assert few < (4 if phase.mix else 2) * size
        return
    check(eligible, batches, remainder.column("pair").to_numpy(), phase, size)


@pytest.mark.parametrize(
    "phase", [p for p in PHASES if not p.mix and not BUILDERS[p.builder].repeats], ids=name_of
)
def test_an_epoch_wastes_less_than_a_batch_when_nothing_conflicts(phase: Phase) -> None:
    batches, remainder = build_phase(make_eligible([5] * 50, 10**9), phase, 16)
    assert remainder.num_rows == 250 - batches.pairs.size < 16
    reasons = {"less than a batch left", "image repeated"}
    assert set(remainder.column("reason").to_pylist()) <= reasons


@every_builder
def test_same_seed_same_batches_another_seed_others(phase: Phase) -> None:
    eligible = make_eligible([3] * 40, 10**9)
    one, two, other = (
        build_phase(eligible, phase, 8, epochs=2, seed=seed)[0] for seed in (0, 0, 1)
    )
    assert one.content_hash() == two.content_hash() != other.content_hash()
    assert one.groups_hash() == two.groups_hash()
    assert not np.array_equal(one.pairs[one.epoch == 0], one.pairs[one.epoch == 1])


def test_neither_threads_nor_the_processor_change_a_byte() -> None:
    """The second run has more threads and, where it can be asked for, the kernels of an old CPU.

    Those add in another order: products of vectors that are no whole numbers differ.
    """
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    old = {"OPENBLAS_CORETYPE": "Prescott"} if platform.machine() == "x86_64" else {}
    here, there = (
        json.loads(_run_program(**dict.fromkeys(threads, count), **more))
        for count, more in (("1", {}), ("4", old))
    )
    assert here.keys() == {name_of(phase) for phase in PHASES}
    assert here == there


def _run_program(**env: str) -> str:
    command = [sys.executable, made_up.__file__]
    done = subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, check=True
    )
    return done.stdout


@every_builder
def test_ranks_together_have_the_batch(phase: Phase, tmp_path: Path) -> None:
    eligible = make_eligible([3] * 40, 10**9)
    batches, remainder = build_phase(eligible, phase, 16)
    header = {"batch_size": 16, "sub_block": 1, "inputs": {}, "nodes": eligible.objects.names}
    write_plan(tmp_path, header, batches, eligible.table, remainder, {})
    plan = Plan(tmp_path)
    assert plan.verify() == []
    assert len(plan) == len(batches.pairs) > 0
    for world in (1, 2, 4):
        ranks = [list(plan.iterate(rank=rank, world=world)) for rank in range(world)]
        for step, parts in enumerate(zip(*ranks, strict=True)):
            assert np.array_equal(np.concatenate(parts), batches.pairs[step])


# -- what must cost no more than remainder, and what cannot be built -------------------------------


@every_builder
def test_a_caption_said_thousands_of_times_costs_remainder_only(phase: Phase) -> None:
    others = [f"caption {i}" for i in range(2500)]
    eligible = say(make_eligible([1] * 5000, 10**9), ["the same caption"] * 2500 + others)
    batches, remainder = build_phase(eligible, phase, 32)
    same = np.count_nonzero(rows_of(eligible, batches) < 2500, axis=1)
    assert same.max() == 1
    assert len(batches.pairs) >= 2500 // 32 - (phase.mix != {})
    check(eligible, batches, remainder.column("pair").to_numpy(), phase, 32)
    if not repeats(phase):
        reasons = remainder.column("reason").to_pylist()
        assert reasons.count("caption repeated") >= 2500 - len(batches.pairs) - 1


@every_builder
def test_one_image_with_a_thousand_captions_costs_remainder_only(phase: Phase) -> None:
    eligible = make_eligible([1000] + [2] * 100, 10**9)
    batches, remainder = build_phase(eligible, phase, 10)
    assert len(batches.pairs) >= 18
    assert np.count_nonzero(rows_of(eligible, batches) < 1000, axis=1).max() <= 1
    check(eligible, batches, remainder.column("pair").to_numpy(), phase, 10)
    reasons = set(remainder.column("reason").to_pylist())
    assert reasons & {"image repeated", "not drawn"}


@every_builder
def test_equal_captions_are_refused_in_one_line(phase: Phase) -> None:
    eligible = say(make_eligible([2] * 50, 10**9), ["the same"] * 100)
    with pytest.raises(InputError) as refused:
        build_phase(eligible, phase, 8)
    message = str(refused.value)
    assert "the rules leave no batch of 8 among 100 pairs of 50 images with 1 captions" in message
    assert "choose a smaller batch_size" in message
    assert "\n" not in message


@every_builder
def test_fewer_images_than_a_batch_are_refused_with_the_numbers(phase: Phase) -> None:
    message = r"15 images \(30 pairs\) are eligible, expected at least .*16"
    with pytest.raises(InputError, match=message):
        build_phase(make_eligible([2] * 15, 10**9), phase, 16)


@settings(max_examples=60, deadline=None)
@given(
    mix=st.sampled_from(
        [
            ("communities",),
            ("similar",),
            ("communities", "random"),
            ("ontology", "similar", "kmeans"),
        ]
    ),
    passes=st.integers(0, 3),
    rotation=st.integers(0, 2),
    shape=st.lists(st.integers(1, 4), min_size=40, max_size=70),
    kinds=st.integers(60, 400),
    seed=st.integers(0, 99),
)
def test_whatever_passes_mix_and_rotation_no_pair_is_lost_or_comes_twice(
    mix: tuple[str, ...], passes: int, rotation: int, shape: list[int], kinds: int, seed: int
) -> None:
    eligible = make_eligible(shape, kinds, seed)
    parts = {name: 1 / len(mix) for name in mix}
    phase = Phase(mix=parts, rotation=rotation)
    batches, remainder = build_phase(eligible, phase, 8, epochs=3, passes=passes, seed=seed)
    number = np.arange(len(eligible)) - np.searchsorted(eligible.image, eligible.image)
    for epoch in range(3):
        pairs = batches.pairs[batches.epoch == epoch]
        left = remainder.filter(np.asarray(remainder["epoch"]) == epoch)["pair"].to_numpy()
        everything = np.concatenate([pairs.ravel(), left])
        assert len(set(everything)) == len(everything)
        wanted = np.bincount(eligible.image, number < passes if passes else None).sum()
        assert len(everything) == wanted  # so many captions an image as there are passes
        for batch in np.searchsorted(eligible.pair, pairs):
            assert len(set(eligible.image[batch])) == len(set(eligible.caption[batch])) == 8
