"""Phases divide epochs, have names of their own, and named curricula can be built."""

from __future__ import annotations

import numpy as np
import pytest

from tonics.errors import ConfigError
from tonics.pipeline.config import Phase, Plan
from tonics.pipeline.plans.curricula import stretches

from .made_up import build, config, make_eligible


def test_phases_divide_the_epochs() -> None:
    plan = config(8, Phase(builder="random", share=0.3), Phase(builder="ontology", share=0.7))
    plan = plan.model_copy(update={"epochs": 10})
    assert [len(s.epochs) for s in stretches("p", plan)] == [3, 7]
    few = plan.model_copy(update={"epochs": 1})
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


@pytest.mark.parametrize("name", ["random", "tonics"])
def test_named_curricula_can_be_built(name: str) -> None:
    eligible = make_eligible([2] * 60, 10**9)
    plan = Plan(batch_size=4, epochs=5, curriculum=name)
    batches, _ = build(eligible, plan)
    assert set(batches.epoch) == set(range(5))
    assert np.all(np.diff(batches.epoch) >= 0)
    assert batches.node[batches.epoch == 4].max() == -1  # training ends in mixed batches
