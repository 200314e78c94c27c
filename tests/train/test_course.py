"""The adaptive curriculum in the trainer: it opens objects, resumes, and its replay is the run."""

from __future__ import annotations

import dataclasses
import json
import threading

import numpy as np
import pytest
import torch

from tonics.errors import ConfigError, TonicsError
from tonics.features.ahead import THREAD_NAME
from tonics.train.config import TrainConfig
from tonics.train.course import AdaptiveCourse
from tonics.train.plan import Plan
from tonics.train.ranks import ALONE
from tonics.train.stream import CachedTexts
from tonics.train.trainer import train

CONFIG = TrainConfig(
    embedding_dim=16, hidden=16, lr=1e-2, dropout=0.1, log_every=4, checkpoint_every=4, seed=5
)


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def run_of(world, pools_plan):
    def run(folder, config=CONFIG, plan=pools_plan, stop=0, texts=world.texts):
        def progress(done, total, last):
            if done == stop:
                raise Killed

        return train(config, plan, world.store, texts, folder, progress=progress)

    return run


@pytest.fixture(scope="module")
def whole(run_of, tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "whole"
    run_of(folder)
    return folder


def weights_of(run):
    return (run / "model.safetensors").read_bytes()


def lines_of(run, *without):
    times = ("samples_per_s", "data_wait", *without)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in times} for line in lines]


def test_objects_open_as_the_model_learns(whole):
    opened = [line["opened"] for line in lines_of(whole)]
    assert opened[0] == 1
    assert opened == sorted(opened)
    assert opened[-1] > 1
    assert {line["phase_name"] for line in lines_of(whole)} == {"pools"}


@pytest.mark.parametrize("stop", [1, 10, 13])
def test_a_resumed_run_equals_one_never_stopped(run_of, whole, tmp_path, stop):
    with pytest.raises(Killed):
        run_of(tmp_path, stop=stop)
    run_of(tmp_path)
    assert weights_of(tmp_path) == weights_of(whole)
    assert lines_of(tmp_path) == lines_of(whole)
    assert Plan(tmp_path / "replay").plan_id == Plan(whole / "replay").plan_id
    states = [max((r / "checkpoints").iterdir()) / "checkpoint.json" for r in (tmp_path, whole)]
    assert states[0].read_text() == states[1].read_text()


@pytest.mark.parametrize("prefetch", [0, 16])
def test_how_far_ahead_is_read_changes_nothing(run_of, whole, tmp_path, prefetch):
    run_of(tmp_path, dataclasses.replace(CONFIG, prefetch=prefetch, checkpoint_every=100))
    assert weights_of(tmp_path) == weights_of(whole)


def test_training_on_the_replay_is_the_same_run(run_of, whole, tmp_path):
    replay = Plan(whole / "replay")
    assert (len(replay), replay.schedule) == (22, None)
    run_of(tmp_path, plan=replay)
    assert weights_of(tmp_path) == weights_of(whole)
    other = ("opened", "epoch", "phase", "phase_name")
    assert lines_of(tmp_path, *other) == lines_of(whole, *other)


def test_fewer_steps_than_the_schedule_says(run_of, tmp_path):
    run_of(tmp_path, dataclasses.replace(CONFIG, steps=7))
    assert len(Plan(tmp_path / "replay")) == 7
    with pytest.raises(ConfigError, match="steps = 23 on a plan of 22 batches"):
        run_of(tmp_path, dataclasses.replace(CONFIG, steps=23))


def test_a_run_that_fails_leaves_no_reader_waiting(run_of, world, pools_plan, tmp_path):
    pairs = world.plan.pairs.column("pair").to_numpy()
    broken = CachedTexts.of_rows(np.full(world.vectors.shape, np.nan, np.float32), pairs)
    with pytest.raises(TonicsError, match=r"at step 1 is .*; look at batch \d+ of plan 'pools'"):
        run_of(tmp_path, texts=broken)
    assert not [t for t in threading.enumerate() if t.name.startswith(THREAD_NAME)]


def test_a_reader_waits_for_what_is_not_decided(pools_plan):
    course = AdaptiveCourse(pools_plan, 22, 0, ALONE)
    steps, read = course.steps(0), []
    reader = threading.Thread(target=lambda: read.extend(steps))
    reader.start()
    for position in range(22):
        assert len(read) <= position // 5 * 5 + 10  # this block and the next
        course.saw(position, torch.tensor([1.0, 0.5]))
    reader.join()
    assert read == [step for block in course.adaptive.drawn for step in block]
    assert len(read) == 22
