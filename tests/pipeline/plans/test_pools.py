"""Pools: batches of every object that narrows the one above it, and the rule in the header."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tonics.errors import ConfigError
from tonics.pipeline.config import Phase, Plan
from tonics.pipeline.plans.curricula import stretches
from tonics.pipeline.plans.eligible import Objects
from tonics.pipeline.plans.epochs import build_batches
from tonics.pipeline.plans.pools import Params, narrowing, schedule

from .made_up import make_eligible


def lineage(objects: Objects, row: int) -> set[int]:
    """The objects a row names, and all above them."""
    found = set()
    for node in objects.members[objects.starts[row] : objects.starts[row + 1]].tolist():
        while node >= 0:
            found.add(node)
            node = int(objects.parent[node])
    return found


def chain(named: list[int], parent: list[int]) -> Objects:
    """A tree whose nodes are each named by so many rows of their own."""
    members = np.repeat(np.arange(len(named)), named).astype(np.int32)
    depth = [0] * len(parent)
    for node in range(1, len(parent)):
        depth[node] = depth[parent[node]] + 1
    return Objects(
        names=[f"o{n}" for n in range(len(named))],
        parent=np.array(parent, np.int32),
        depth=np.array(depth, np.int32),
        starts=np.arange(len(members) + 1),
        members=members,
    )


def test_each_pool_holds_pairs_of_its_subtree_and_the_root_any() -> None:
    eligible = make_eligible([2] * 200, 10**9)
    plan = Plan(batch_size=4, epochs=7, embeddings="captions", curriculum="adaptive")
    batches, remainder = build_batches(eligible, plan, stretches("p", plan))
    assert set(batches.epoch) == {0}  # pools are built once
    below_root = 0
    for node, pairs in zip(batches.node.tolist(), batches.pairs, strict=True):
        rows = np.searchsorted(eligible.pair, pairs)
        assert len(set(eligible.image[rows])) == 4
        if node > 0:
            below_root += 1
            assert all(node in lineage(eligible.objects, row) for row in rows)
    assert below_root > 50
    in_root = batches.pairs[batches.node == 0]
    assert len(np.unique(in_root)) == in_root.size == 400  # both passes, every pair
    assert remainder.num_rows == 0


def test_a_pair_is_in_the_pools_of_all_objects_above_its_own() -> None:
    eligible = make_eligible([1] * 400, 10**9)
    plan = Plan(batch_size=2, epochs=1, embeddings="captions", curriculum="adaptive")
    batches, _ = build_batches(eligible, plan, stretches("p", plan))
    above = narrowing(eligible.objects, Params().narrows)
    for node in set(batches.node.tolist()) - {0}:
        placed = np.searchsorted(eligible.pair, batches.pairs[batches.node == node].ravel())
        named = [r for r in range(400) if node in lineage(eligible.objects, r)]
        assert set(placed) <= set(named)
        assert len(named) - len(placed) < 2  # all but what is less than a batch
        assert above[node] >= 0


def test_pairs_that_name_no_object_are_in_the_pool_of_any() -> None:
    eligible = make_eligible([1] * 40, 10**9)
    nothing = {"starts": np.zeros(41, np.int64), "members": np.empty(0, np.int32)}
    eligible = replace(eligible, objects=replace(eligible.objects, **nothing))
    plan = Plan(batch_size=8, epochs=1, phases=(Phase(builder="pools"),))
    batches, _ = build_batches(eligible, plan, stretches("p", plan))
    assert batches.node.tolist() == [0] * 5


def test_an_object_that_hardly_narrows_the_one_above_has_no_pool() -> None:
    objects = chain([0, 2, 3, 40, 55], [-1, 0, 1, 2, 2])  # 0 > 1 > 2 > {3, 4}
    assert narrowing(objects, 0.9).tolist() == [-1, -2, -2, 0, 0]
    assert narrowing(objects, 0.99).tolist() == [-1, -2, 0, 2, 2]  # 98 of 100 is narrow enough


def test_the_schedule_links_each_pool_to_the_pool_above() -> None:
    eligible = make_eligible([1] * 300, 10**9)
    plan = Plan(batch_size=4, epochs=3, embeddings="captions", curriculum="adaptive")
    batches, _ = build_batches(eligible, plan, stretches("p", plan))
    rule = schedule(eligible.objects, batches, Params(threshold=0.4), 225)
    assert rule["pools"] == sorted(set(batches.node.tolist()))
    parents = dict(zip(rule["pools"], rule["parents"], strict=True))
    assert [node for node, parent in parents.items() if parent < 0] == [0]
    for node, parent in parents.items():
        assert parent < 0 or parent in parents
        assert parent < 0 or parent in {int(eligible.objects.parent[node]), 0}
    assert (rule["threshold"], rule["block"], rule["steps"]) == (0.4, 50, 225)


def test_pools_stand_alone() -> None:
    beside = (Phase(builder="pools", share=0.5), Phase(builder="random", share=0.5))
    with pytest.raises(ConfigError, match="pools beside other builders, expected pools alone"):
        stretches("p", Plan(epochs=4, phases=beside))
    mixed = (Phase(mix={"pools": 0.5, "random": 0.5}),)
    with pytest.raises(ConfigError, match="expected pools alone"):
        stretches("p", Plan(epochs=4, phases=mixed))
