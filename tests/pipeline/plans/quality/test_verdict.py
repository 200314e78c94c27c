"""Warnings where plans hurt or did nothing, and none where they helped."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tonics.pipeline.plans.quality.verdict import is_inert, is_pure, judge

# (mean, top1) measured at B = 128 beside random batches with .077 and .481.
RANDOM = {"mean": 0.077, "top1": 0.481, "seen_never": 0}
HELPED = {"groups of 16 near": (0.114, 0.638), "rank 30": (0.109, 0.595), "walk": (0.132, 0.595)}
# Whole batches of one object changed nothing either, .003 below one line and .018 beside the other.
CHANGED_NOTHING = {"curriculum": (0.139, 0.536), "same-object groups": (0.091, 0.517)}
HURT = {"k-means": (0.289, 0.618), "rarest object": (0.203, 0.617)}
EVERYTHING = {"seen_never": 0, "seen_once": 0, "seen_more": 100}


def phase(name: str, mean: float, top1: float, **more: Any) -> dict[str, Any]:
    return {"name": name, "mean": mean, "mean_apart": mean, "top1": top1, **EVERYTHING, **more}


ALL = {**HELPED, **CHANGED_NOTHING, **HURT}


@pytest.mark.parametrize("name", ALL)
def test_plans_are_judged_by_what_they_did(name: str) -> None:
    figures = phase(name, *ALL[name])
    assert is_pure(figures, RANDOM) == (name in HURT)
    assert is_inert(figures, RANDOM) == (name in CHANGED_NOTHING)


def test_larger_batches_of_the_same_groups_are_inert() -> None:
    """Measured on other captions: random .498 in batches of 256, groups of 16 at .575."""
    beside = {"mean": 0.068, "top1": 0.498}
    assert is_inert(phase("groups", 0.083, 0.575), beside)
    assert not is_inert(phase("groups", 0.083, 0.60), beside)


def test_tight_groups_are_not_one_topic() -> None:
    """Many of them: the mean is 3.7 times random's, that between groups is not."""
    beside = {"mean": 0.068, "top1": 0.287}
    assert is_pure(phase("groups", 0.25, 0.6), beside)
    assert not is_pure(phase("groups", 0.25, 0.6, mean_apart=0.07, groups=4), beside)
    assert is_pure(phase("groups", 0.25, 0.6, mean_apart=0.07, groups=2), beside)  # two topics


def test_phases_that_compare_images_are_not_judged_by_captions() -> None:
    told = phase("images", 0.08, 0.5)
    assert judge(told, [told], RANDOM, {"images": 0.0})
    assert not judge(told, [told], RANDOM, {"images": 0.0}, by_image=["images"])


def test_means_near_zero_and_means_of_alike_captions() -> None:
    assert not is_pure(phase("a", 0.085, 0.7), {"mean": 0.012, "top1": 0.5})
    assert is_pure(phase("a", 0.2, 0.7), {"mean": 0.012, "top1": 0.5})
    assert is_pure(phase("a", 0.15, 0.7), {"mean": 0.06, "top1": 0.5})  # 2.5 times
    assert is_pure(phase("a", 0.66, 0.9), {"mean": 0.6, "top1": 0.8})  # 2.3 times cannot be
    assert not is_pure(phase("a", 0.62, 0.9), {"mean": 0.6, "top1": 0.8})


def test_a_random_phase_is_not_judged_and_a_mixed_one_by_its_other_half() -> None:
    half = phase("random + groups", 0.09, 0.481 + 0.6 * (0.595 - 0.481))
    assert not is_inert(half, RANDOM, random_share=0.5)
    assert is_inert(half, RANDOM)
    same = phase("random", 0.077, 0.479)  # a little below, by chance
    assert judge(EVERYTHING, [same], RANDOM, {"random": 1.0}) == []
    assert judge(EVERYTHING, [half], RANDOM, {"random + groups": 0.5}) == []
    assert len(judge(EVERYTHING, [same], RANDOM, {"random": 0.0})) == 1


def test_batches_that_bring_many_objects_together_are_after_something_else() -> None:
    beside = {**RANDOM, "objects": 100.0}
    assert not is_inert(phase("concepts", 0.06, 0.46, objects=130.0), beside)
    assert is_inert(phase("random", 0.06, 0.46, objects=101.0), beside)


def test_warnings_name_the_phases_and_the_numbers() -> None:
    phases = [phase("a", 0.09, 0.5), phase("b", 0.1, 0.51), phase("c", 0.3, 0.62)]
    pure, inert = judge(EVERYTHING, phases, RANDOM, dict.fromkeys("abc", 0.0))
    assert re.match(r"phase c: .*\(mean similarity 0\.300, random 0\.077\); .* hurt", pure)
    assert re.match(r"phases a, b: .* \(top-1 0\.500, 0\.510, random 0\.481\)", inert)


def test_pairs_that_are_never_seen() -> None:
    few = {"seen_never": 5, "seen_once": 95, "seen_more": 0}
    many = {"seen_never": 60, "seen_once": 40, "seen_more": 0}
    assert judge(few, [], {"seen_never": 5}, {}) == []
    (settings,) = judge(many, [], {"seen_never": 55}, {})
    assert settings.startswith("60 pairs (60%) are in no batch (of a random plan 55): raise epochs")
    (builder,) = judge(many, [], {"seen_never": 0}, {})
    assert "add a random phase" in builder
    assert len(judge(many, [], {}, {})) == 1
