"""The plan on disk: exact batches, rank slices, other people's row order, audits, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonics.errors import FormatError, InputError, PlanMismatch
from tonics.train.plan import Plan
from tonics.train.plan_files import PAIRS_SCHEMA, REMAINDER_SCHEMA, Batches, write_plan

B, N = 8, 40


def make_plan(
    folder: Path,
    *,
    sub_block: int = 1,
    seed: int = 0,
    release: str = "1",
    inputs: dict[str, str] | None = None,
) -> Plan:
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
        "created_by": f"tonics {release}",
        "batch_size": B,
        "sub_block": sub_block,
        "counts": {"epochs": 2},
        "nodes": ["dog.n.01", "cat.n.01"],
        "inputs": inputs or {},
        "phases": [
            {"name": "random", "builder": "random", "first_epoch": 0, **phase},
            {"name": "ontology", "builder": "ontology", "first_epoch": 1, **phase},
        ],
    }
    left = {"epoch": [0], "phase": [0], "pair": [3], "reason": ["less than a batch left"]}
    write_plan(folder, header, batches, pairs, pa.table(left, schema=REMAINDER_SCHEMA), {})
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


def test_a_plan_of_other_data_is_refused(tmp_path: Path, plan: Plan) -> None:
    bound = make_plan(tmp_path / "bound", inputs={"features": "f" * 32, "pairs": "a" * 32})
    bound.require()
    bound.require(features="f" * 32, pairs="a" * 32)
    plan.require(features="f" * 32, pairs="a" * 32)  # it does not say what it was built for
    says = r"bound: plan \w{8} was built for another feature store: features ffffffff, expected 12"
    with pytest.raises(PlanMismatch, match=says + "341234, the features at hand; build it anew"):
        bound.require(features="1234" * 8)
    with pytest.raises(PlanMismatch, match="for other pairs: pairs aaaaaaaa, expected 12341234"):
        bound.require(features="f" * 32, pairs="1234" * 8)


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
    (problem,) = Plan(one.path).verify()
    assert "batches.arrow does not hold" in problem
    header = json.loads((two.path / "plan.json").read_text())
    (two.path / "plan.json").write_text(json.dumps({**header, "sub_block": 2}))
    assert "plan_id does not fit" in Plan(two.path).verify()[0]


def test_the_release_is_no_part_of_the_identity(tmp_path: Path) -> None:
    one, two = (make_plan(tmp_path / r, release=r) for r in ("1", "2"))
    assert one.plan_id == two.plan_id
    assert one.header["created_by"] != two.header["created_by"]
    assert two.verify() == []


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write an Arrow file anew, in two record batches."""
    table = change(pa.ipc.open_file(path.read_bytes()).read_all())
    path.unlink()  # an open plan keeps its map of the old file
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(1, table.num_rows // 2))


@pytest.mark.parametrize("name", ["pairs.arrow", "remainder.arrow"])
def test_verify_reads_the_tables_beside_the_batches(plan: Plan, name: str) -> None:
    def alter(table: pa.Table) -> pa.Table:
        column = {"pairs.arrow": "caption", "remainder.arrow": "reason"}[name]
        at, values = table.column_names.index(column), table.column(column).to_pylist()
        return table.set_column(at, column, pa.array(["altered", *values[1:]]))

    rewrite(plan.path / name, alter)
    assert plan.verify() == [f"{plan.path / name} does not hold what it was built with"]


@pytest.mark.parametrize("name", ["plan.json", "batches.arrow", "pairs.arrow", "remainder.arrow"])
def test_a_missing_file_is_a_problem_not_an_exception(plan: Plan, name: str) -> None:
    (plan.path / name).unlink()
    (problem,) = plan.verify()
    assert name in problem


def test_what_a_later_release_adds_is_ignored(plan: Plan) -> None:
    def add(table: pa.Table) -> pa.Table:
        return table.add_column(1, "later", pa.array([0.5] * table.num_rows))

    for name in ("batches.arrow", "pairs.arrow", "remainder.arrow"):
        rewrite(plan.path / name, add)
    header = json.loads((plan.path / "plan.json").read_text())
    for phase in header["phases"]:
        phase["mood"] = "calm"
    (plan.path / "plan.json").write_text(json.dumps({**header, "later": 1}))
    found = Plan(plan.path)
    assert found.phases == plan.phases
    assert found.pairs.schema.equals(PAIRS_SCHEMA)
    assert found.remainder.schema.equals(REMAINDER_SCHEMA)
    assert found.batches.content_hash() == plan.batches.content_hash()


@pytest.mark.parametrize("name", ["batches.arrow", "pairs.arrow"])
def test_a_known_column_of_another_type_is_refused(plan: Plan, name: str) -> None:
    column = {"batches.arrow": "epoch", "pairs.arrow": "image"}[name]

    def widen(table: pa.Table) -> pa.Table:
        at = table.column_names.index(column)
        return table.set_column(at, column, table.column(column).cast(pa.float64()))

    rewrite(plan.path / name, widen)
    with pytest.raises(FormatError, match=rf"{name}: column '{column}' is double, expected int"):
        assert Plan(plan.path).pairs
    rewrite(plan.path / name, lambda table: table.drop_columns([column]))
    with pytest.raises(FormatError, match=rf"{name}: no one column '{column}'"):
        assert Plan(plan.path).pairs


@pytest.mark.parametrize("step", [-1, 5])
def test_a_step_outside_the_plan_names_the_range(plan: Plan, step: int) -> None:
    aligned = plan.align(plan.pairs.column("pair_key").to_pylist())
    for ask in (plan.batch, plan.epoch_of, plan.phase_of, plan.node_of, aligned.batch):
        with pytest.raises(InputError, match=rf"batch {step}, expected 0 to 4"):
            ask(step)
    with pytest.raises(InputError, match=rf"batch {step}, expected 0 to 4"):
        plan.rank_rows(step, 0, 2)


def test_pairs_are_found_whatever_their_order_and_gaps(plan: Plan) -> None:
    pairs = np.array([117, 0, 3, 117])
    assert plan.rows(pairs).tolist() == [39, 0, 1, 39]
    assert plan.rows(np.array([], np.int64)).tolist() == []
    for number in (-3, 1, 118, 10**12):
        with pytest.raises(PlanMismatch, match=f"pairs {number} are not in the plan"):
            plan.rows(np.array([3, number]))


def test_a_batch_of_pairs_that_pairs_arrow_lacks_cannot_be_aligned(plan: Plan) -> None:
    keys = plan.pairs.column("pair_key").to_pylist()
    rewrite(plan.path / "pairs.arrow", lambda table: table.slice(1))
    with pytest.raises(PlanMismatch, match="pairs 0 are not in the plan"):
        Plan(plan.path).align(keys)


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
