"""``tonics train`` started by torchrun: one process leads, the others train along."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tonics.pipeline.dataset import Dataset
from tonics.pipeline.graph import stages_of
from tonics.pipeline.runner import bring_up_to_date
from tonics.train.plan import Plan

MORE = """
[plans.pools]
batch_size = 4
epochs = 2
embeddings = "captions"
curriculum = "adaptive"
[runs.together]
plan = "tonics"
embeddings = "captions"
train = { embedding_dim = 16, hidden = 16, steps = 12, log_every = 5 }
[runs.drawn]
plan = "pools"
embeddings = "captions"
train = { embedding_dim = 16, hidden = 16, steps = 12, log_every = 5 }
[runs.wrong]
plan = "tonics"
embeddings = "captions"
train = { embedding_dim = 16, hidden = 16, steps = 12, log_every = 1, lr = 1e30 }
"""
COMMAND = "from tonics.pipeline.cli import main; main()"


@pytest.fixture(scope="module")
def folder(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny dataset with a plan of pools, and two runs to be trained."""
    copy = Path(shutil.copytree(built, tmp_path_factory.mktemp("together") / "dataset"))
    with (copy / "tonics.toml").open("a") as file:
        file.write(MORE)
    bring_up_to_date(stages_of(Dataset.open(copy))["plan/pools"], workers=1)
    return copy


def torchrun(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*start, "--no-python", sys.executable, "-c", COMMAND, "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True)


def test_two_processes_train_what_one_command_says(folder: Path) -> None:
    done = torchrun(folder, "train", "--quiet", "together", "drawn", "wrong")
    said = "/runs/wrong: the loss or its gradient at step 2 is not a finite number"
    assert (done.returncode, done.stderr.count(said)) == (1, 1), done.stderr  # said once
    lines = [line for line in done.stdout.splitlines() if "note:" not in line]
    made = [line.split()[0] for line in lines]
    assert made == ["train/together", "train/drawn"]
    for name in ("together", "drawn"):
        run = folder / "runs" / name
        assert (run / "model.safetensors").exists()
        assert json.loads((run / "config.json").read_text())["identity"]["ranks"] == 2
        steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").open()]
        assert steps == sorted(set(steps))
        assert steps[-1] == 12
    assert len(Plan(folder / "runs" / "drawn" / "replay")) == 12
    stages = stages_of(Dataset.open(folder))  # one process now: what several made is as good
    assert all(bring_up_to_date(stages[f"train/{name}"]).fresh for name in ("together", "drawn"))
