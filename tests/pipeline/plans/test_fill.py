"""Rows in an order become batches without conflicts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tonics.pipeline.plans.fill import fill

from .made_up import make_eligible


def test_the_order_stays_where_nothing_conflicts() -> None:
    eligible = make_eligible([1] * 10, 10**9)
    order = np.arange(10)[::-1].copy()
    batches, left = fill(eligible, order, 4)
    assert batches.tolist() == [[9, 8, 7, 6], [5, 4, 3, 2]]
    assert left.tolist() == [1, 0]


def test_a_row_in_conflict_waits_for_the_next_batch() -> None:
    eligible = make_eligible([2, 1, 1, 1, 1], 10**9)  # rows 0 and 1 show one image
    batches, left = fill(eligible, np.arange(6), 3)
    assert batches.tolist() == [[0, 2, 3], [1, 4, 5]]
    assert not len(left)


@given(st.lists(st.integers(0, 11), max_size=60), st.integers(2, 5))
def test_a_row_may_come_again_but_not_in_one_batch(order: list[int], size: int) -> None:
    eligible = make_eligible([1] * 12, 10**9)
    batches, left = fill(eligible, np.array(order, np.int64), size)
    assert all(len(set(batch)) == size for batch in batches.tolist())
    assert sorted([*batches.ravel().tolist(), *left.tolist()]) == sorted(order)
