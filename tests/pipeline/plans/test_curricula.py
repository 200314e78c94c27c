"""Phases as users write them: what they come to, and one clear line for what cannot be built."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tonics.errors import ConfigError
from tonics.pipeline.config import Phase, Plan
from tonics.pipeline.plans.curricula import CURRICULA, stretches
from tonics.pipeline.plans.epochs import build_batches, build_phase

from .made_up import build, config, make_eligible

HALF = {"share": 0.5}


def plan(*phases: dict[str, Any], **settings: Any) -> Plan:
    values = {"embeddings": "captions", "batch_size": 16, "epochs": 10, **settings}
    return Plan.model_validate({**values, "phases": list(phases)})


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (plan({"builder": "magic"}), r"^t.phases\[0\].builder: value 'magic', expected one of ran"),
        (plan({"builder": "random", **HALF}), r"^t.phases: shares \[0.5\] add up to 0.5, expected"),
        (plan({}), r"^t.phases\[0\]: neither builder nor mix, expected one of them; mix = "),
        (
            plan({"builder": "random", "mix": {"random": 1.0}}),
            r"^t.phases\[0\]: both builder and mix, expected one of them",
        ),
        (
            plan({"mix": {"random": 0.5, "ontology": 0.4}}),
            r"^t.phases\[0\].mix: shares \[0.5, 0.4\] add up to 0.9, expected 1",
        ),
        (
            plan({"mix": {"random": 0.5, "magic": 0.5}}),
            r"^t.phases\[0\].mix: value 'magic', expected one of random",
        ),
        (
            plan({"mix": {"random": 0.5, "ontology": 0.5}, "params": {"depth": 2}}),
            r"^t.phases\[0\].params.depth: not in mix, expected a table for each of random, onto",
        ),
        (
            plan({"mix": {"random": 0.5, "ontology": 0.5}, "params": {"ontology": 2}}),
            r"^t.phases\[0\].params.ontology: value 2, expected settings of builder 'ontology': d",
        ),
        (
            plan({"builder": "ontology", "params": {"depth": -1}}),
            r"^t.phases\[0\].params.depth: -1 .*, expected settings of builder 'ontology'",
        ),
        (
            plan({"builder": "communities", "params": {"groups": 4}}),
            r"^t.phases\[0\].params.groups: unknown, .* 'communities': gr.*did you mean 'group'",
        ),
        (
            plan({"builder": "communities"}, batch_size=13),
            r"^t.batch_size: 13, which builder 'communities' cannot divide into groups of 1, expec",
        ),
        (
            plan({"builder": "communities", "params": {"group": 5}}),
            r"^t.batch_size: 16, which builder 'communities' cannot divide into groups of 5",
        ),
        (
            plan({"builder": "communities"}, embeddings=""),
            r"^t.embeddings: none, and builder 'communities' compares captions, expected the NAME",
        ),
        (
            plan({"builder": "random"}, world_size=3),
            r"^t.world_size: 3 processes for batches of 16, .* divides batch_size; set .* = 18",
        ),
        (plan(curriculum="magic"), r"^t.curriculum: value 'magic', expected one of random, tonics"),
        (plan(curriculum="tonisc"), r"^t.curriculum: value 'tonisc', .*; did you mean 'tonics'"),
        (
            plan({"builder": "communites"}),
            r"^t.phases\[0\].builder: .*; did you mean 'communities'",
        ),
        (
            plan({"builder": "ontology", "params": {"depth": "leafs"}}),
            r"^t.phases\[0\].params.depth: 'leafs' \(.* or .*'leaves' or 'middle'\)",
        ),
        (
            plan({"builder": "communities", "params": {"under": "dog", "objects": False}}),
            r"params.*under chooses among objects",
        ),
        (
            plan({"builder": "random"}, curriculum="tonics"),
            r"^t: both curriculum and phases, expected one of them; keep one",
        ),
        (
            plan({"builder": "random", **HALF}, {"builder": "ontology", **HALF}, epochs=1),
            r"^t.epochs: 1 epochs for 2 phases, expected at least one epoch a phase",
        ),
    ],
)
def test_what_cannot_be_built_is_one_line(wanted: Plan, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        stretches("t", wanted)


def test_ready_made_curricula_are_what_they_say() -> None:
    assert list(CURRICULA) == ["random", "tonics", "tonics-mixed", "adaptive"]
    mixed = stretches("t", plan(curriculum="tonics-mixed", epochs=9))
    assert [(s.builder, len(s.epochs)) for s in mixed] == [("random", 3), ("communities", 6)]
    paper = stretches("t", plan(curriculum="tonics"))
    assert [s.name for s in paper] == ["random", "ontology middle", "ontology leaves", "random 2"]


def test_a_mix_shares_each_epoch_and_shuffles_the_batches() -> None:
    eligible = make_eligible([2] * 600, 10**9)
    wanted = plan({"mix": {"random": 0.25, "communities": 0.75}}, epochs=2)
    (phase,) = stretches("t", wanted)
    assert phase.name == "random + communities"
    assert phase.params["communities"]["share"] == 0.75
    batches, remainder = build_batches(eligible, wanted, [phase])
    for epoch in (0, 1):
        chosen = np.flatnonzero(batches.epoch == epoch)
        is_groups = np.array([len(batches.groups[i].as_py()) > 0 for i in chosen])
        assert 0.65 < is_groups.mean() < 0.85
        assert np.count_nonzero(np.diff(is_groups.astype(int))) > 10  # not one after the other
        placed = batches.pairs[chosen].ravel().tolist()
        left = remainder.filter(np.asarray(remainder["epoch"]) == epoch)["pair"].to_pylist()
        assert sorted([*placed, *left]) == eligible.pair.tolist()


def test_epochs_in_rotation_hold_the_same_groups_in_other_batches() -> None:
    eligible = make_eligible([1] * 600, 10**9)
    wanted = plan({"builder": "communities", "rotation": 2}, epochs=4, batch_size=64)
    epochs = list(build_phase(eligible, wanted, *stretches("t", wanted)))

    def groups(epoch: int) -> set[tuple[int, ...]]:
        rows = np.concatenate([d.rows for d in epochs[epoch].dealt]).reshape(-1, 8)
        return {tuple(sorted(g)) for g in rows.tolist()}

    def batches(epoch: int) -> set[tuple[int, ...]]:
        rows = np.concatenate([d.rows for d in epochs[epoch].dealt])
        return {tuple(sorted(b)) for b in rows.tolist()}

    assert len(groups(0) & groups(2)) > 0.9 * len(groups(0))  # all but the few left over
    assert not batches(0) & batches(2)
    assert len(groups(0) & groups(1)) < 0.5 * len(groups(0))


def test_a_rotation_of_whole_batches_shuffles_them() -> None:
    eligible = make_eligible([1] * 320, 10**9)
    wanted = plan({"builder": "random", "rotation": 1}, epochs=2)
    one, two = build_phase(eligible, wanted, *stretches("t", wanted))
    first, second = one.dealt[0].rows.tolist(), two.dealt[0].rows.tolist()
    assert first != second
    assert sorted(first) == sorted(second)


@pytest.mark.parametrize("builder", ["ontology", "communities"])
def test_batches_about_one_branch_of_the_tree(builder: str) -> None:
    eligible = make_eligible([1] * 600, 10**9)
    wanted = plan({"builder": builder, "params": {"under": "o1"}}, batch_size=8)
    batches, remainder = build_batches(eligible, wanted, stretches("t", wanted))
    named = batches.node if builder == "ontology" else batches.groups.flatten().to_numpy()
    assert set(named.tolist()) <= {-1, 1, 3, 4}  # nothing of 2 and 5, nor of what is above 1
    assert {3, 4} <= set(named.tolist())
    assert batches.pairs.size + remainder.num_rows == 600 * 10  # the others are placed too


@pytest.mark.parametrize("builder", ["ontology", "communities"])
def test_an_object_that_does_not_exist_is_refused_with_suggestions(builder: str) -> None:
    eligible = make_eligible([1] * 60, 10**9)
    wanted = plan({"builder": builder, "params": {"under": "o11.n.01"}}, batch_size=8)
    says = r"params.under: no object 'o11.n.01' among 6, .*; did you mean o1.n.01"
    with pytest.raises(ConfigError, match=says):
        build_batches(eligible, wanted, stretches("t", wanted))


def test_phases_divide_the_epochs() -> None:
    wanted = config(8, Phase(builder="random", share=0.3), Phase(builder="ontology", share=0.7))
    wanted = wanted.model_copy(update={"epochs": 10})
    assert [len(s.epochs) for s in stretches("p", wanted)] == [3, 7]
    few = wanted.model_copy(update={"epochs": 1})
    with pytest.raises(ConfigError, match="1 epochs for 2 phases"):
        stretches("p", few)


def test_phases_have_names_of_their_own() -> None:
    phases = (
        Phase(builder="random", share=0.25),
        Phase(builder="ontology", share=0.25, params={"depth": 3}),
        Phase(builder="ontology", share=0.25),
        Phase(builder="random", share=0.25),
    )
    names = [s.name for s in stretches("p", config(8, *phases, epochs=4))]
    assert names == ["random", "ontology depth 3", "ontology leaves", "random 2"]


@pytest.mark.parametrize("name", ["random", "tonics", "tonics-mixed"])
def test_named_curricula_can_be_built(name: str) -> None:
    eligible = make_eligible([2] * 60, 10**9)
    wanted = Plan(batch_size=4, epochs=5, curriculum=name, embeddings="captions")
    batches, _ = build(eligible, wanted)
    assert set(batches.epoch) == set(range(5))
    assert np.all(np.diff(batches.epoch) >= 0)
    assert batches.node[batches.epoch == 4].max() == -1  # training ends in mixed batches


def test_in_a_mix_only_what_rotates_comes_again() -> None:
    eligible = make_eligible([2] * 600, 10**9)
    wanted = plan({"mix": {"random": 0.5, "communities": 0.5}}, epochs=6)
    epochs = list(build_phase(eligible, wanted, *stretches("t", wanted)))

    def drawn(epoch: int, part: int) -> set[tuple[int, ...]]:
        rows = [parts[part].rows for parts in epochs[epoch].passes]
        size = (16, 8)[part]
        return {tuple(sorted(g)) for g in np.concatenate(rows).reshape(-1, size).tolist()}

    assert len(drawn(0, 1) & drawn(3, 1)) > 0.9 * len(drawn(0, 1))
    assert not drawn(0, 1) & drawn(1, 1)
    assert not drawn(0, 0) & drawn(3, 0)


def test_ranks_must_be_in_order() -> None:
    wanted = plan({"builder": "communities", "params": {"skip": 30, "reach": 10}})
    with pytest.raises(ConfigError, match="reach must be above skip = 30"):
        stretches("t", wanted)
