"""Rows by object: which object a pair is drawn for, and what is above it."""

from __future__ import annotations

import numpy as np

from tonics.pipeline.plans.eligible import Objects
from tonics.pipeline.plans.nodes import Pools, deepest_shared, draw_objects, lift, lift_to_middle

from .made_up import DEPTH, PARENT, make_eligible


def objects_of(members: list[list[int]]) -> Objects:
    """The tree of ``made_up`` with rows of given objects."""
    return Objects(
        names=[f"o{n}" for n in range(6)],
        parent=PARENT,
        depth=DEPTH,
        starts=np.cumsum([0, *map(len, members)]),
        members=np.array([m for some in members for m in some], np.int32),
    )


def test_lift_stops_at_the_depth() -> None:
    objects = make_eligible([1] * 8, 9).objects
    node = np.array([5, 3, 1, 0, -1], np.int32)
    assert lift(objects, node, 1).tolist() == [2, 1, 1, 0, -1]
    assert lift(objects, node, 0).tolist() == [0, 0, 0, 0, -1]


def test_the_middle_is_the_highest_object_of_a_third_of_the_mentions() -> None:
    # Of nine mentions 1 has five, too many, so 3 and 4 stay; 2 has three, so 5 goes up to it.
    objects = objects_of([[3], [3], [3], [4], [4], [5], [5], [2], [0]])
    node = np.array([3, 4, 5, 2, 1, 0, -1], np.int32)
    assert lift_to_middle(objects, node).tolist() == [3, 4, 2, 2, 1, 0, -1]


def test_a_pair_goes_to_each_of_its_objects_equally_often() -> None:
    objects = objects_of([[0, 1], []])
    rng = np.random.default_rng(0)
    drawn = [draw_objects(objects, np.array([0, 1]), rng) for _ in range(400)]
    assert {int(d[1]) for d in drawn} == {-1}
    assert 160 < sum(int(d[0]) for d in drawn) < 240


def test_pools_are_taken_from_below_and_leave_to_the_one_above() -> None:
    objects = objects_of([])
    pools = Pools(objects, np.arange(4), np.array([3, 5, 3, -1]))
    seen = {}
    for node in pools.upward():
        seen[node] = pools.take(node).tolist()
        pools.pass_up(node, np.array(seen[node][:1]))
    assert seen == {3: [0, 2], 5: [1], 1: [0], 2: [1], 0: [0, 1]}
    assert pools.nowhere().tolist() == [3, 0]


def test_a_group_is_named_after_the_deepest_object_its_pairs_share() -> None:
    objects = objects_of([[3, 5], [4], [3], [5], []])
    groups = np.array([[0, 2], [0, 1], [0, 3], [1, 3], [0, 4], [2, 2]])
    assert deepest_shared(objects, groups).tolist() == [3, 1, 5, 0, -1, 3]
