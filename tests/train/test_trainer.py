"""The trainer: it learns, resumes exactly, and refuses what cannot be right."""

import dataclasses
import json
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tonics.artifact import hash_file
from tonics.errors import (
    ConfigError,
    FormatError,
    InputError,
    MissingAsset,
    PlanMismatch,
    TonicsError,
)
from tonics.train.config import TrainConfig
from tonics.train.evaluation import evaluate, load_model
from tonics.train.plan import Plan
from tonics.train.stream import CachedTexts
from tonics.train.trainer import find_device, lr_share, train

TINY = TrainConfig(
    embedding_dim=16, hidden=16, lr=3e-3, log_every=3, checkpoint_every=4, dropout=0.2
)


class Killed(Exception):
    pass


def kill_at(step):
    def progress(done, total, metrics):
        if done == step:
            raise Killed

    return progress


def run_of(world, run, config=TINY, texts="cached", **options):
    source = world.texts if texts == "cached" else texts
    return train(config, world.plan, world.store, source, run, **options)


def lines_of(run: Path) -> list[dict]:
    """Metrics without what may differ: the times."""
    times = ("samples_per_s", "tokens_per_s", "data_wait")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in times} for line in lines]


def bytes_of(run: Path) -> dict[str, str]:
    """Hash of every file that must not differ between two equal runs."""
    files = [f for f in sorted(run.rglob("*")) if f.is_file() and f.name != "metrics.jsonl"]
    return {f.relative_to(run).as_posix(): hash_file(f) for f in files}


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """A run that was never stopped."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    run_of(world, run)
    return run


# -- learning --------------------------------------------------------------------------------------


def test_it_learns_what_images_and_captions_share(big_world, tmp_path):
    config = TrainConfig(embedding_dim=64, hidden=64, lr=3e-3, dropout=0.1, log_every=20)
    run_of(big_world, tmp_path, config)
    lines = lines_of(tmp_path)
    assert lines[0]["loss"] > 1.5
    assert lines[-1]["loss"] < 0.5
    assert lines[-1]["accuracy_i2t"] > 0.85
    found = evaluate(tmp_path, big_world.store, big_world.texts, big_world.queries())
    assert found["i2t"]["r1"] > 90
    assert found["t2i"]["r1"] > 90
    assert (found["images"], found["captions"]) == (320, 640)


def test_captions_that_say_nothing_teach_nothing(big_world, tmp_path):
    """The test above can fail: with shuffled captions recall on other captions is at chance."""
    config = TrainConfig(embedding_dim=32, hidden=32, lr=3e-3, log_every=20, steps=60)
    pairs = big_world.plan.pairs.column("pair").to_numpy()
    shuffled = np.random.default_rng(0).permutation(big_world.vectors)
    run_of(big_world, tmp_path, config, texts=CachedTexts.of_rows(shuffled, pairs))
    found = evaluate(tmp_path, big_world.store, big_world.texts, big_world.queries())
    assert found["t2i"]["r10"] < 15


def test_the_temperature_is_kept_within_its_limits_while_training(world, tmp_path):
    pairs = world.plan.pairs.column("pair").to_numpy()
    noise = np.random.default_rng(0).normal(size=world.vectors.shape)
    config = dataclasses.replace(TINY, temperature=1.0, lr=0.1, log_every=1)
    run_of(world, tmp_path, config, texts=CachedTexts.of_rows(noise, pairs))
    temperatures = [line["temperature"] for line in lines_of(tmp_path)]
    assert max(temperatures) == 1.0  # captions that say nothing push it up against the limit


def test_bfloat16_learns_too(big_world, tmp_path):
    config = TrainConfig(embedding_dim=32, hidden=32, lr=3e-3, dropout=0.1, precision="bfloat16")
    assert run_of(big_world, tmp_path, config).metrics["loss"] < 0.7
    assert {t.dtype for t in load_file(tmp_path / "model.safetensors").values()} == {torch.float32}


def test_every_planned_batch_is_trained_on_in_order(world, tmp_path, monkeypatch):
    import tonics.train.trainer as trainer

    seen = []
    honest = trainer.train_step
    monkeypatch.setattr(
        trainer, "train_step", lambda s, k, b: (seen.append((b.step, b.pairs)), honest(s, k, b))[1]
    )
    run_of(world, tmp_path)
    assert [step for step, _ in seen] == list(range(16))
    for step, pairs in seen:
        world.plan.audit(step, pairs)


def test_metrics_lines(whole, world):
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    # every third step, the last one, and where phase 0 ends
    assert [line["step"] for line in lines] == [3, 6, 8, 9, 12, 15, 16]
    assert [line["phase"] for line in lines] == [0, 0, 0, 1, 1, 1, 1]
    assert [line["epoch"] for line in lines] == [0, 1, 1, 2, 2, 3, 3]
    assert all(line["samples_per_s"] > 0 and 0 <= line["data_wait"] <= 1 for line in lines)
    assert all(0.01 <= line["temperature"] <= 1 for line in lines)
    assert lines[-1]["lr"] == pytest.approx(TINY.lr * lr_share(15, 16, 0.05))


def test_metrics_are_means_since_the_last_line(world, tmp_path):
    each, pairs = tmp_path / "each", tmp_path / "pairs"
    run_of(world, each, dataclasses.replace(TINY, log_every=1))
    run_of(world, pairs, dataclasses.replace(TINY, log_every=2))
    for key in ("loss", "accuracy_i2t", "accuracy_t2i"):
        single = [line[key] for line in lines_of(each)]
        double = [line[key] for line in lines_of(pairs)]
        assert double == pytest.approx(
            [(a + b) / 2 for a, b in zip(single[::2], single[1::2], strict=True)]
        )


def test_an_average_of_the_weights_is_what_a_run_ends_with(world, whole, tmp_path):
    config = dataclasses.replace(TINY, ema=0.5)
    run_of(world, tmp_path / "run", config)
    last = load_file(tmp_path / "run/checkpoints/step-00000016/state.safetensors")
    plain, averaged = (load_file(r / "model.safetensors") for r in (whole, tmp_path / "run"))
    for name, weights in plain.items():
        assert torch.equal(last[f"model.{name}"], weights)  # it changes nothing in training
        assert torch.equal(last[f"ema.model.{name}"], averaged[name])
        assert not torch.equal(averaged[name], weights)
    with pytest.raises(Killed):
        run_of(world, tmp_path / "again", config, progress=kill_at(6))
    run_of(world, tmp_path / "again", config)
    assert bytes_of(tmp_path / "again") == bytes_of(tmp_path / "run")


def test_siglip_learns_its_bias_and_resumes(world, tmp_path):
    config = dataclasses.replace(TINY, loss="siglip", temperature=0.1)
    run_of(world, tmp_path / "whole", config)
    with pytest.raises(Killed):
        run_of(world, tmp_path / "stopped", config, progress=kill_at(6))
    run_of(world, tmp_path / "stopped", config)
    assert bytes_of(tmp_path / "stopped") == bytes_of(tmp_path / "whole")
    last = load_file(tmp_path / "whole/checkpoints/step-00000016/state.safetensors")
    assert last["bias"] != -10
    assert "bias" not in load_file(tmp_path / "whole/model.safetensors")
    lines = lines_of(tmp_path / "whole")
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_phases_in_words(whole):
    from tonics.train.metrics import by_phase, read_lines

    first, second = by_phase(read_lines(whole / "metrics.jsonl"))
    assert (first["phase"], first["steps"], second["phase"], second["steps"]) == (0, 8, 1, 8)
    assert first["loss"] > second["loss"]
    assert first["accuracy_i2t"] < second["accuracy_i2t"]


def test_tensorboard_shows_the_same_lines(world, tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run_of(world, tmp_path, dataclasses.replace(TINY, tensorboard=True))
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("loss")]
    lines = lines_of(tmp_path)
    assert shown == [(line["step"], pytest.approx(line["loss"])) for line in lines]


def test_tensorboard_that_is_not_installed(world, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingAsset, match="tensorboard is not installed; pip install tensor"):
        run_of(world, tmp_path, dataclasses.replace(TINY, tensorboard=True))


def test_compiled_towers_compute_the_same_for_any_number_of_regions(world, tmp_path, monkeypatch):
    import torch._dynamo

    graphs = []
    honest = torch._dynamo.lookup_backend("eager")
    kept = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module,
        "compile",
        lambda module, **given: kept(
            module,
            backend=lambda graph, inputs: (graphs.append(1), honest(graph, inputs))[1],
            **given,
        ),
    )
    calm = dataclasses.replace(TINY, dropout=0.0, region_dropout=0.0, steps=6)
    run_of(world, tmp_path / "plain", calm)
    run_of(world, tmp_path / "compiled", dataclasses.replace(calm, compile=True))
    plain, compiled = (load_file(tmp_path / r / "model.safetensors") for r in ("plain", "compiled"))
    assert plain.keys() == compiled.keys()
    for name, weights in plain.items():
        torch.testing.assert_close(compiled[name], weights, rtol=1e-4, atol=1e-5)
    assert len(graphs) == 2  # one a tower, whatever the number of regions


def test_what_is_frozen_is_not_optimised(world):
    from tonics.train.optimizing import Average, adamw, trained

    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    net[0].requires_grad_(False)
    assert {id(p) for p in trained(adamw(net, TINY))} == {id(p) for p in net[1].parameters()}
    assert set(Average(net, 0.9).tensors) == {"1.weight", "1.bias"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_no_step_waits_for_the_gpu(world, tmp_path, monkeypatch):
    import tonics.train.trainer as trainer

    honest = trainer.train_step

    def strict(state, step, batch):
        torch.cuda.set_sync_debug_mode("error" if step else "default")  # the first one warms up
        honest(state, step, batch)
        torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(trainer, "train_step", strict)
    config = dataclasses.replace(TINY, precision="bfloat16", ema=0.9)
    run_of(world, tmp_path, config, device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_resumes_exactly(world, tmp_path):
    config = dataclasses.replace(TINY, precision="bfloat16", ema=0.9)
    run_of(world, tmp_path / "whole", config, device="cuda")
    with pytest.raises(Killed):
        run_of(world, tmp_path / "stopped", config, progress=kill_at(6), device="cuda")
    run_of(world, tmp_path / "stopped", config, device="cuda")
    assert bytes_of(tmp_path / "stopped") == bytes_of(tmp_path / "whole")


def test_fewer_steps_than_the_plan_has(world, tmp_path):
    result = run_of(world, tmp_path, dataclasses.replace(TINY, steps=5))
    assert (result.steps, result.metrics["step"]) == (5, 5)
    assert result.metrics["lr"] < TINY.lr / 5  # the cosine ends with the run


def test_progress_is_told_every_step(world, tmp_path):
    told = []
    run_of(world, tmp_path, progress=lambda *args: told.append(args))
    assert [(done, total) for done, total, _ in told] == [(k, 16) for k in range(1, 17)]
    assert told[-1][2]["step"] == 16


# -- determinism and resume ------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes(world, whole, tmp_path):
    torch.manual_seed(123)  # what the caller draws has no influence, nor has the depth of prefetch
    run_of(world, tmp_path / "again", dataclasses.replace(TINY, prefetch=0))
    again = bytes_of(tmp_path / "again")
    assert again.pop("config.json") != bytes_of(whole)["config.json"]  # prefetch is written there
    assert again == {k: v for k, v in bytes_of(whole).items() if k != "config.json"}
    assert lines_of(tmp_path / "again") == lines_of(whole)


def test_another_seed_gives_other_weights(world, whole, tmp_path):
    run_of(world, tmp_path, dataclasses.replace(TINY, seed=1))
    assert bytes_of(tmp_path)["model.safetensors"] != bytes_of(whole)["model.safetensors"]


def test_the_callers_random_numbers_are_left_alone(world, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run_of(world, tmp_path, dataclasses.replace(TINY, steps=2))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("step", [1, 4, 5, 7, 8, 15])
def test_killed_and_resumed_equals_never_stopped(world, whole, tmp_path, step):
    with pytest.raises(Killed):
        run_of(world, tmp_path, progress=kill_at(step))
    torch.manual_seed(step)
    result = run_of(world, tmp_path)
    # the callback comes after the checkpoint of its own step
    assert result.resumed == step // 4 * 4
    assert bytes_of(tmp_path) == bytes_of(whole)
    assert lines_of(tmp_path) == lines_of(whole)


def test_killed_three_times(world, whole, tmp_path):
    for step in (6, 9, 14):
        with pytest.raises(Killed):
            run_of(world, tmp_path, progress=kill_at(step))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 14, "lo')  # and once in the middle of a line
    run_of(world, tmp_path)
    assert bytes_of(tmp_path) == bytes_of(whole)
    assert lines_of(tmp_path) == lines_of(whole)


def test_a_finished_run_is_left_as_it_is(world, whole, tmp_path):
    copy = shutil.copytree(whole, tmp_path / "copy")
    text = (copy / "metrics.jsonl").read_text()
    result = run_of(world, copy)
    assert (result.resumed, result.metrics["step"]) == (16, 16)
    assert bytes_of(copy) == bytes_of(whole)
    assert (copy / "metrics.jsonl").read_text() == text


def test_a_run_holds_nothing_that_is_pickled(whole):
    kinds = {f.suffix for f in whole.rglob("*") if f.is_file()}
    assert kinds == {".json", ".jsonl", ".safetensors"}
    assert [p.name for p in sorted((whole / "checkpoints").iterdir())] == [
        "step-00000012",
        "step-00000016",
    ]


# -- what is refused -------------------------------------------------------------------------------


def test_another_configuration_is_refused(world, tmp_path):
    with pytest.raises(Killed):
        run_of(world, tmp_path, progress=kill_at(5))
    before = bytes_of(tmp_path), (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(PlanMismatch, match=r"step 4 was trained with lr 0\.003, now 0\.1"):
        run_of(world, tmp_path, dataclasses.replace(TINY, lr=0.1))
    assert (bytes_of(tmp_path), (tmp_path / "metrics.jsonl").read_text()) == before
    run_of(world, tmp_path, dataclasses.replace(TINY, checkpoint_every=100, prefetch=1))


def test_the_identity_holds_the_settings_that_decide_the_result():
    runtime = {"checkpoint_every", "log_every", "prefetch", "tensorboard", "input"}
    named = {"encoder", "encoder_revision"}  # by content, elsewhere
    every = {field.name for field in dataclasses.fields(TrainConfig)}
    tuned = TrainConfig(text="finetune", encoder="some")
    assert set(tuned.identity()) == every - runtime - named
    of_an_encoder = {"encoder_lr", "max_tokens", "train_layers"}
    assert set(TrainConfig().identity()) == every - runtime - named - of_an_encoder


def test_a_checkpoint_without_what_is_needed_says_so(world, tmp_path):
    with pytest.raises(Killed):
        run_of(world, tmp_path, progress=kill_at(5))
    (newest,) = (tmp_path / "checkpoints").iterdir()
    tensors = load_file(newest / "state.safetensors")
    save_file({k: t for k, t in tensors.items() if k != "sums"}, newest / "state.safetensors")
    with pytest.raises(FormatError, match=r"not what this run needs .KeyError: 'sums'.; delete"):
        run_of(world, tmp_path)
    (newest / "checkpoint.json").write_text('{"version"')
    with pytest.raises(FormatError, match=r"not a whole checkpoint .*; delete step-"):
        run_of(world, tmp_path)


def test_a_run_that_begins_anew_leaves_no_older_model(world, tmp_path):
    run_of(world, tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(Killed):
        run_of(world, tmp_path, dataclasses.replace(TINY, lr=0.1), progress=kill_at(2))
    with pytest.raises(InputError, match="the run is not finished"):
        load_model(tmp_path)


def test_another_plan_is_refused(world, big_world, tmp_path):
    with pytest.raises(Killed):
        run_of(world, tmp_path, progress=kill_at(5))
    with pytest.raises(PlanMismatch, match=r"plan_id '\w+', now '\w+'"):
        run_of(big_world, tmp_path)


def test_a_plan_built_for_another_store_is_refused(world, tmp_path):
    plan = Plan(world.plan.path)
    plan.inputs = {"features": "f" * 32}
    with pytest.raises(PlanMismatch, match="for another feature store: features ffffffff, expec"):
        run_of(dataclasses.replace(world, plan=plan), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    plan.inputs = {"features": world.store.content_hash}
    steps = dataclasses.replace(TINY, steps=1)
    assert run_of(dataclasses.replace(world, plan=plan), tmp_path / "run", steps).steps == 1


def test_other_caption_vectors_are_refused(world, tmp_path):
    with pytest.raises(Killed):
        run_of(world, tmp_path, progress=kill_at(5))
    pairs = world.plan.pairs.column("pair").to_numpy()
    with pytest.raises(PlanMismatch, match=r"with texts '\w+', now '\w+'"):
        run_of(world, tmp_path, texts=CachedTexts.of_rows(world.vectors[::-1], pairs))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_batch(world, tmp_path, value):
    pairs = world.plan.pairs.column("pair").to_numpy()
    vectors = world.vectors.astype(np.float32)
    vectors[np.searchsorted(pairs, world.plan.batch(1)[3])] = value
    first = next(k for k in range(16) if world.plan.batch(1)[3] in world.plan.batch(k))
    message = rf"at step {first + 1} is not a finite number; look at batch {first} of plan 'tiny'"
    rarely = dataclasses.replace(TINY, log_every=100)  # the checkpoint must look by itself
    with pytest.raises(TonicsError, match=message):
        run_of(world, tmp_path, rarely, texts=CachedTexts.of_rows(vectors, pairs))
    for path in (tmp_path / "checkpoints").glob("*/state.safetensors"):
        assert all(torch.isfinite(t).all() for t in load_file(path).values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": "fine"}, "train.text: 'fine', expected 'frozen' or 'finetune'"),
        ({"text": "finetune"}, "train.encoder: ''"),
        ({"precision": "float16"}, "train.precision"),
        ({"lr": 0.0}, "train.lr: 0.0, expected above 0"),
        ({"encoder_lr": float("nan")}, "train.encoder_lr: nan"),
        ({"weight_decay": -0.1}, "train.weight_decay"),
        ({"betas": (0.9, 1.0)}, "train.betas"),
        ({"betas": (0.9,)}, "train.betas"),
        ({"dropout": 1.0}, "train.dropout"),
        ({"warmup": -0.1}, "train.warmup"),
        ({"steps": 0}, "train.steps"),
        ({"max_regions": 0}, "train.max_regions"),
        ({"hidden": 0}, "train.hidden"),
        ({"temperature": 0.001}, "train.temperature"),
        ({"loss": "triplet"}, "train.loss: 'triplet', expected 'info_nce' or 'siglip'"),
        ({"chunk": 0}, "train.chunk"),
        ({"ema": 1.0}, "train.ema"),
        ({"input": "disk"}, "train.input"),
        ({"seed": -1}, "train.seed"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**changes)


def test_more_steps_than_the_plan_has(world, tmp_path):
    with pytest.raises(ConfigError, match="steps = 17 on a plan of 16 batches"):
        run_of(world, tmp_path, dataclasses.replace(TINY, steps=17))


def test_frozen_without_vectors_and_the_reverse(world, tmp_path, encoder_folder):
    with pytest.raises(InputError, match="'frozen' without caption vectors"):
        run_of(world, tmp_path, texts=None)
    config = dataclasses.replace(TINY, text="finetune", encoder=str(encoder_folder))
    with pytest.raises(InputError, match="'finetune' with cached caption vectors"):
        run_of(world, tmp_path, config)


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "tpu"])
def test_devices_that_are_not_there(name):
    with pytest.raises(InputError, match=f"{name!r} is not a device"):
        find_device(name)


def test_the_learning_rate_rises_then_falls_to_zero():
    shares = [lr_share(s, 100, 0.1) for s in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert shares.index(max(shares)) in (9, 10)
    assert shares[9] == shares[10] == 1
    assert all(a >= b for a, b in pairwise(shares[10:]))
    assert shares[-1] < 0.001
    assert lr_share(0, 3, 0.0) == 1


DISK_FULL = """
import resource, sys
from pathlib import Path
import torch
from tonics.errors import DiskFull
from tonics.train.checkpoint import Checkpoint, list_checkpoints
folder = Path(sys.argv[1])
state = {"model.w": torch.zeros(100_000)}
Checkpoint(step=1, identity={}, tensors=state).write(folder)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    Checkpoint(step=2, identity={}, tensors=state).write(folder)
except DiskFull as error:
    print(error.exit_code, [p.name for p in folder.iterdir()])
