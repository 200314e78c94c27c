"""Train a dual encoder on a plan: every batch once, in order.

    config = TrainConfig(lr=3e-4)
    result = train(config, plan, store, CachedTexts.of_rows(vectors), Path("runs/first"))

Writes into the run's folder ``config.json``, ``metrics.jsonl``, ``checkpoints/`` and, at the end,
``model.safetensors``; for a fine-tuned text tower also ``encoder/`` with its tokenizer, for an
adaptive plan ``replay/``, the batches it drew as a plan. A run that was killed and is started again
goes on from its newest checkpoint and ends with the same weights and the same metrics, times apart:
each step seeds its own random numbers, so its number is all there is to restore.

Started by ``torchrun``, the processes share every batch: each takes its rows, and the gradient is
that of one process. All of them call ``train`` with the same arguments; the first one writes.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import InputError
from .config import TrainConfig
from .model.packed import Packed
from .optimizing import lr_share, trained
from .plan import Plan
from .ranks import joined, own_device
from .state import (
    RUN_FORMAT,
    RUN_VERSION,
    State,
    begin,
    seed_step,
    text_side,
    write_config,
    write_model,
)
from .stream import Batch, Cached, Texts, fits, resident, stream

if TYPE_CHECKING:
    from ..features import FeatureStore

__all__ = ["RUN_FORMAT", "RUN_VERSION", "TrainResult", "find_device", "lr_share", "train"]

log = logging.getLogger(__name__)

Progress = Callable[[int, int, dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """A finished run.

    Attributes:
        steps: batches trained on in all. resumed: the step this call went on from.
        metrics: the last line of ``metrics.jsonl``.
        parameters: how many numbers the model has.
    """

    run: Path
    steps: int
    resumed: int
    metrics: dict[str, Any]
    parameters: int


def train(
    config: TrainConfig,
    plan: Plan,
    store: FeatureStore,
    texts: Cached | None,
    run: Path,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    tokens: Path | None = None,
) -> TrainResult:
    """Train on a plan's batches, or go on where a killed run stopped.

    Args:
        plan: a list of batches, or pools, of which the adaptive curriculum then draws.
        texts: caption vectors or token states for a frozen text tower; None to fine-tune one.
        run: the run's folder; made when absent.
        device: ``cuda`` is each process's own GPU under torchrun.
        progress: called after every step with steps done, steps in all, and the newest metrics.
        tokens: a folder to keep token ids in, for a fine-tuned text tower of later runs.

    Raises:
        PlanMismatch: the plan was built for another store, or the run's checkpoint is of another
            plan, configuration, store or encoder, or of another number of processes.
        TonicsError: the loss is no longer finite.
    """
    plan.require(features=store.content_hash)
    config.total_steps(plan)
    where = find_device(own_device(device))
    with (
        joined(device) as ranks,
        torch.random.fork_rng([where] if where.type == "cuda" else []),
    ):
        plan.rows_per_rank(ranks.world)
        text = text_side(config, plan, texts, tokens)
        state = begin(config, plan, store, text, run, where, ranks)
        start = state.resume(run)
        if ranks.leads:
            state.course.prepare(run)
            write_config(run, state, text, fresh=not start)
        with contextlib.closing(_source(state, store, text.source, start)) as batches:
            _run_steps(state, batches, start, run, progress)
        if ranks.leads:
            state.course.finish(run)
            write_model(run, state)
    log.info("trained %d steps of plan %s (%d before this call)", state.total, plan.plan_id, start)
    return TrainResult(
        run=run,
        steps=state.total,
        resumed=start,
        metrics=state.metrics.last,
        parameters=sum(p.numel() for p in state.model.parameters()),
    )


def _source(
    state: State, store: FeatureStore, texts: Texts, start: int
) -> Generator[Batch, None, None]:
    """This rank's rows of the course's batches, from where ``config.input`` says."""
    config, ranks, device = state.config, state.ranks, state.device
    there = config.input == "resident"
    if config.input == "auto" and device.type == "cuda":
        there = fits(state.plan, store, device, config.max_regions)
    batches = (resident if there else stream)(
        state.plan,
        store,
        texts,
        steps=state.course.steps(start),
        rank=ranks.rank,
        world=ranks.world,
        max_regions=config.max_regions,
        prefetch=config.prefetch,
        device=device,
    )
    with contextlib.closing(iter(batches)) as found, contextlib.closing(state.course):
        yield from found


def _run_steps(
    state: State, batches: Iterator[Batch], start: int, run: Path, progress: Progress | None
) -> None:
    config, plan, metrics, total = state.config, state.plan, state.metrics, state.total
    with metrics:
        for step, batch in enumerate(metrics.waiting(batches), start):
            if step == start and state.ranks.world > 1:
                _rehearse(state, batch)
            lr = state.set_lr(step)
            train_step(state, step, batch)
            done = step + 1
            if done % config.log_every == 0 or done == total or _ends_phase(state, done):
                metrics.refuse_nan(plan.path.name, state.course.batch_at)
                metrics.write({"step": done, **_place(state, batch.step), "lr": lr})
            if done % config.checkpoint_every == 0 or done == total:
                metrics.refuse_nan(plan.path.name, state.course.batch_at)
                metrics.flush()
                state.save(done, run)
            if progress:
                progress(done, total, metrics.last)


def train_step(state: State, step: int, batch: Batch) -> None:
    """Take one step of the optimizer, and give account of it; waits for no device."""
    seed_step(state.config.seed, step, state.ranks.rank)
    state.optimizer.zero_grad(set_to_none=True)
    loss, accuracy = state.wrapped(batch.to(state.device))
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(trained(state.optimizer), state.config.clip_norm)
    state.optimizer.step()
    state.model.clamp_temperature()
    state.average.take(step)
    tokens = len(batch.texts.rows) if isinstance(batch.texts, Packed) else 0
    padded = round(tokens * state.model.text.padding(batch.texts))
    counts = {"samples": len(batch), "tokens": tokens, "padded": padded}
    state.metrics.add(step, loss, accuracy, norm, **counts)
    state.course.saw(step, accuracy)


def _rehearse(state: State, batch: Batch) -> None:
    """Let the ranks settle which gradients they add up together, without taking a step.

    They choose it by the order in which gradients come, which they know after the second time, and
    it decides how sums are rounded: a resumed run must not take its first steps in another way.
    """
    for _ in range(2):
        seed_step(state.config.seed, -1, state.ranks.rank)
        state.wrapped(batch.to(state.device))[0].backward()
        state.optimizer.zero_grad(set_to_none=True)


def _ends_phase(state: State, done: int) -> bool:
    if state.plan.schedule is not None or done == state.total:
        return False
    return state.plan.phase_of(done) != state.plan.phase_of(done - 1)


def _place(state: State, batch: int) -> dict[str, Any]:
    """Where in the plan a batch stands, and how the model does apart from the loss."""
    plan, number = state.plan, state.plan.phase_of(batch)
    names = [phase.name for phase in plan.phases]
    return {
        "epoch": plan.epoch_of(batch),
        "phase": number,
        "phase_name": names[number] if number < len(names) else "",
        **state.course.facts(),
        "temperature": state.model.temperature.item(),
    }


def find_device(name: str) -> torch.device:
    """Turn ``cpu`` or ``cuda`` into a device.

    Raises:
        InputError: torch has no such device on this machine.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        found = f"{name!r} is not a device torch can use here"
        raise InputError(
            "device", found, expected="'cpu', or 'cuda' on a machine with a GPU"
        ) from error
    return device
