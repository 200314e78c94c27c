"""``tonics show batch`` of batches of groups; those of one object are in test_cli.py."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tonics.ontology import Ontology
from tonics.pipeline import show
from tonics.train.plan import Plan

Run = Callable[..., SimpleNamespace]


@pytest.fixture
def plan(planned: Path) -> Plan:
    return Plan(planned / "plans" / "mixed")


def steps(plan: Plan, builder: str) -> list[int]:
    return np.flatnonzero(
        [plan.phases[phase].builder == builder for phase in plan.batches.phase]
    ).tolist()


def test_groups_stand_under_their_objects(run: Run, planned: Path, plan: Plan) -> None:
    for step in steps(plan, "communities")[:3]:
        groups = plan.groups_of(step)
        lines = run("-C", planned, "show", "batch", "mixed", step).out.splitlines()
        epoch = plan.epoch_of(step)
        assert lines[0] == f"batch {step} of {len(plan)}: epoch {epoch}, phase communities"
        named = ", ".join(node or "no common object" for node in groups)
        assert lines[1] == f"2 groups of 4: {named}"
        assert lines[2] == lines[8] == ""
        for number, node in enumerate(groups):
            heading, *captions = lines[3 + 6 * number : 8 + 6 * number]
            assert heading == (f"4 x {node}" if node else "4 alike, no common object")
            wanted = plan.captions_of(plan.batch(step)[4 * number : 4 * number + 4])
            said = [re.sub(r"[\[\]]", "", line[32:]) for line in captions]
            assert said == wanted
            assert all(("[" in line) == bool(node) for line in captions)


def test_the_marked_noun_is_of_the_groups_object(run: Run, planned: Path, plan: Plan) -> None:
    step = steps(plan, "communities")[0]
    found = json.loads(run("-C", planned, "show", "batch", "mixed", step, "--json").out)
    assert found["groups"] == plan.groups_of(step)
    assert any(found["groups"])
    assert [pair["pair"] for pair in found["pairs"]] == plan.batch(step).tolist()
    assert [pair["group"] for pair in found["pairs"]] == [0] * 4 + [1] * 4
    with Ontology(planned / "ontology.duckdb") as ontology:
        for pair in found["pairs"]:
            node = found["groups"][pair["group"]]
            spans = ontology.spans(node, [pair["pair"]])[pair["pair"]] if node else []
            assert [tuple(span) for span in pair["spans"]] == spans


def test_a_batch_of_nothing_in_common_opens_no_database(
    run: Run, planned: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show, "open_ontology", lambda dataset: pytest.fail("opened"))
    step = steps(plan, "random")[0]
    out = run("-C", planned, "show", "batch", "mixed", step).out
    assert out.splitlines()[0].endswith("phase random, no common object")
    found = json.loads(run("-C", planned, "show", "batch", "mixed", step, "--json").out)
    assert (found["node"], found["groups"], len(found["pairs"])) == ("", [], 8)


def test_one_database_is_opened_for_all_groups(
    run: Run, planned: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, real = [], show.open_ontology
    monkeypatch.setattr(show, "open_ontology", lambda d: opened.append(d) or real(d))
    run("-C", planned, "show", "batch", "mixed", steps(plan, "communities")[0])
    assert len(opened) == 1
