"""Groups become batches: none lost or twice, no conflict, one of each place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tonics.pipeline.plans.builder import Groups
from tonics.pipeline.plans.deal import deal, dealable
from tonics.pipeline.plans.eligible import Eligible

from .made_up import make_eligible, say


def make_groups(rows: np.ndarray, places: np.ndarray | None = None) -> Groups:
    """Groups whose object is their number."""
    count = len(rows)
    return Groups(
        rows=rows,
        node=np.arange(count, dtype=np.int32),
        place=np.zeros(count, np.int64) if places is None else places,
        left=np.empty(0, np.int64),
    )


def grouped(count: int, size: int, kinds: int, seed: int) -> tuple[Eligible, Groups]:
    """Groups of pairs of different images, in which no caption is said twice."""
    eligible = make_eligible([1] * (count * size), kinds, seed)
    rows = np.arange(count * size).reshape(count, size)
    fit = [len(set(eligible.caption[group])) == size for group in rows]
    return eligible, make_groups(rows[fit])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 4), st.integers(1, 4), st.integers(4, 300), st.integers(0, 9)
)
def test_no_group_is_lost_or_dealt_twice(
    count: int, size: int, per_batch: int, kinds: int, seed: int
) -> None:
    eligible, groups = grouped(count, size, kinds, seed)
    dealt = deal(eligible, groups, size * per_batch, np.random.default_rng(seed))
    runs = dealt.rows.reshape(-1, size)
    together = [*runs.tolist(), *dealt.undealt.rows.tolist()]
    assert sorted(together) == groups.rows.tolist()
    for batch in eligible.caption[dealt.rows] if per_batch > 1 else []:
        assert len(set(batch)) == size * per_batch
    node = dealt.groups if per_batch > 1 else dealt.node[:, None]
    assert np.array_equal(groups.rows[node.ravel()], runs)  # each group keeps its object
    if per_batch > 1 and kinds > 200:
        assert len(dealt.undealt) < 2 * per_batch


def test_groups_that_share_nothing_fill_every_batch() -> None:
    eligible, groups = grouped(43, 4, 10**9, 0)
    dealt = deal(eligible, groups, 16, np.random.default_rng(0))
    assert len(dealt.rows) == 43 // 4
    assert len(dealt.undealt) == 43 % 4


@pytest.mark.parametrize("seed", range(5))
def test_groups_of_one_place_go_to_different_batches(seed: int) -> None:
    eligible, groups = grouped(120, 2, 10**9, 0)
    sizes = [30, 29, 17, 17, 11, 9, 5, 1, 1]  # none larger than the 30 batches
    places = np.repeat(np.arange(len(sizes)), sizes)
    groups = make_groups(groups.rows, places)
    dealt = deal(eligible, groups, 8, np.random.default_rng(seed))
    assert dealt.rows.shape == (30, 8)
    for batch in places[dealt.groups]:
        assert len(set(batch)) == 4


def test_other_epochs_mix_the_same_groups_anew() -> None:
    eligible, groups = grouped(40, 4, 10**9, 0)
    one, two = (deal(eligible, groups, 16, np.random.default_rng(seed)) for seed in (0, 1))
    assert {frozenset(g) for g in one.groups.tolist()} != {
        frozenset(g) for g in two.groups.tolist()
    }


def test_a_group_in_conflict_with_all_others_costs_itself_only() -> None:
    # The first group shows an image of each of the other six.
    eligible = make_eligible([2] * 6 + [1] * 30, 10**9)
    first = np.array([0, 2, 4, 6, 8, 10])
    alone = np.arange(12, 42).reshape(6, 5)
    rows = np.vstack([first + 1, np.column_stack([first, alone])])
    dealt = deal(eligible, make_groups(rows), 12, np.random.default_rng(0))
    assert len(dealt.rows) == 3
    assert dealt.undealt.node.tolist() == [0]


def test_many_conflicts_cost_the_groups_that_fit_nowhere_and_few_batches() -> None:
    """Of 40 captions each batch of 24 says most: many groups fit nowhere."""
    found = possible = 0
    for seed in range(20):
        eligible, groups = grouped(64, 3, 40, seed)
        found += len(deal(eligible, groups, 24, np.random.default_rng(seed)).rows)
        possible += len(groups) // 8
    assert found > 0.6 * possible


def test_a_caption_that_every_group_says_leaves_the_batches_that_can_be() -> None:
    eligible, groups = grouped(40, 4, 10**9, 0)
    captions = eligible.table.column("caption").to_pylist()
    for group in groups.rows[:25]:
        captions[group[0]] = "the same"
    eligible = say(eligible, captions)
    dealt = deal(eligible, groups, 16, np.random.default_rng(0))
    # 15 groups are free of it: with one of the others each, they make five batches.
    assert len(dealt.rows) == 5
    assert np.count_nonzero(eligible.caption[dealt.rows] == eligible.caption[0], axis=1).max() == 1


def test_rows_that_no_batch_can_hold_are_set_aside() -> None:
    eligible = make_eligible([1] * 100, 10**9)
    captions = ["the same"] * 60 + [f"caption {i}" for i in range(40)]
    eligible = say(eligible, captions)
    order = np.random.default_rng(0).permutation(100)
    kept, spare = dealable(eligible, order, 10)
    # With four batches 44 rows can be placed, with five 45.
    assert np.count_nonzero(kept < 60) == 4
    assert sorted([*kept, *spare]) == list(range(100))
    assert set(spare) == set(order[order < 60][4:])
    alone = say(eligible, ["the same"] * 100)
    assert not len(dealable(alone, order, 10)[0])
