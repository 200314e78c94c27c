"""The command line as a user meets it: help, answers, exit codes, and what it leaves alone."""

from __future__ import annotations

import csv
import io
import json
import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tonics.ontology import Ontology
from tonics.train.plan import Plan

REPOSITORY = Path(__file__).resolve().parent.parent.parent
Run = Callable[..., SimpleNamespace]


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file but locks, with its time of change and its bytes."""
    return {
        p.relative_to(folder).as_posix(): (p.stat().st_mtime_ns, p.read_bytes())
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.suffix != ".lock"
    }


# -- help

TOOL = runpy.run_path(str(REPOSITORY / "tools" / "command_reference.py"))
HELP = dict(TOOL["help_texts"]())


@pytest.mark.parametrize("name", HELP)
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    lines = HELP[name].splitlines()
    assert lines[0].startswith(f"Usage: {name} ")
    assert len(lines[2].strip()) > 10
    example = next(line.strip() for line in lines if line.strip().startswith("Example:"))
    words = example.removeprefix("Example: ").replace("-C my-dataset ", "").split()
    assert words[: len(name.split())] == name.split()
    for line in lines[lines.index("Options:") + 1 :]:
        assert re.match(r"  \S.*\S {2,}\S|   +\S|$|Commands:$", line), (
            f"an option says nothing: {line}"
        )


def test_all_commands_of_the_design_are_there() -> None:
    kinds = "ingest extract parse ontology embed plan train eval"
    for name in f"demo init assets run {kinds} status verify clean sql".split():
        assert f"tonics {name}" in HELP
    for name in (
        "show object",
        "show batch",
        "show image",
        "plans list",
        "runs list",
        "runs compare",
    ):
        assert f"tonics {name}" in HELP


def test_the_command_reference_is_up_to_date() -> None:
    page = (REPOSITORY / "docs" / "commands.md").read_text(encoding="utf-8")
    assert page == TOOL["reference"](), "docs/commands.md is stale: run 'make docs'"


def test_version_and_bare_call(run: Run) -> None:
    import tonics

    assert run("--version").out == f"tonics {tonics.__version__}\n"
    assert "Bring stages up to date" in run("--help").out


# -- exit codes


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["status"], 0, ""),
        (["run", "-n"], 0, ""),
        (["stauts"], 2, "stauts"),
        (["status", "--jsn"], 2, "--jsn"),
        (["show", "batch", "tonics", "x"], 2, "valid int"),
        (["show", "batch", "tonics", "84"], 2, "plan tonics: batch 84, expected 0 to 83"),
        (["show", "batch", "nope", "0"], 2, "plan: 'nope', expected one of ['random', 'tonics']"),
        (["show", "image", "nope.png"], 2, "image: 'nope.png', expected an image_id"),
        (["show", "object", "xyzzy"], 2, "xyzzy: no caption of this dataset mentions it"),
        (["sql", "SELECT * FROM nowhere"], 2, "sql: Catalog Error"),
        (["sql", "DROP TABLE pairs"], 2, "sql: a DROP statement, expected a SELECT"),
        (["sql", "COPY pairs TO 'out.csv'"], 2, "sql: a COPY statement"),
        (["sql", "SELECT 1; SELECT 2"], 2, "sql: 2 statements, expected one SELECT"),
        (["sql", "SELECT * FROM read_text('tonics.toml')"], 2, "disabled by configuration"),
        (["sql", "SET memory_limit = '99GB'"], 2, "sql: a SET statement"),
        (["sql", "SELECT 1", "-f", "xml"], 2, "xml"),
        (["run", "--rebuild", "nothing"], 2, "stage: 'nothing'"),
        (["extract", "vinvl"], 2, "did you mean"),
        (["sql", "SELECT sum(a.pair * e.pair) FROM pairs a, pairs b, pairs c, pairs d, pairs e",
          "--timeout", "0.2"], 2, "not answered within 0.2 s"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)  # fmt: skip
def test_exit_codes(
    run: Run,
    built: Path,
    words: list[str],
    code: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("-C", built, *words)
    assert done.code == code, done.err
    assert says in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out.csv").exists()


def test_a_failure_of_ours_is_not_the_users(run: Run, copy: Path) -> None:
    (copy / "ontology.duckdb").write_bytes(b"no database")
    done = run("-C", copy, "sql", "SELECT 1")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "does not open as a DuckDB database" in done.err


# -- running


def test_a_second_run_and_a_dry_run_change_nothing(run: Run, copy: Path) -> None:
    before = files(copy)
    dry = run("-C", copy, "run", "-n")
    assert dry.out == "everything is up to date\n"
    assert files(copy) == before
    again = run("-C", copy, "run", "--workers", "1")
    lines = [line for line in again.out.split("\n\n")[0].splitlines() if line]
    lines = [line for line in lines if not line.lstrip().startswith("note: ")]
    assert len(lines) == 12
    assert all("[up to date, " in line for line in lines)
    assert files(copy) == before


def test_a_dry_run_of_a_fresh_folder_writes_nothing(
    run: Run, draw: Callable[..., Path], tmp_path: Path
) -> None:
    folder = draw(tmp_path / "dataset", images=6)
    before = files(folder)
    done = run("-C", folder, "run", "-n", "--json")
    assert done.code == 0, done.err
    assert files(folder) == before
    rows = {row["key"]: row for row in json.loads(done.out)}
    assert (rows["ingest"]["why"], rows["ingest"]["shards"]) == ("not made yet", 1)
    assert (rows["extract/grid"]["rows"], rows["parse"]["rows"]) == (6, 18)
    assert rows["parse"]["why"] == "after ingest, where that changes its input"
    assert all(row["cpu_s"] >= 0 and not row["measured"] for row in rows.values())
    table = run("-C", folder, "run", "-n").out
    assert re.search(r"^ingest +6 .* not made yet$", table, re.M)
    assert "in all about" in table


def test_status_of_a_fresh_folder(run: Run, draw: Callable[..., Path], tmp_path: Path) -> None:
    folder = draw(tmp_path / "dataset", images=6)
    done = run("-C", folder, "status")
    assert done.code == 0
    assert re.search(r"^ingest +new +not made yet$", done.out, re.M)
    assert re.search(r"^eval/tonics +waiting +after train/tonics$", done.out, re.M)
    rows = json.loads(run("-C", folder, "status", "--json").out)
    assert [row["state"] for row in rows] == ["new"] + ["waiting"] * 11
    assert not (folder / ".tonics").exists()


def test_single_stages_run_in_order_and_name_their_inputs(
    run: Run, draw: Callable[..., Path], tmp_path: Path
) -> None:
    folder = draw(tmp_path / "dataset", images=6)
    refused = run("-C", folder, "embed", "captions")
    assert refused.code == 2
    assert "'tonics run embed/captions' brings its inputs up to date first" in refused.err
    done = run("-C", folder, "ingest", "--json")
    report = json.loads(done.out)[0]
    assert (report["key"], report["made"], report["fresh"]) == ("ingest", 1, False)
    assert (report["counts"]["in"], report["counts"]["images"]["out"]) == (18, 6)
    assert "18 in, 18 out, images: 6 in, 6 out [up to date" in run("-C", folder, "ingest").out


def test_rebuild_says_what_it_discards(run: Run, copy: Path) -> None:
    done = run("-C", copy, "run", "--rebuild", "plan/random", "--workers", "1")
    assert done.code == 0
    assert re.search(r"^plan/random: discards 1 finished shards \(\d", done.out, re.M)
    made = {line.split()[0] for line in done.out.splitlines() if re.search(r"\[\d+\.\d s,", line)}
    assert made == {"plan/random"}


def test_init_says_what_comes_next(run: Run, tmp_path: Path) -> None:
    done = run("init", tmp_path / "new", "--batch-size", "16")
    assert done.out == (
        f"wrote {tmp_path / 'new' / 'tonics.toml'}; look at it, then: "
        f"tonics -C {tmp_path / 'new'} run -n\n"
    )
    assert "batch_size = 16" in (tmp_path / "new" / "tonics.toml").read_text()
    assert run("init", tmp_path / "new").code == 2
    done = run("init", tmp_path / "other", "--features-only")
    there = f"tonics -C {tmp_path / 'other'}"
    assert f"then: {there} ingest, and {there} features import imported FILE" in done.out


# -- looking


def test_status_json_tells_counts(run: Run, built: Path) -> None:
    rows = {row["stage"]: row for row in json.loads(run("-C", built, "status", "--json").out)}
    assert {row["state"] for row in rows.values()} == {"done"}
    assert (rows["ingest"]["in"], rows["extract/grid"]["in"]) == (120, 40)
    assert rows["plan/tonics"]["ignored"] == rows["eval/tonics"]["out"] == 33
    assert rows["parse"]["cpu_s"] > 0


def test_plans_list(run: Run, built: Path) -> None:
    rows = {row["plan"]: row for row in json.loads(run("-C", built, "plans", "list", "--json").out)}
    plan = Plan(built / "plans" / "tonics")
    assert rows["tonics"]["batches"] == len(plan)
    assert rows["tonics"]["placed"] == len(plan) * 4
    assert rows["tonics"]["mean"] == plan.quality["plan"]["mean"]
    assert rows["random"]["top1"] is None  # no vectors, no figures
    assert "tonics" in run("-C", built, "plans", "list").out


def test_sql_in_every_format(run: Run, built: Path) -> None:
    query = "SELECT pair, caption FROM pairs ORDER BY pair LIMIT 2"
    rows = [{"pair": 0, "caption": "A red dog on the grass."}]
    rows += [{"pair": 1, "caption": "The dog number 0 beside a ball"}]
    assert json.loads(run("-C", built, "sql", query, "-f", "json").out) == rows
    found = list(csv.DictReader(io.StringIO(run("-C", built, "sql", query, "-f", "csv").out)))
    assert [{**row, "pair": int(row["pair"])} for row in found] == rows
    assert run("-C", built, "sql", query).out.splitlines() == [
        "pair  caption",
        "----  ------------------------------",
        "   0  A red dog on the grass.",
        "   1  The dog number 0 beside a ball",
    ]


def test_sql_with_equal_column_names_no_rows_and_no_numbers(run: Run, built: Path) -> None:
    join = "SELECT * FROM (SELECT 1 AS a, 'x' AS b) JOIN (SELECT 1 AS a) ON true"
    assert json.loads(run("-C", built, "sql", join, "-f", "json").out) == [
        {"a": 1, "b": "x", "a_1": 1}
    ]
    assert "a_1" in run("-C", built, "sql", join).out
    none = "SELECT pair FROM pairs WHERE false"
    assert json.loads(run("-C", built, "sql", none, "-f", "json").out) == []
    assert run("-C", built, "sql", none).out == "pair\n----\n0 rows\n"
    odd = "SELECT 'nan'::FLOAT AS a, [1.5, 'inf'::DOUBLE] AS b, NULL AS c"
    text = run("-C", built, "sql", odd, "-f", "json").out
    found = json.loads(text, parse_constant=lambda word: pytest.fail(f"not JSON: {word}"))
    assert found == [{"a": None, "b": [1.5, None], "c": None}]


def test_sql_macros_and_hostile_text(run: Run, built: Path) -> None:
    found = json.loads(
        run("-C", built, "sql", "SELECT * FROM pairs_of('dog.n.01')", "-f", "json").out
    )
    assert len(found) == 24
    assert all("dog" in row["caption"] for row in found)
    hostile = run("-C", built, "sql", "SELECT chr(27) || '[31mred' AS t, '[b]x[/b]' AS u").out
    assert "\x1b" not in hostile
    assert "[b]x[/b]" in hostile


def test_show_object(run: Run, built: Path) -> None:
    out = run("-C", built, "show", "object", "dog").out
    assert out.startswith("dog.n.01: a member of the genus Canis")
    assert re.search(r"^path: entity\.n\.01 > .* > dog\.n\.01$", out, re.M)
    assert "16 images, 24 pairs in its subtree" in out
    captions = out.partition("captions:\n")[2].splitlines()
    assert len(captions) == 10
    assert all("[dog]" in caption for caption in captions)
    assert run("-C", built, "show", "object", "dog.n.01").out == out


def test_show_object_lists_what_is_below(run: Run, built: Path) -> None:
    out = run("-C", built, "show", "object", "entity").out
    assert re.search(r"below it +images +pairs", out)


def test_show_batch_marks_the_shared_noun_in_every_caption(run: Run, built: Path) -> None:
    plan = Plan(built / "plans" / "tonics")
    shown = 0
    for step in range(len(plan)):
        if not plan.node_of(step) or shown == 5:
            continue
        shown += 1
        lines = run("-C", built, "show", "batch", "tonics", step).out.splitlines()
        assert lines[0] == (
            f"batch {step} of 84: epoch {plan.epoch_of(step)}, phase ontology leaves, "
            f"every pair about {plan.node_of(step)}"
        )
        with Ontology(built / "ontology.duckdb") as ontology:
            words = {row["surface"] for row in ontology.query(
                "SELECT DISTINCT surface FROM mentions m JOIN closure c ON c.descendant = m.synset "
                "WHERE c.ancestor = ?", [plan.node_of(step)]).to_pylist()}  # fmt: skip
        captions = lines[2:]
        assert len(captions) == plan.batch_size
        for line in captions:
            marked = re.findall(r"\[([^]]+)\]", line)
            assert marked, line
            assert set(marked) <= words
    assert shown == 5


def test_show_a_mixed_batch(run: Run, built: Path) -> None:
    lines = run("-C", built, "show", "batch", "random", 0).out.splitlines()
    assert lines[0].endswith("phase random, no common object")
    plan = Plan(built / "plans" / "random")
    assert [line[32:] for line in lines[2:]] == list(plan.captions_of(plan.batch(0)))


def test_show_image(run: Run, built: Path) -> None:
    out = run("-C", built, "show", "image", "003.png").out
    assert out.startswith("image 3 (003.png): 003.png, 96 x 72, ")
    assert re.search(r"^  003\.png#1 \[(train|test)\]  The bus number 3 beside a dog$", out, re.M)
    assert re.search(r"^features/grid: \d+ regions of 1280 numbers; the best:$", out, re.M)
    scores = [float(x) for x in re.findall(r"  (0\.\d+)  [\d ]+$", out, re.M)]
    assert len(scores) == 10
    assert scores == sorted(scores, reverse=True)


# -- verify and clean


def test_verify_names_a_flipped_byte_and_run_restores_it(run: Run, copy: Path) -> None:
    assert "files of 12 stages are as they were written" in run("-C", copy, "verify").out
    before = {name: data for name, (_, data) in files(copy).items() if "/manifests/" not in name}
    targets = ["features/grid/00001.arrow", "plans/random/batches.arrow"]
    for name in targets:
        data = bytearray((copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / name).write_bytes(data)
    done = run("-C", copy, "verify")
    assert done.code == 1
    assert "2 problems; 2 deleted, 0 kept; 'tonics run' makes just the damaged" in done.err
    for name in targets:
        assert f": {name} was altered\n" in done.out
    assert re.search(r"00001\.arrow: batch 0: image \d+ was altered", done.out)
    again = run("-C", copy, "run", "--workers", "1")
    assert again.code == 0, again.err
    after = {name: data for name, (_, data) in files(copy).items() if "/manifests/" not in name}
    assert after == before
    assert run("-C", copy, "verify").code == 0


def test_clean_deletes_leftovers_and_lists_what_is_unnamed(run: Run, copy: Path) -> None:
    (copy / "features" / "grid" / "00009.arrow.77.tmp").write_bytes(b"half")
    (copy / "plans" / "tonics.77.tmp").mkdir()
    text = (copy / "tonics.toml").read_text()
    start = text.index("[plans.random]")
    (copy / "tonics.toml").write_text(text[:start] + text[text.index("[plans.tonics]") :])
    (copy / "features" / "old").mkdir()
    (copy / "features" / "old" / "00000.arrow").write_bytes(b"x" * 1500)
    done = run("-C", copy, "clean")
    assert done.out.splitlines()[0] == "2 half-written files deleted"
    assert "features/old (1.5 kB) is not named in tonics.toml; --unnamed deletes it" in done.out
    assert re.search(r"^plans/random \(.* kB\) is not named", done.out, re.M)
    assert list(copy.rglob("*.tmp")) == []
    assert (copy / "plans" / "random").exists()
    done = run("-C", copy, "clean", "--unnamed")
    assert "features/old (1.5 kB) deleted" in done.out
    assert not (copy / "plans" / "random").exists()
    assert not (copy / ".tonics" / "manifests" / "plan" / "random").exists()
    assert (copy / "plans" / "tonics").exists()
    assert run("-C", copy, "clean", "--unnamed").out == "0 half-written files deleted\n"
    assert run("-C", copy, "run", "-n").out == "everything is up to date\n"


def test_clean_leaves_a_running_build_alone(run: Run, copy: Path) -> None:
    from tonics.pipeline.lock import locked

    tmp = copy / "nouns" / "00009.parquet.77.tmp"
    tmp.write_bytes(b"half")
    with locked(copy / ".tonics" / "locks" / "parse.lock", "parse"):
        done = run("-C", copy, "clean")
    assert (done.code, tmp.exists()) == (1, True)
    assert "another run is at work on it" in done.err


def test_rejected_inputs_are_said_in_the_closing_line(
    run: Run, draw: Callable[..., Path], tmp_path: Path
) -> None:
    folder = draw(tmp_path / "dataset", images=6)
    (folder / "images" / "003.png").unlink()
    out = run("-C", folder, "ingest").out
    assert "3 rejected (3 its image was rejected)" in out
    assert "images: 6 in, 5 out, rejected: 1 image not found" in out
    rows: list[dict[str, Any]] = json.loads(run("-C", folder, "status", "--json").out)
    assert rows[0]["rejected"] == 3
    shutil.rmtree(folder / "rejected")
    assert "rejected/ingest" in json.loads(run("-C", folder, "status", "--json").out)[0]["why"]


def test_a_run_whose_plan_changed_is_kept_and_said(copy: Path, run: Run) -> None:
    config = copy / "tonics.toml"
    config.write_text(config.read_text().replace("epochs = 4", "epochs = 6"))
    weights = (copy / "runs/tonics/model.safetensors").read_bytes()
    assert "NEEDS --rebuild" not in run("-C", copy, "run", "-n").out  # only known after the plan
    done = run("-C", copy, "run")
    assert done.code == 0
    assert "train/tonics     kept as it is: 1 of 1 finished shards" in done.out
    assert "'tonics run --rebuild train' trains anew" in done.out
    assert (copy / "runs/tonics/model.safetensors").read_bytes() == weights
    forecast = run("-C", copy, "run", "-n").out
    assert "NEEDS --rebuild train/tonics: plan changed" in forecast
    assert run("-C", copy, "run", "train").code == 2
    assert run("-C", copy, "run", "--rebuild", "train").code == 0
    assert (copy / "runs/tonics/model.safetensors").read_bytes() != weights
    assert run("-C", copy, "run", "-n").out == "everything is up to date\n"


def test_what_would_be_refused_is_refused_before_anything_runs(copy: Path, run: Run) -> None:
    config = copy / "tonics.toml"
    text = config.read_text().replace("min_images = 4", "min_images = 3")
    config.write_text(text.replace("shard_images = 16", "shard_images = 20"))
    before = (copy / "ontology.duckdb").stat().st_mtime_ns
    done = run("-C", copy, "run")
    assert done.code == 2
    assert "finished shards" in done.err
    assert (copy / "ontology.duckdb").stat().st_mtime_ns == before


def test_verify_leaves_the_tables_that_hold_the_numbers(copy: Path, run: Run) -> None:
    file = copy / "pairs.parquet"
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    done = run("-C", copy, "verify")
    assert done.code == 1
    assert "restore images.parquet and pairs.parquet from a copy" in done.out
    assert "verify: 1 problem; 0 deleted, 1 kept\n" in done.err
    assert file.read_bytes() == bytes(data)


def test_show_rejected_lists_reasons_with_examples(
    tmp_path: Path, draw: Callable[..., Path], run: Run
) -> None:
    folder = draw(tmp_path / "dataset", images=8)
    assert run("-C", folder, "show", "rejected").out == "nothing was rejected\n"
    (folder / "images" / "003.png").unlink()
    run("-C", folder, "ingest")
    out = run("-C", folder, "show", "rejected", "ingest").out
    assert "its image was rejected" in out
    assert "003.png" in out


def test_status_says_who_is_running(copy: Path, run: Run) -> None:
    from tonics.pipeline.lock import locked

    with locked(copy / ".tonics/locks/parse.lock", "parse"):
        rows = {r["stage"]: r for r in json.loads(run("-C", copy, "status", "--json").out)}
    assert rows["parse"]["state"] == "running"


def test_clean_leaves_the_users_own_files(copy: Path, run: Run) -> None:
    (copy / "images" / "holiday.tmp").write_text("mine")
    (copy / "images" / "a.7.tmp").write_text("mine too")
    (copy / "plans" / "tonics.77.tmp").mkdir()
    assert run("-C", copy, "clean").out.startswith("1 half-written files deleted")
    assert (copy / "images" / "holiday.tmp").exists()
    assert (copy / "images" / "a.7.tmp").exists()