"""


def test_a_full_disk_is_an_error_in_words_and_leaves_the_last_checkpoint(tmp_path):
    command = [sys.executable, "-c", DISK_FULL, str(tmp_path)]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.stdout == "1 ['step-00000001']\n", shown.stderr


# -- fine-tuning -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finetune(encoder_folder):
    return dataclasses.replace(
        TINY, text="finetune", encoder=str(encoder_folder), encoder_lr=1e-3, seed=3
    )


def test_fine_tuning_trains_the_encoder_and_resumes_exactly(world, finetune, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    given = {"texts": None, "tokens": tmp_path / "tokens"}  # made by the first, found by the rest
    run_of(world, whole, finetune, **given)
    with pytest.raises(Killed):
        run_of(world, stopped, finetune, **given, progress=kill_at(7))
    assert run_of(world, stopped, finetune, **given).resumed == 4
    assert bytes_of(stopped) == bytes_of(whole)
    assert lines_of(stopped) == lines_of(whole)
    place = Path(finetune.encoder).name.encode()  # a run can be moved, and gives no paths away
    assert not [f for f in (whole / "encoder").iterdir() if b"/" + place in f.read_bytes()]
    before = load_file(Path(finetune.encoder) / "model.safetensors")
    after = load_file(whole / "model.safetensors")
    name = "encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(after[f"text.encoder.{name}"], before[name])


def test_the_optimizer_follows_the_schedule_at_both_rates(world, finetune, tmp_path, monkeypatch):
    import tonics.train.trainer as trainer

    used, honest = [], trainer.train_step

    def spied(state, step, batch):
        used.append({group["lr"] for group in state.optimizer.param_groups})
        return honest(state, step, batch)

    monkeypatch.setattr(trainer, "train_step", spied)
    run_of(world, tmp_path, finetune, texts=None)
    shares = [lr_share(step, 16, finetune.warmup) for step in range(16)]
    assert used == [{share * finetune.lr, share * finetune.encoder_lr} for share in shares]


def test_a_changed_encoder_is_refused_though_its_name_is_the_same(world, finetune, tmp_path):
    folder = shutil.copytree(finetune.encoder, tmp_path / "encoder")
    config = dataclasses.replace(finetune, encoder=str(folder))
    with pytest.raises(Killed):
        run_of(world, tmp_path / "run", config, texts=None, progress=kill_at(5))
    file = folder / "tokenizer_config.json"
    file.write_text(file.read_text().replace("}", ', "note": 1}', 1))
    with pytest.raises(PlanMismatch, match="encoder"):
        run_of(world, tmp_path / "run", config, texts=None)


def test_a_fine_tuned_run_evaluates_without_the_encoder_it_started_from(world, finetune, tmp_path):
    folder = shutil.copytree(finetune.encoder, tmp_path / "encoder")
    config = dataclasses.replace(finetune, encoder=str(folder))
    run_of(world, tmp_path / "run", config, texts=None)
    shutil.rmtree(folder)
    found = evaluate(tmp_path / "run", world.store, None, world.queries())
    assert (found["images"], found["captions"]) == (64, 128)
    assert 0 < found["rsum"] <= 600
