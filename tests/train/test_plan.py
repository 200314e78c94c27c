"""The plan on disk: exact batches, rank slices, other people's row order, audits, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonics.errors import FormatError, InputError, PlanMismatch
from tonics.train.plan import REMAINDER_SCHEMA, Batches, Plan, write_plan

B, N = 8, 40


def make_plan(folder: Path, *, sub_block: int = 1, seed: int = 0) -> Plan:
    """Five batches of eight over forty pairs 0, 3, 6, ...; two epochs, two phases."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    pair = np.arange(N) * 3
    batches = Batches(
        epoch=np.array([0, 0, 0, 1, 1], np.int32),
        phase=np.array([0, 0, 0, 1, 1], np.int16),
        node=np.array([-1, -1, -1, 0, 1], np.int32),
        pairs=rng.permutation(pair).reshape(-1, B),
    )
    pairs = pa.table(
        {
            "pair": pair,
            "pair_key": [f"img{p}#0" for p in pair],
            "image": pair // 3,
            "image_id": [f"img{p}" for p in pair],
            "caption": [f"caption {p}" for p in pair],
            "split": ["train"] * N,
            "caption_hash": pa.array(pair, pa.uint64()),
        }
    )
    phase = {"params": {}, "epochs": 1}
    header = {
        "batch_size": B,
        "sub_block": sub_block,
        "counts": {"epochs": 2},
        "nodes": ["dog.n.01", "cat.n.01"],
        "inputs": {},
        "phases": [
            {"name": "random", "builder": "random", "first_epoch": 0, **phase},
            {"name": "ontology", "builder": "ontology", "first_epoch": 1, **phase},
        ],
    }
    write_plan(folder, header, batches, pairs, REMAINDER_SCHEMA.empty_table(), {})
    return Plan(folder)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(tmp_path / "plan")


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_the_union_over_ranks_is_the_batch(plan: Plan, world: int) -> None:
    for step in range(len(plan)):
        slices = [plan.rank_rows(step, rank, world) for rank in range(world)]
        assert np.array_equal(np.concatenate(slices), plan.batch(step))


def test_a_world_that_does_not_divide_the_batch_is_refused(tmp_path: Path, plan: Plan) -> None:
    with pytest.raises(InputError, match="for 3 ranks"):
        plan.rank_rows(0, 0, 3)
    with pytest.raises(InputError, match="rank 2 of 2"):
        plan.rank_rows(0, 2, 2)
    with pytest.raises(InputError, match="groups of 4"):
        make_plan(tmp_path / "blocks", sub_block=4).rank_rows(0, 0, 4)


def test_resuming_is_one_integer(plan: Plan) -> None:
    whole = list(plan.iterate(rank=1, world=2))
    rest = list(plan.iterate(start=3, rank=1, world=2))
    assert all(np.array_equal(a, b) for a, b in zip(whole[3:], rest, strict=True))


