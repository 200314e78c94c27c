"""Plans as tables: out to people without TOnICS, and in from people with batches of their own."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tonics import __version__
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.plans.exchange import table
from tonics.train.plan import Plan
from tonics.train.plan_files import plan_id_of

Run = Callable[..., SimpleNamespace]

SECTION = '[plans.theirs]\ncurriculum = "import"\nbatch_size = 4\nembeddings = "captions"\n'
TRAINED = """
[runs.theirs]
plan = "theirs"
embeddings = "captions"
train = { embedding_dim = 16, hidden = 16, steps = 3 }
"""


@pytest.fixture
def waiting(copy: Path) -> Path:
    """A copy of the tiny dataset with a plan to be imported."""
    with (copy / "tonics.toml").open("a") as file:
        file.write(SECTION)
    return copy


def export(run: Run, folder: Path, file: Path, *options: str) -> Path:
    done = run("-C", folder, "plans", "export", "tonics", file, *options)
    assert done.code == 0, done.err
    return file


def rewritten(file: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Path:
    """The same table with other rows."""
    rows = change(pq.read_table(file).to_pylist())
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


def keys_of(plan: Plan, step: int) -> list[str]:
    rows = pa.array(plan.rows(plan.batch(step)))
    return plan.pairs.column("pair_key").take(rows).to_pylist()


# -- export ----------------------------------------------------------------------------------------


def test_an_export_is_a_plain_table(
    built: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "ROWS_AT_ONCE", 10)
    file = tmp_path / "out.parquet"
    done = run("-C", built, "plans", "export", "tonics", file)
    plan = Plan(built / "plans" / "tonics")
    rows, size = plan.batches.pairs.size, file.stat().st_size
    assert done.code == 0, done.err
    assert done.out.startswith(f"wrote {file}: {len(plan)} batches, {rows} rows, ")
    found = pq.ParquetFile(file)
    assert found.schema_arrow.remove_metadata() == table.SCHEMA
    groups = [found.metadata.row_group(i).num_rows for i in range(found.num_row_groups)]
    assert len(groups) > 10
    assert {n % plan.batch_size for n in groups} == {0}
    assert max(groups) <= 10
    said = {k.decode(): v.decode() for k, v in found.schema_arrow.metadata.items()}
    columns = json.loads(said.pop("tonics.columns"))
    assert list(columns) == table.SCHEMA.names
    assert said == {
        "tonics.plan_id": plan.plan_id,
        "tonics.batch_size": "4",
        "tonics.batches": str(len(plan)),
        "tonics.created_by": f"tonics {__version__}",
    }
    got = found.read().to_pydict()
    assert got["batch"] == np.repeat(np.arange(len(plan)), 4).tolist()
    assert got["position"] == [0, 1, 2, 3] * len(plan)
    keys = [key for step in range(len(plan)) for key in keys_of(plan, step)]
    assert got["pair_key"] == keys
    assert got["image_id"] == [key.partition("#")[0] for key in keys]
    assert size == file.stat().st_size


def test_an_export_overwrites_nothing_unasked(built: Path, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "out.parquet"
    file.write_text("precious")
    done = run("-C", built, "plans", "export", "tonics", file)
    assert done.code == 2
    assert "out.parquet: exists already; name another file, or add --force" in done.err
    assert file.read_text() == "precious"
    export(run, built, file, "--force")
    assert pq.read_metadata(file).num_rows > 0
    assert [p.name for p in tmp_path.iterdir()] == ["out.parquet"]


REFUSED = [
    ("tonics", "out.csv", "out.csv: not a name in .parquet; write out.parquet"),
    ("tonic", "out.parquet", "plan: 'tonic', expected one of ['random', 'tonics']"),
    ("tonics", "no/out.parquet", "no: no such folder; make it first"),
    ("tonics", "DATASET/pairs.parquet", "pairs.parquet: a file of the dataset itself"),
    ("tonics", "DATASET/plans/a.parquet", "a.parquet: a file of the dataset itself"),
]


@pytest.mark.parametrize(("name", "file", "says"), REFUSED)
def test_an_export_that_cannot_be_is_refused(
    built: Path, run: Run, tmp_path: Path, name: str, file: str, says: str
) -> None:
    path = Path(file.replace("DATASET", str(built))) if "DATASET" in file else tmp_path / file
    done = run("-C", built, "plans", "export", name, path, "--force")
    assert done.code == 2
    assert says in done.err
    assert list(tmp_path.iterdir()) == []


# -- import ----------------------------------------------------------------------------------------


def test_there_and_back_again(waiting: Path, run: Run, tmp_path: Path) -> None:
    """The same batches in the same order, measured alike, and trained on."""
    file = export(run, waiting, tmp_path / "out.parquet", "--epochs")
    with (waiting / "tonics.toml").open("a") as config:
        config.write(TRAINED)
    done = run("-C", waiting, "plans", "import", "theirs", file)
    assert done.code == 0, done.err
    assert done.out.startswith("plan/theirs ")
    file.unlink()
    ours, theirs = (Plan(waiting / "plans" / name) for name in ("tonics", "theirs"))
    np.testing.assert_array_equal(theirs.batches.pairs, ours.batches.pairs)
    np.testing.assert_array_equal(theirs.batches.epoch, ours.batches.epoch)
    assert theirs.pairs.equals(ours.pairs)
    for figure in ("top1", "mean", "suspects"):
        assert theirs.quality["plan"][figure] == ours.quality["plan"][figure]
    assert [phase["name"] for phase in theirs.quality["phases"]] == ["import"]
    assert theirs.inputs["pairs"] == ours.inputs["pairs"]
    assert theirs.epochs == ours.epochs == 4
    assert [(p.name, p.builder, p.epochs) for p in theirs.phases] == [("import", "import", 4)]
    assert theirs.verify() == []
    assert plan_id_of(theirs.header) == theirs.plan_id
    trained = run("-C", waiting, "train", "theirs")
    assert trained.code == 0, trained.err
    assert "3 out" in trained.out


def test_without_epochs_all_is_one(waiting: Path, run: Run, tmp_path: Path) -> None:
    file = export(run, waiting, tmp_path / "out.parquet")
    assert run("-C", waiting, "plans", "import", "theirs", file).code == 0
    plan = Plan(waiting / "plans" / "theirs")
    assert plan.epochs == 1
    assert plan.epoch_range(0) == range(len(plan))
    again = export_of(run, waiting, tmp_path / "again.parquet")
    assert again.equals(pq.read_table(file))  # of another plan_id, of the same batches


def export_of(run: Run, folder: Path, file: Path) -> pa.Table:
    assert run("-C", folder, "plans", "export", "theirs", file).code == 0
    return pq.read_table(file)


def test_a_plan_waits_for_its_import(waiting: Path, run: Run) -> None:
    says = "plans.theirs: nothing imported yet; run 'tonics plans import theirs FILE'"
    for command in (["plan", "theirs"], ["run"], ["run", "plan/theirs"]):
        done = run("-C", waiting, *command)
        assert (done.code, done.err) == (2, f"tonics: {says}\n")
    dry = run("-C", waiting, "run", "-n")
    assert dry.code == 0
    assert "plan/theirs waits for 'tonics plans import theirs FILE'" in dry.out
    assert run("-C", waiting, "plan", "tonics").code == 0


def test_the_section_must_be_there_and_fit(copy: Path, run: Run, tmp_path: Path) -> None:
    file = export(run, copy, tmp_path / "out.parquet")

    def refused(section: str, name: str = "theirs") -> str:
        config = (copy / "tonics.toml").read_text()
        (copy / "tonics.toml").write_text(config + section)
        done = run("-C", copy, "plans", "import", name, file)
        (copy / "tonics.toml").write_text(config)
        assert done.code == 2
        assert not list(copy.glob("*plan*/theirs"))
        assert not list((copy / ".tonics").rglob("imported.parquet*"))
        return str(done.err)

    assert (
        "plans.theirs: no such section; add the line [plans.theirs], and below it "
        'curriculum = "import" and batch_size = 4, each on a line' in refused("")
    )
    says = "plans.random: curriculum = '', expected curriculum = 'import'; give the imported"
    assert says in refused("", "random")
    says = "batch_size: value 8, and the batches of .*out.parquet hold 4 pairs; set batch_size = 4"
    assert re.search(says, refused(SECTION.replace("= 4", "= 8")))
    says = "plans.theirs.epochs: set, and the batches of 'theirs' are imported as they are; take it"
    assert says in refused(SECTION + "epochs = 3\n")
    assert "plans.theirs.world_size: 3 processes for" in refused(SECTION + "world_size = 3\n")
    assert "plans.theirs.phases: set, and" in refused(SECTION + "phases = [{builder='import'}]\n")


def test_import_is_no_builder(copy: Path, run: Run) -> None:
    config = (copy / "tonics.toml").read_text()
    (copy / "tonics.toml").write_text(config + "[plans.p]\nphases = [{ builder = 'import' }]\n")
    done = run("-C", copy, "plan", "p")
    assert "builder: value 'import', expected one of random, ontology" in done.err
    (copy / "tonics.toml").write_text(config + "[plans.p]\ncurriculum = 'imported'\n")
    assert "adaptive, import" in run("-C", copy, "plan", "p").err


def test_inputs_must_be_ready(waiting: Path, run: Run, tmp_path: Path) -> None:
    file = export(run, waiting, tmp_path / "out.parquet")
    shutil.rmtree(waiting / ".tonics" / "manifests" / "embed")
    done = run("-C", waiting, "plans", "import", "theirs", file)
    assert done.code == 2
    assert "plan/theirs: its input embed/captions is out of date" in done.err
    assert "; run 'tonics run ingest extract/grid embed/captions' first" in done.err


def test_a_refused_import_leaves_the_last_one(waiting: Path, run: Run, tmp_path: Path) -> None:
    file = export(run, waiting, tmp_path / "out.parquet")
    assert run("-C", waiting, "plans", "import", "theirs", file).code == 0
    before = Plan(waiting / "plans" / "theirs").plan_id
    held_out = pq.read_table(waiting / "evaluation" / "test.parquet").column("pair")[0].as_py()
    key = Dataset.open(waiting).pairs().column("pair_key")[held_out].as_py()

    def sneak(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**rows[0], "pair_key": key, "image_id": key.partition("#")[0]}, *rows[1:]]

    done = run("-C", waiting, "plans", "import", "theirs", rewritten(file, sneak))
    assert done.code == 2
    assert f"1 pairs that are not of split 'train': '{key} (test)', expected pairs of" in done.err
    assert Plan(waiting / "plans" / "theirs").plan_id == before
    assert run("-C", waiting, "plan", "theirs").out.count("up to date") == 1


def test_other_batches_replace_only_when_asked(waiting: Path, run: Run, tmp_path: Path) -> None:
    file = export(run, waiting, tmp_path / "out.parquet")
    for _ in range(2):  # the same again is no loss
        assert run("-C", waiting, "plans", "import", "theirs", file).code == 0
    first = Plan(waiting / "plans" / "theirs").plan_id
    rewritten(file, lambda rows: rows[4:])
    done = run("-C", waiting, "plans", "import", "theirs", file)
    assert done.code == 2
    assert "plans/theirs: is made of other batches, of out.parquet; --replace forgets" in done.err
    assert Plan(waiting / "plans" / "theirs").plan_id == first
    done = run("-C", waiting, "plans", "import", "theirs", file, "--replace", "--json")
    assert json.loads(done.out)[0]["counts"]["epochs"] == 1
    assert Plan(waiting / "plans" / "theirs").plan_id != first


def test_batches_left_out_are_counted_and_kept(waiting: Path, run: Run, tmp_path: Path) -> None:
    file = export(run, waiting, tmp_path / "out.parquet")

    def spoil(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        other = rows[8]["pair_key"][:-1] + str((int(rows[8]["pair_key"][-1]) + 1) % 3)
        return [*rows[:9], {**rows[8], "position": 1, "pair_key": other}, *rows[10:]]

    rewritten(file, spoil)
    total = pq.read_metadata(file).num_rows // 4
    done = run("-C", waiting, "plans", "import", "theirs", file)
    assert done.code == 2
    says = rf"1 of {total} batches hold an image \(1\) or a caption \(0\) twice: batch 2: "
    assert re.search(says, done.err)
    assert not (waiting / "plans" / "theirs").exists()
    done = run("-C", waiting, "plans", "import", "theirs", file, "--drop-conflicts")
    assert done.code == 0, done.err
    assert "1 rejected (1 batch with an image twice)" in done.out
    assert f"note: 1 of {total} batches of out.parquet left out: see 'tonics show rej" in done.out
    assert len(Plan(waiting / "plans" / "theirs")) == total - 1
    shown = run("-C", waiting, "show", "rejected", "plan/theirs").out
    assert "batch 2" in shown
    assert "batch with an image twice" in shown


def test_the_copy_outlives_cleaning_and_is_verified(
    waiting: Path, run: Run, tmp_path: Path
) -> None:
    file = export(run, waiting, tmp_path / "out.parquet")
    assert run("-C", waiting, "plans", "import", "theirs", file).code == 0
    file.unlink()
    assert run("-C", waiting, "clean", "--unnamed").code == 0
    assert run("-C", waiting, "verify").code == 0
    before = Plan(waiting / "plans" / "theirs").plan_id
    shutil.rmtree(waiting / "plans" / "theirs")
    assert run("-C", waiting, "plan", "theirs").code == 0
    assert Plan(waiting / "plans" / "theirs").plan_id == before

    batches = waiting / "plans" / "theirs" / "batches.arrow"
    damage(batches)
    verified = run("-C", waiting, "verify")
    assert "1 problem; 1 deleted, 0 kept" in verified.err
    assert run("-C", waiting, "plan", "theirs").code == 0
    assert Plan(waiting / "plans" / "theirs").plan_id == before

    damage(waiting / ".tonics" / "manifests" / "plan" / "theirs" / "imported.parquet")
    verified = run("-C", waiting, "verify")
    assert "1 problem; 0 deleted, 1 kept" in verified.err
    assert "'tonics plans import theirs FILE' brings it anew" in verified.out
    assert len(Plan(waiting / "plans" / "theirs")) > 0


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 3
    data[middle : middle + 8] = bytes(b ^ 255 for b in data[middle : middle + 8])
    path.write_bytes(data)


def test_a_copy_that_is_gone_can_be_had_from_the_plan(
    waiting: Path, run: Run, tmp_path: Path
) -> None:
    file = export(run, waiting, tmp_path / "out.parquet")
    assert run("-C", waiting, "plans", "import", "theirs", file).code == 0
    kept = waiting / ".tonics" / "manifests" / "plan" / "theirs" / "imported.parquet"
    kept.unlink()
    done = run("-C", waiting, "plan", "theirs")
    assert done.code == 2
    assert "imported.parquet is gone; run 'tonics plans import theirs FILE'" in done.err
    again = tmp_path / "again.parquet"
    assert run("-C", waiting, "plans", "export", "theirs", again).code == 0
    assert run("-C", waiting, "plans", "import", "theirs", again).code == 0


def test_a_rebuilt_dataset_checks_its_batches_anew(waiting: Path, run: Run, tmp_path: Path) -> None:
    """Pairs are known by their keys; one that left its source is used no more."""
    file = export(run, waiting, tmp_path / "out.parquet")
    assert run("-C", waiting, "plans", "import", "theirs", file).code == 0
    captions = waiting / "captions.jsonl"
    lines = captions.read_text().splitlines()
    captions.write_text("\n".join([*lines, '{"image": "003.png", "captions": ["More"]}']) + "\n")
    todo = ["ingest", "extract/grid", "embed/captions", "plan/theirs"]
    assert run("-C", waiting, "run", *todo, "-q").code == 0
    new, old = Plan(waiting / "plans" / "theirs"), Plan(waiting / "plans" / "tonics")
    np.testing.assert_array_equal(new.batches.pairs, old.batches.pairs)
    assert new.pairs.num_rows == old.pairs.num_rows + 1
    used = keys_of(new, 0)[0]
    keep = [line for line in lines if json.loads(line)["image"] != used.partition("#")[0]]
    captions.write_text("\n".join(keep) + "\n")
    done = run("-C", waiting, "run", *todo, "-q")
    assert done.code == 2
    assert "pairs that are not of split 'train'" in done.err
    assert f"'{used} (withdrawn)'" in done.err
