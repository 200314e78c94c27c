"""Several processes train as one: gradients, whole and resumed runs, and what is said of them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tonics.artifact import hash_file
from tonics.errors import PlanMismatch
from tonics.train.trainer import train

from .on_ranks import CALM

PROGRAM = Path(__file__).parent / "on_ranks.py"


@pytest.fixture(scope="module")
def ran(world, pools_plan, tmp_path_factory) -> Path:
    """A folder of runs by four and by two processes, whose own checks have passed."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "features").symlink_to(world.store.path)
    (folder / "plans").mkdir()
    for plan in (world.plan, pools_plan):
        (folder / "plans" / plan.path.name).symlink_to(plan.path)
    np.save(folder / "pairs.npy", world.plan.pairs.column("pair").to_numpy())
    np.save(folder / "vectors.npy", world.vectors)
    ports = [str(free_port()) for _ in range(2)]
    known = {**os.environ, "MASTER_ADDR": "localhost", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(PROGRAM), str(folder), *ports]
    done = subprocess.run(command, env=known, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return int(found.getsockname()[1])


def lines_of(run: Path) -> list[dict]:
    times = ("samples_per_s", "data_wait")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in times} for line in lines]


def bytes_of(run: Path) -> dict[str, str]:
    files = [f for f in sorted(run.rglob("*")) if f.is_file() and f.name != "metrics.jsonl"]
    return {f.relative_to(run).as_posix(): hash_file(f) for f in files}


@pytest.mark.parametrize(("kind", "ranks"), [("static", 2), ("static", 4), ("drawn", 2)])
def test_a_stopped_run_of_several_ranks_ends_like_a_whole_one(ran, kind, ranks):
    whole, stopped = ran / f"{kind}-whole-{ranks}", ran / f"{kind}-stopped-{ranks}"
    assert bytes_of(stopped) == bytes_of(whole)
    assert lines_of(stopped) == lines_of(whole)
    assert "model.safetensors" in bytes_of(whole)


def test_several_ranks_train_as_one_process_does_where_nothing_is_drawn(world, ran, tmp_path):
    train(CALM, world.plan, world.store, world.texts, tmp_path)
    one = load_file(tmp_path / "model.safetensors")
    for ranks in (2, 4):
        several = load_file(ran / f"calm-{ranks}" / "model.safetensors")
        for name, weights in one.items():
            torch.testing.assert_close(several[name], weights, rtol=1e-3, atol=1e-4, msg=name)
        for a, b in zip(lines_of(tmp_path), lines_of(ran / f"calm-{ranks}"), strict=True):
            assert a.pop("phase_name") == b.pop("phase_name")
            assert a == pytest.approx(b, rel=1e-4)


def test_another_number_of_ranks_does_not_go_on(world, ran):
    with pytest.raises(PlanMismatch, match="was trained with ranks 2, now 1"):
        train(CALM, world.plan, world.store, world.texts, ran / "calm-2")
