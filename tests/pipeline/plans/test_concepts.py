"""Batches of ``concepts``: as many objects as they can hold, rare pairs several times."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonics.pipeline.config import Phase
from tonics.pipeline.plans import concepts
from tonics.pipeline.plans.concepts import Params, share_out, spread
from tonics.pipeline.plans.eligible import Eligible, Objects
from tonics.pipeline.plans.quality.measure import coverage

from .made_up import build_phase, make_eligible, offer, rows_of

OBJECTS = 60


def unequal(count: int = 3000) -> Eligible:
    """Pairs with one or two objects each, some of which hundreds name and some a few."""
    rng = np.random.default_rng(0)
    often = 1 / np.arange(1, OBJECTS) ** 1.5
    named = rng.integers(0, 3, count)
    members = rng.choice(np.arange(1, OBJECTS), named.sum(), p=often / often.sum())
    objects = Objects(
        names=[f"o{n}" for n in range(OBJECTS)],
        parent=np.array([-1, *[0] * (OBJECTS - 1)], np.int32),
        depth=np.array([0, *[1] * (OBJECTS - 1)], np.int32),
        starts=np.concatenate([[0], np.cumsum(named)]),
        members=members.astype(np.int32),
    )
    return replace(make_eligible([1] * count, 10**9), objects=objects)


def objects_a_batch(eligible: Eligible, rows: np.ndarray) -> float:
    objects = eligible.objects
    named = [objects.members[objects.starts[r] : objects.starts[r + 1]] for r in rows.ravel()]
    per = rows.shape[1]
    return float(
        np.mean([len(set(np.concatenate(named[i : i + per]))) for i in range(0, len(named), per)])
    )


def test_batches_cover_more_objects_than_random_ones() -> None:
    eligible = unequal()
    covered = {}
    for name in ("random", "ontology", "concepts"):
        batches, _ = build_phase(eligible, Phase(builder=name), 64)
        covered[name] = objects_a_batch(eligible, rows_of(eligible, batches))
    assert covered["concepts"] > 1.3 * covered["random"]
    assert covered["random"] > covered["ontology"]


@pytest.mark.parametrize("most", [1, 2, 4])
def test_a_pair_comes_no_more_than_so_often_in_a_pass(most: int) -> None:
    eligible = unequal()
    params = Params(max_repeats=most)
    made = concepts.build(eligible, offer(np.arange(3000), 50), params, np.random.default_rng(0))
    used = np.bincount(made.rows.ravel(), minlength=3000)
    assert used.max() == most
    assert not len(made.left)
    assert 0.6 * 60 < len(made) <= 60
    # A pair of a rare object comes as often as it may; of the most frequent many stay out.
    counts = np.bincount(eligible.objects.members, minlength=OBJECTS)
    row = np.repeat(np.arange(3000), np.diff(eligible.objects.starts))
    rare = used[row[counts[eligible.objects.members] <= 10]]
    frequent = used[row[eligible.objects.members == 1]]
    assert rare.mean() > 0.9 * most
    assert frequent.mean() < 0.95


def test_coverage_and_remainder_say_what_was_not_drawn() -> None:
    eligible = unequal()
    batches, remainder = build_phase(eligible, Phase(builder="concepts"), 64)
    said = coverage(eligible, batches, remainder)
    never = said["pairs_by_times_seen"]["0"]
    assert said["remainder"] == {"not drawn": never}
    assert sum(said["pairs_by_times_seen"].values()) == 3000
    assert set(said["pairs_by_times_seen"]) == {"0", "1", "2", "3"}
    assert never > 300


def test_the_draws_of_an_object_are_spread_over_the_pass() -> None:
    shares = np.array([3, 100, 7, 0, 50])
    turns = spread(shares, np.random.default_rng(0))
    assert np.bincount(turns, minlength=5).tolist() == shares.tolist()
    for number, share in enumerate(shares.tolist()):
        at = np.flatnonzero(turns == number)
        for k, place in enumerate(at.tolist()):
            assert abs(place / len(turns) - (k + 0.5) / share) <= 0.5 / share + 0.05


@given(st.lists(st.integers(0, 20), max_size=12), st.integers(0, 150), st.integers(0, 9))
def test_shares_are_as_even_as_the_limits_allow(most: list[int], total: int, seed: int) -> None:
    limits = np.array(most, np.int64)
    shares = share_out(limits, total, np.random.default_rng(seed))
    assert shares.sum() == min(total, sum(most))
    assert np.all((shares >= 0) & (shares <= limits))
    free = shares[shares < limits]
    if len(free):
        assert free.min() >= shares.max() - 1
