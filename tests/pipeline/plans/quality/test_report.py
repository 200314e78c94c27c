"""The table that ``tonics plan NAME`` ends with."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tonics.artifact import read_json, write_json
from tonics.pipeline.plans.quality.report import about, format_quality
from tonics.train.plan import Plan

Run = Callable[..., SimpleNamespace]


def row(out: str, start: str, table: str) -> list[str]:
    """The cells of the line that starts so, in the table whose first column is called so."""
    text = out[re.search(rf"^{table} ", out, re.M).start() :]  # type: ignore[union-attr]
    (line,) = [x for x in text.split("\n\n")[0].splitlines() if x.startswith(start + "  ")]
    return line[len(start) :].split()


def test_a_finished_plan_shows_its_table(run: Run, planned: Path) -> None:
    out = run("-C", planned, "plan", "mixed", "--quiet").out
    lines = out.splitlines()
    assert re.match(r"plan/mixed .*\[up to date, ", lines[0])
    plan = Plan(planned / "plans" / "mixed")
    quality = plan.quality
    assert f"plan mixed: {len(plan)} batches of 8 in 3 epochs, over 87 pairs of 29 images" in lines
    names = {"whole plan": "plan", "a random plan": "random"}
    sides = {shown: quality[key] for shown, key in names.items()}
    sides |= {f"- {phase['name']}": phase for phase in quality["phases"]}
    for shown, figures in sides.items():
        cells = row(out, shown, "similarity")
        assert cells[:2] == [f"{figures['top1']:.3f}", f"{figures['mean']:.3f}"]
        assert cells[2] == f"{figures['suspects']:.1%}"
        assert float(cells[5]) == figures["objects"]
        seen = [figures[f"seen_{times}"] for times in ("never", "once", "more")]
        counts = [figures["epochs"], figures["batches"], *seen, figures["placed"]]
        cells = row(out, shown, "pairs")
        assert [int(cell) for cell in cells] == [*counts, sum(figures["left_out"].values())]
    assert re.search(r"^groups by depth of their object: \d", out, re.M)
    first = quality["hardest"][0]
    assert re.search(rf"^ *{first['step']}  {first['top1']:.3f}  \S", out, re.M)
    for note in quality["warnings"]:
        assert out.count(note) == 1


def test_a_plan_without_vectors_says_how_to_get_them(run: Run, planned: Path) -> None:
    out = run("-C", planned, "plan", "random").out
    assert "set embeddings of the plan in tonics.toml" in out
    assert "caption top1" not in out
    assert "hardest" not in out
    assert "image top1" in out
    single = row(out, "random", "pairs")  # one phase is the whole plan
    assert single[1] == str(len(Plan(planned / "plans" / "random")))


def test_programs_get_the_whole_report(run: Run, planned: Path) -> None:
    (found,) = json.loads(run("-C", planned, "plan", "mixed", "--json").out)
    assert found["key"] == "plan/mixed"
    assert found["quality"] == read_json(planned / "plans" / "mixed" / "quality.json")


def test_a_run_of_everything_shows_lines_alone(run: Run, planned: Path) -> None:
    out = run("-C", planned, "run", "plan").out
    assert "plan/tonics " in out
    assert "caption top1" not in out
    (report,) = [r for r in json.loads(run("-C", planned, "run", "plan/tonics", "--json").out)
                 if r["key"] == "plan/tonics"]  # fmt: skip
    assert "quality" not in report


def test_warnings_are_notes_of_the_stage(run: Run, copy: Path) -> None:
    """Random batches under another name would change nothing: they are inert."""
    text = (copy / "tonics.toml").read_text()
    text += "[plans.flat]\nbatch_size = 8\nepochs = 1\nembeddings = 'captions'\npasses = 1\n"
    text += "phases = [{ builder = 'ontology', params = { depth = 0 } }]\n"
    (copy / "tonics.toml").write_text(text)
    out = run("-C", copy, "run", "plan/flat").out
    notes = re.findall(r"^ +note: (.*)$", out, re.M)
    quality = Plan(copy / "plans" / "flat").quality
    assert notes[-2:] == quality["warnings"]
    assert re.search(r"pairs \(\d+%\) are in no batch \(of a random plan \d+\)", notes[-2])
    assert notes[-1].startswith("phase ontology depth 0: captions are hardly nearer")
    table = run("-C", copy, "plan", "flat").out
    assert re.findall(r"^ *note: (.*)$", table, re.M) == notes


def test_a_report_of_another_release_is_not_guessed_at(
    run: Run, planned: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(planned, tmp_path / "dataset"))
    old = {"batches_measured": 3, "plan": {"top1": 0.5}, "random": {"top1": 0.4}}
    write_json(folder / "plans" / "mixed" / "quality.json", old)
    text = format_quality("mixed", Plan(folder / "plans" / "mixed"))
    assert text.endswith("release: 'tonics run --rebuild plan/mixed' measures it")
    assert json.loads(run("-C", folder, "plans", "list", "--json").out)[0]["top1"] == 0.5


@pytest.mark.parametrize(
    ("node", "groups", "said"),
    [
        ("", [], "leaves"),
        ("hot_dog.n.02", [], "hot dog"),
        ("", ["dog.n.01", ""], "dog, ?"),
        ("", ["", ""], "leaves"),
        ("", ["dog.n.01"] * 12, "dog, dog, dog, dog, dog, dog, dog, dog, dog, do…"),
    ],
)
def test_what_a_batch_is_about(node: str, groups: list[str], said: str) -> None:
    assert about({"phase": "leaves", "node": node, "groups": groups}) == said
