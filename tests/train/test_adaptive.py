"""The adaptive curriculum: what opens when, that a run resumes, and that its log replays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tonics.errors import InputError, PlanMismatch
from tonics.train.adaptive import Adaptive
from tonics.train.plan import Plan
from tonics.train.plan_files import PAIRS_SCHEMA, REMAINDER_SCHEMA, Batches, write_plan

# Pools: 0 the root; 1 and 2 below it; 3 below 1. Batches of two pairs.
PARENTS = {0: -1, 1: 0, 2: 0, 3: 1}
SIZES = {0: 12, 1: 6, 2: 4, 3: 3}
RULE = {"kind": "adaptive", "steps": 95, "threshold": 0.5, "block": 10, "root_share": 0.2}


@pytest.fixture
def pools(tmp_path: Path) -> Plan:
    """A plan whose batches are pools."""
    return make_pools(tmp_path / "pools")


def make_pools(folder: Path, **rule: object) -> Plan:
    node = np.repeat(list(SIZES), list(SIZES.values())).astype(np.int32)
    count = len(node)
    pairs = np.arange(2 * count).reshape(-1, 2)
    zeros = np.zeros(count, np.int32)
    batches = Batches(epoch=zeros, phase=zeros.astype(np.int16), node=node, pairs=pairs)
    named = pa.table(
        {
            "pair": np.arange(2 * count),
            "pair_key": [f"{p}#0" for p in range(2 * count)],
            "image": np.arange(2 * count),
            "image_id": [str(p) for p in range(2 * count)],
            "caption": [f"caption {p}" for p in range(2 * count)],
            "split": ["train"] * 2 * count,
            "caption_hash": pa.array(range(2 * count), pa.uint64()),
        },
        schema=PAIRS_SCHEMA,
    )
    header = {
        "batch_size": 2,
        "sub_block": 1,
        "seed": 0,
        "counts": {"batches": count, "epochs": 1, "pairs": 2 * count, "remainder": 0},
        "phases": [
            {"name": "pools", "builder": "pools", "params": {}, "first_epoch": 0, "epochs": 1}
        ],
        "nodes": ["entity.n.01", "animal.n.01", "vehicle.n.01", "dog.n.01"],
        "inputs": {},
        "coverage": {},
        "schedule": {
            **RULE,
            **rule,
            "pools": list(PARENTS),
            "parents": list(PARENTS.values()),
        },
    }
    folder.mkdir()
    nothing = pa.table({n: [] for n in REMAINDER_SCHEMA.names}, schema=REMAINDER_SCHEMA)
    write_plan(folder, header, batches, named, nothing, {})
    return Plan(folder)


def run(adaptive: Adaptive, accuracy: dict[int, float], blocks: range) -> list[int]:
    """Train blocks with an accuracy that depends on the object alone; return the drawn batches."""
    drawn = []
    for block in blocks:
        steps = adaptive.draw(block)
        for place, step in enumerate(steps):
            node = int(adaptive.plan.batches.node[step])
            adaptive.saw(block, place, accuracy[node])
        drawn += steps
    return drawn


def nodes_of(plan: Plan, steps: list[int]) -> set[int]:
    return set(plan.batches.node[steps].tolist())


def test_children_open_two_blocks_after_their_parent_is_solved(pools: Plan) -> None:
    adaptive = Adaptive(pools)
    steps = [run(adaptive, {0: 0.9, 1: 0.9, 2: 0.1, 3: 0.1}, range(b, b + 1)) for b in range(10)]
    nodes = [nodes_of(pools, drawn) for drawn in steps]
    assert nodes[0] == nodes[1] == {0}  # block 0 is known when block 2 is drawn
    assert nodes[2] <= {0, 1, 2}
    assert 1 in nodes[2] | nodes[3]
    assert 3 not in nodes[2] | nodes[3]
    assert adaptive.frontier == [2, 3]  # animal is replaced by dog; vehicle was never solved
    late = pools.batches.node[[s for drawn in steps[6:] for s in drawn]]
    assert set(late.tolist()) == {0, 2, 3}


def test_nothing_opens_below_the_threshold(pools: Plan) -> None:
    adaptive = Adaptive(pools)
    drawn = run(adaptive, dict.fromkeys(PARENTS, 0.49), range(10))
    assert nodes_of(pools, drawn) == {0}
    assert len(drawn) == 95  # the last block is shorter
    exact = Adaptive(pools)
    assert nodes_of(pools, run(exact, dict.fromkeys(PARENTS, 0.5), range(10))) == set(PARENTS)


def test_a_share_stays_with_any_objects(tmp_path: Path) -> None:
    plan = make_pools(tmp_path / "long", steps=20_000, block=500, root_share=0.3)
    drawn = run(Adaptive(plan), dict.fromkeys(PARENTS, 1.0), range(40))
    late = plan.batches.node[drawn[5_000:]]
    assert 0.28 < np.mean(late == 0) < 0.32
    share = np.mean(late == 2) / np.mean(late == 3)
    assert 0.9 < share / (SIZES[2] / SIZES[3]) < 1.1  # by the size of the pools


def test_a_pool_is_used_up_before_it_starts_again_in_another_order(pools: Plan) -> None:
    drawn = run(Adaptive(pools), dict.fromkeys(PARENTS, 0.0), range(5))
    first, second = drawn[:12], drawn[12:24]
    assert set(first) == set(second) == set(range(12))
    assert first != second


def test_a_resumed_run_draws_what_an_uninterrupted_one_draws(pools: Plan) -> None:
    accuracy = {0: 0.7, 1: 0.6, 2: 0.2, 3: 0.9}
    whole = run(Adaptive(pools, seed=3), accuracy, range(10))
    for stop in (0, 1, 5):
        adaptive = Adaptive(pools, seed=3)
        done = run(adaptive, accuracy, range(stop))
        adaptive.draw(stop)  # read ahead, not yet trained
        state = json.loads(json.dumps(adaptive.state()))
        resumed = Adaptive.resume(pools, state, len(done))
        assert done + run(resumed, accuracy, range(stop, 10)) == whole


def test_a_run_stopped_within_a_block_goes_on(pools: Plan) -> None:
    accuracy = {0: 0.7, 1: 0.6, 2: 0.2, 3: 0.9}
    whole = run(Adaptive(pools), accuracy, range(10))
    adaptive = Adaptive(pools)
    run(adaptive, accuracy, range(3))
    steps = adaptive.draw(3)
    for place in range(4):
        adaptive.saw(3, place, accuracy[int(pools.batches.node[steps[place]])])
    resumed = Adaptive.resume(pools, json.loads(json.dumps(adaptive.state())), 34)
    for place in range(4, 10):
        resumed.saw(3, place, accuracy[int(pools.batches.node[steps[place]])])
    assert whole[:40] + run(resumed, accuracy, range(4, 10)) == whole


def test_the_log_replays_as_a_static_plan(pools: Plan, tmp_path: Path) -> None:
    adaptive = Adaptive(pools)
    drawn = run(adaptive, dict.fromkeys(PARENTS, 0.8), range(10))
    static = adaptive.replay(str(tmp_path / "replay"))
    assert static.schedule is None
    assert static.verify() == []
    assert len(static) == 95
    for step, batch in enumerate(drawn):
        assert np.array_equal(static.batch(step), pools.batch(batch))
        assert static.node_of(step) == pools.node_of(batch)
    assert static.plan_id != pools.plan_id


def test_decisions_need_reports(pools: Plan) -> None:
    adaptive = Adaptive(pools)
    adaptive.draw(0)
    adaptive.draw(1)
    with pytest.raises(InputError, match="block 0: 0 of 10 steps reported; call saw"):
        adaptive.draw(2)
    with pytest.raises(InputError, match="block 5, expected the next one, 2 of 10"):
        adaptive.draw(5)


def test_a_state_of_another_plan_is_refused(pools: Plan, tmp_path: Path) -> None:
    other = make_pools(tmp_path / "other", threshold=0.7)
    with pytest.raises(PlanMismatch, match="the saved state is of another plan"):
        Adaptive.resume(other, Adaptive(pools).state(), 0)


def test_a_run_resumes_from_any_step_however_far_it_read_ahead(pools: Plan) -> None:
    accuracy = {0: 0.7, 1: 0.6, 2: 0.2, 3: 0.9}
    whole = run(Adaptive(pools, seed=2), accuracy, range(10))
    for stop in range(0, 95, 7):
        for ahead in (0, 1):
            adaptive, done = Adaptive(pools, seed=2), []
            for step in range(stop):
                block, place = divmod(step, 10)
                done.append(adaptive.draw(block)[place])
                if ahead and block < 9:
                    adaptive.draw(block + 1)
                adaptive.saw(block, place, accuracy[int(pools.batches.node[done[-1]])])
            state = json.loads(json.dumps(adaptive.state()))
            resumed = Adaptive.resume(pools, state, stop)
            for step in range(stop, 95):
                block, place = divmod(step, 10)
                done.append(resumed.draw(block)[place])
                resumed.saw(block, place, accuracy[int(pools.batches.node[done[-1]])])
            assert done == whole


def test_wrong_reports_are_refused(pools: Plan) -> None:
    adaptive = Adaptive(pools)
    with pytest.raises(InputError, match="step 0 of block 0, expected a drawn one"):
        adaptive.saw(0, 0, 0.5)
    adaptive.draw(0)
    with pytest.raises(InputError, match="accuracy nan, expected a share"):
        adaptive.saw(0, 0, float("nan"))
    with pytest.raises(InputError, match="block -1, expected the next one"):
        adaptive.draw(-1)
    adaptive.saw(0, 0, 0.5)
    with pytest.raises(PlanMismatch, match="state is of step 1, expected step 2"):
        Adaptive.resume(pools, adaptive.state(), 2)


def test_a_static_plan_has_no_pools(pools: Plan, tmp_path: Path) -> None:
    adaptive = Adaptive(pools)
    adaptive.draw(0)
    with pytest.raises(InputError, match=r"a plan without pools, .*; build one with curriculum"):
        Adaptive(adaptive.replay(tmp_path / "replay"))


def test_a_replay_replaces_nothing_but_a_replay(pools: Plan, tmp_path: Path) -> None:
    adaptive = Adaptive(pools)
    adaptive.draw(0)
    with pytest.raises(InputError, match="pools: holds something else already"):
        adaptive.replay(pools.path)
    adaptive.replay(tmp_path / "replay")
    adaptive.draw(1)
    assert len(adaptive.replay(tmp_path / "replay")) == 20
