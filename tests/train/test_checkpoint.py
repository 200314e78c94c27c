"""Checkpoints: whole, the newest found, the last two kept, other runs refused."""

import pytest
import torch

from tonics.errors import FormatError, PlanMismatch
from tonics.train.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_optimizer,
    optimizer_tensors,
)


def checkpoint(step, **identity):
    tensors = {"model.weight": torch.full((2, 3), float(step)), "sums": torch.tensor([step])}
    return Checkpoint(step=step, identity=identity or {"plan_id": "a", "lr": 0.1}, tensors=tensors)


def test_what_is_written_is_read(tmp_path):
    path = checkpoint(200).write(tmp_path)
    assert path.name == "step-00000200"
    assert sorted(p.name for p in path.iterdir()) == ["checkpoint.json", "state.safetensors"]
    found = Checkpoint.read(path)
    assert (found.step, found.identity) == (200, {"plan_id": "a", "lr": 0.1})
    assert torch.equal(found.tensors["model.weight"], torch.full((2, 3), 200.0))
    assert found.tensors["sums"].dtype == torch.int64


def test_the_last_two_are_kept_in_numeric_order(tmp_path):
    for step in (99_999_999, 5, 100_000_000, 20):
        checkpoint(step).write(tmp_path)
    kept = [p.name for p in list_checkpoints(tmp_path)]
    assert kept == ["step-99999999", "step-100000000"]


def test_half_written_folders_are_not_checkpoints(tmp_path):
    checkpoint(1).write(tmp_path)
    (tmp_path / "step-00000002.123.tmp").mkdir()
    (tmp_path / "notes").mkdir()
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step-00000001"]
    assert list_checkpoints(tmp_path / "absent") == []


def test_writing_again_replaces(tmp_path):
    checkpoint(3).write(tmp_path)
    checkpoint(3, plan_id="b").write(tmp_path)
    assert Checkpoint.read(list_checkpoints(tmp_path)[0]).identity == {"plan_id": "b"}


@pytest.mark.parametrize("damage", ["truncate", "no state", "no header", "no json", "version"])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    path = checkpoint(7).write(tmp_path)
    state, header = path / "state.safetensors", path / "checkpoint.json"
    if damage == "truncate":
        state.write_bytes(state.read_bytes()[:-5])
    elif damage.startswith("no "):
        {"no state": state, "no header": header, "no json": header}[damage].unlink()
        if damage == "no json":
            header.write_text("{")
    else:
        header.write_text(header.read_text().replace('"version": 2', '"version": 9'))
    with pytest.raises(FormatError, match=r"step-00000007|checkpoint\.json"):
        Checkpoint.read(path)


def test_another_run_is_refused_in_one_line_that_says_what_differs(tmp_path):
    found = checkpoint(200)
    found.require({"plan_id": "a", "lr": 0.1}, tmp_path)
    with pytest.raises(PlanMismatch) as caught:
        found.require({"plan_id": "b", "lr": 0.1, "new": 1}, tmp_path)
    line = str(caught.value)
    assert "step 200 was trained with plan_id 'a', now 'b'; new None, now 1" in line
    assert "lr" not in line
    assert "another run name" in line


@pytest.mark.parametrize("fused", [False, True])
def test_a_restored_optimizer_goes_on_the_same(fused):
    def start():
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
        groups = [{"params": [net[1].weight]}, {"params": [net[0].weight, net[0].bias]}]
        return net, torch.optim.AdamW(groups, lr=0.1, fused=fused)

    def step(net, optimizer, k):
        optimizer.zero_grad()
        net(torch.full((1, 3), float(k))).square().sum().backward()
        optimizer.step()

    whole, adamw = start()
    for k in range(6):
        step(whole, adamw, k)
        if k == 2:
            weights = {name: t.clone() for name, t in whole.state_dict().items()}
            kept = {name: t.clone() for name, t in optimizer_tensors(whole, adamw).items()}
    assert "adamw.0.weight.exp_avg" in kept
    resumed, adamw = start()
    resumed.load_state_dict(weights)
    load_optimizer(resumed, adamw, kept)
    for k in range(3, 6):
        step(resumed, adamw, k)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