def test_what_a_batch_means(plan: Plan) -> None:
    pairs = plan.batch(3)
    assert (plan.epoch_of(3), plan.phase_of(3), plan.node_of(3)) == (1, 1, "dog.n.01")
    assert plan.node_of(0) == ""
    assert plan.epoch_range(1) == range(3, 5)
    assert plan.captions_of(pairs) == [f"caption {p}" for p in pairs]
    assert np.array_equal(plan.images_of(pairs), pairs // 3)
    with pytest.raises(PlanMismatch, match="pairs 1, 2 are not in the plan"):
        plan.rows(np.array([0, 1, 2]))
    with pytest.raises(PlanMismatch, match="pairs 999"):
        plan.rows(np.array([999]))


@given(seed=st.integers(0, 2**32 - 1))
def test_align_gives_the_same_captions_in_any_order(tmp_path_factory, seed: int) -> None:
    plan = make_plan(tmp_path_factory.mktemp("plan") / "p", seed=seed % 7)
    rng = np.random.default_rng(seed)
    mine = [(f"img{p}#0", f"caption {p}") for p in range(3 * N)]  # more than the plan uses
    mine = [mine[i] for i in rng.permutation(len(mine))]
    aligned = plan.align([key for key, _ in mine])
    for step in range(len(plan)):
        rows = aligned.batch(step)
        assert [mine[row][1] for row in rows] == plan.captions_of(plan.batch(step))
        aligned.audit(step, rows)
    assert np.array_equal(aligned.rank_rows(1, 1, 2), aligned.batch(1)[B // 2 :])


def test_align_lists_missing_and_repeated_keys(plan: Plan) -> None:
    keys = [f"img{p * 3}#0" for p in range(N)]
    with pytest.raises(PlanMismatch, match=r"1 planned pairs have no row of yours: 'img0#0'"):
        plan.align(keys[1:])
    with pytest.raises(PlanMismatch, match=r"1 of your keys occur twice: 'img3#0'"):
        plan.align([*keys, "img3#0"])
    with pytest.raises(PlanMismatch, match="and 30 more"):
        plan.align(["other"])


def test_audit_fails_on_the_first_batch_that_is_not_planned(plan: Plan) -> None:
    good = plan.batch(2)
    plan.audit(2, good)
    with pytest.raises(PlanMismatch, match=r"batch 2.*another order"):
        plan.audit(2, good[::-1])
    with pytest.raises(PlanMismatch, match=rf"4 rows; missing .*{sorted(good[4:])[0]}"):
        plan.audit(2, good[:4])
    with pytest.raises(PlanMismatch, match="not planned -1"):
        plan.audit(2, [*good[:-1], -1])


def test_same_content_same_id_and_verify_notices_a_change(tmp_path: Path) -> None:
    one, two = make_plan(tmp_path / "one"), make_plan(tmp_path / "two")
    other = make_plan(tmp_path / "other", seed=1)
    assert one.plan_id == two.plan_id != other.plan_id
    for name in ("plan.json", "batches.arrow", "pairs.arrow"):
        assert (one.path / name).read_bytes() == (two.path / name).read_bytes()
    assert one.verify() == []
    (one.path / "batches.arrow").write_bytes((other.path / "batches.arrow").read_bytes())
    assert "batches.arrow does not hold" in Plan(one.path).verify()[0]
    header = json.loads((two.path / "plan.json").read_text())
    (two.path / "plan.json").write_text(json.dumps({**header, "sub_block": 2}))
    assert "plan_id does not fit" in Plan(two.path).verify()[0]


def test_what_is_not_a_plan_is_refused(tmp_path: Path, plan: Plan) -> None:
    with pytest.raises(InputError, match=r"no plan\.json in this folder"):
        Plan(tmp_path)
    header = json.loads((plan.path / "plan.json").read_text())
    (plan.path / "plan.json").write_text(json.dumps({**header, "version": 99}))
    with pytest.raises(FormatError, match="install a newer tonics"):
        Plan(plan.path)
    (plan.path / "plan.json").write_text(json.dumps(header))
    data = (plan.path / "batches.arrow").read_bytes()
    (plan.path / "batches.arrow").write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match=r"batches\.arrow: cannot be read"):
        Plan(plan.path)


def test_reading_a_plan_needs_numpy_pyarrow_and_xxhash_only(plan: Plan) -> None:
    code = """
import sys
class Only:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "duckdb", "spacy", "nltk", "pydantic", "PIL", "rich",
                                  "typer", "transformers", "webdataset", "safetensors"}:
            raise ImportError(name)
sys.meta_path.insert(0, Only())
from tonics.train import Plan
plan = Plan(sys.argv[1])
plan.align(plan.pairs.column("pair_key").to_pylist())
plan.audit(0, plan.batch(0))
"""
    subprocess.run([sys.executable, "-c", code, str(plan.path)], check=True)
