"""The batch sampler: exact epochs, rank slices, resume; loud where a framework breaks a plan."""

from __future__ import annotations

import pickle
from itertools import chain, islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from torch.utils.data import BatchSampler, DataLoader

from tonics.errors import InputError, PlanMismatch
from tonics.train import Plan, PlanBatchSampler
from tonics.train import sampler as module

from .test_plan import B, N, make_plan


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Five batches of eight, in epochs of three and two."""
    return make_plan(tmp_path / "plan")


def planned(plan: Plan, steps: range) -> list[list[int]]:
    return [plan.batch(step).tolist() for step in steps]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_ranks_together_receive_every_batch_of_an_epoch(plan: Plan, world: int) -> None:
    samplers = [PlanBatchSampler(plan, rank, world) for rank in range(world)]
    for epoch, length in ((0, 3), (1, 2)):
        for sampler in samplers:
            sampler.set_epoch(epoch)
            sampler.set_epoch(epoch)
            assert len(sampler) == length
            assert sampler.batch_size == B // world
            assert sampler.sampler is sampler
        batches = [[*chain(*parts)] for parts in zip(*samplers, strict=True)]
        assert batches == planned(plan, plan.epoch_range(epoch))


def test_an_aligned_plan_gives_rows_of_the_dataset(plan: Plan) -> None:
    keys = [f"img{3 * k}#0" for k in np.random.default_rng(0).permutation(N)]
    aligned = plan.align(keys)
    sampler = PlanBatchSampler(aligned, one_epoch=True)
    assert (sampler.epochs, len(sampler), sampler.steps) == (1, 5, range(5))
    for step, rows in zip(sampler.steps, DataLoader(range(N), batch_sampler=sampler), strict=True):
        aligned.audit(step, rows)


@pytest.mark.parametrize("start", range(6))
def test_a_start_goes_on_where_the_run_was(plan: Plan, start: int) -> None:
    whole = PlanBatchSampler(plan, start=start, one_epoch=True)
    assert list(whole) == planned(plan, range(start, 5))
    sampler, got = PlanBatchSampler(plan, start=start), []
    for epoch in range(sampler.epoch, sampler.epochs):
        sampler.set_epoch(epoch)
        part = list(sampler)
        assert len(part) == len(sampler) == len(sampler.steps)
        got += part
    assert got == planned(plan, range(start, 5))


def test_an_epoch_that_was_over_before_the_start_is_refused(plan: Plan) -> None:
    sampler = PlanBatchSampler(plan, start=4)
    sampler.set_epoch(0)
    with pytest.raises(InputError, match="epoch 0 was over before start=4; begin with epoch 1"):
        list(sampler)


def test_an_epoch_nobody_announced_is_not_served_again(plan: Plan) -> None:
    sampler = PlanBatchSampler(plan)
    next(iter(sampler))  # a look at the first batch is no epoch
    list(sampler)
    with pytest.raises(InputError, match=r"epoch 0 is asked for again.*call set_epoch\(1\)"):
        iter(sampler)
    sampler.set_epoch(0)
    assert len(list(sampler)) == 3
    with pytest.raises(InputError, match="epoch 2, expected 0 to 1; train for as many epochs"):
        sampler.set_epoch(2)
    with pytest.raises(InputError, match="epoch 1, expected 0 to 0; train for one epoch"):
        PlanBatchSampler(plan, one_epoch=True).set_epoch(1)


def test_an_epoch_cut_to_the_length_of_another_is_noticed(plan: Plan) -> None:
    sampler = PlanBatchSampler(plan)
    list(islice(sampler, 2))  # a framework that thinks all epochs have two batches
    with pytest.raises(InputError, match=r"epoch 0 was left after 2 of 3 batches.*one_epoch=True"):
        sampler.set_epoch(1)


def test_arguments_that_fit_no_plan_are_refused(plan: Plan, tmp_path: Path) -> None:
    for wrong, says in (
        ({"rank": 1}, "rank=1, world=None, expected both"),
        ({"rank": 0, "world": 3}, "for 3 ranks"),
        ({"rank": 2, "world": 2}, "rank 2 of 2"),
        ({"start": 6}, "start=6, expected 0 to 5"),
    ):
        with pytest.raises(InputError, match=says):
            PlanBatchSampler(plan, **wrong)
    plan.header["schedule"] = {"steps": 1}
    with pytest.raises(InputError, match="adaptive plan are pools"):
        PlanBatchSampler(plan)


class Shard(BatchSampler):
    """What a framework puts around a batch sampler; ``deal`` says which rows it hands on."""

    def __init__(self, batch_sampler, deal) -> None:
        self.batch_sampler, self.deal = batch_sampler, deal

    def __iter__(self):
        return self.deal(self.batch_sampler)


def every_other(batches):
    return (rows for k, rows in enumerate(batches) if k % 2 == 0)


def test_check_finds_loaders_that_shard_again(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = PlanBatchSampler(plan)
    sampler.check(DataLoader(range(3 * N), batch_sampler=sampler))
    sampler.check(DataLoader(range(3 * N), batch_sampler=sampler))  # it is no epoch served
    with pytest.raises(PlanMismatch, match="DataLoader reads from BatchSampler, expected this"):
        sampler.check(DataLoader(range(3 * N), batch_size=B))
    with pytest.raises(PlanMismatch, match=r"would read rows .* as batch 1, expected"):
        sampler.check(SimpleNamespace(batch_sampler=Shard(sampler, every_other)))
    short = Shard(sampler, lambda batches: islice(batches, 2))
    with pytest.raises(PlanMismatch, match="no batch 2, expected 3 batches"):
        sampler.check(SimpleNamespace(batch_sampler=short))
    again = Shard(sampler, lambda batches: chain(batches, planned(plan, range(1))))
    with pytest.raises(PlanMismatch, match="more batches, expected 3"):
        sampler.check(SimpleNamespace(batch_sampler=again))
    monkeypatch.setattr(module, "_process_group", lambda: (1, 2))
    sliced = Shard(sampler, lambda batches: (rows[B // 2 :] for rows in batches))
    sampler.check(SimpleNamespace(batch_sampler=sliced))
    with pytest.raises(PlanMismatch, match="rank 1 of 2 would read"):
        sampler.check(SimpleNamespace(batch_sampler=Shard(sampler, every_other)))


@pytest.mark.parametrize("workers", [0, 1])
def test_ranks_do_not_read_a_whole_batch_each(plan: Plan, workers: int, monkeypatch) -> None:
    monkeypatch.setattr(module, "_process_group", lambda: (0, 2))
    loader = DataLoader(range(3 * N), batch_sampler=PlanBatchSampler(plan), num_workers=workers)
    with pytest.raises(  # torch raises a worker's error as another
        (InputError, RuntimeError), match="batch 0: one of several processes would read all 8 rows"
    ):
        next(iter(loader))
    rows = next(iter(PlanBatchSampler(plan)))
    assert rows[2:4] == plan.batch(0)[2:4].tolist()
    with pytest.raises(InputError, match="pass rank and world"):
        list(pickle.loads(pickle.dumps(rows)))
    assert next(iter(PlanBatchSampler(plan, 0, 1))) == plan.batch(0).tolist()


def test_sentence_transformers_may_call_it(plan: Plan) -> None:
    sampler = PlanBatchSampler(plan)
    largest = max(int(plan.batch(step).max()) for step in sampler.steps)
    assert sampler(range(largest + 1), batch_size=B, drop_last=True, seed=3) is sampler
    with pytest.raises(PlanMismatch, match="batch size is 3, expected the plan's 8"):
        sampler(range(3 * N), batch_size=3)
    with pytest.raises(PlanMismatch, match=f"a dataset of {largest} rows"):
        sampler(range(largest), batch_size=B)
