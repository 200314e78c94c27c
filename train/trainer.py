"""Train a dual encoder on a plan: every batch once, in order.

    config = TrainConfig(lr=3e-4)
    result = train(config, plan, store, CachedTexts.of_rows(vectors), Path("runs/first"))

Writes into the run's folder ``config.json``, ``metrics.jsonl``, ``checkpoints/`` and, at the end,
``model.safetensors``; for a fine-tuned text tower also ``encoder/`` with its tokenizer. A run that
was killed and is started again goes on from its newest checkpoint and ends with the same weights
and the same metrics, times apart: each step seeds its own random numbers, so its number is all
there is to restore.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..artifact import atomic_file, atomic_folder, write_json
from ..errors import InputError
from .checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_optimizer,
    optimizer_tensors,
    save_tensors,
)
from .config import TrainConfig
from .metrics import Metrics
from .model.dual import SHARED, DualEncoder, ModelConfig
from .model.encoders import encoder_fingerprint, load_text_encoder
from .model.loss import info_nce
from .plan import Plan
from .stream import Batch, Cached, Texts, TokenisedTexts, stream

if TYPE_CHECKING:
    from ..features import FeatureStore

log = logging.getLogger(__name__)

RUN_FORMAT, RUN_VERSION = "tonics-run", 2
Progress = Callable[[int, int, dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """A finished run.

    Attributes:
        steps: batches trained on in all. resumed: the step this call went on from.
        metrics: the last line of ``metrics.jsonl``.
        parameters: how many numbers were trained.
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
) -> TrainResult:
    """Train on a plan's batches, or go on where a killed run stopped.

    Args:
        texts: caption vectors or token states for a frozen text tower; None to fine-tune one.
        run: the run's folder; made when absent.
        progress: called after every step with steps done, steps in all, and the newest metrics.

    Raises:
        PlanMismatch: the plan was built for another store, or the run's checkpoint is of another
            plan, configuration, store or encoder.
        TonicsError: the loss is no longer finite.
    """
    _refuse_pools(plan)
    plan.require(features=store.content_hash)
    total = config.total_steps(plan)
    where = find_device(device)
    with torch.random.fork_rng([where] if where.type == "cuda" else []):
        text = _frozen(texts) if config.text == "frozen" else _finetuned(config, plan, texts)
        state = _begin(config, plan, store, text, run, where)
        start = state.resume(run)
        _write_config(run, state, text)
        batches = stream(
            plan,
            store,
            text.source,
            start=start,
            max_regions=config.max_regions,
            prefetch=config.prefetch,
            device=where,
        )
        with contextlib.closing(iter(batches)) as source:
            _run_steps(state, islice(source, total - start), total, run, progress)
        _write_model(run, state.model)
    log.info("trained %d steps of plan %s (%d before this call)", total, plan.plan_id, start)
    count = sum(p.numel() for p in state.model.parameters())
    last = state.metrics.last
    return TrainResult(run=run, steps=total, resumed=start, metrics=last, parameters=count)


def _refuse_pools(plan: Plan) -> None:
    if plan.schedule is not None:
        raise InputError(
            plan.path,
            "the batches of an adaptive plan are pools to draw from",
            expected="a static plan",
            do="drive it with tonics.train.adaptive, and train on its replay",
        )


def _run_steps(
    state: _State,
    batches: Iterator[Batch],
    total: int,
    run: Path,
    progress: Progress | None,
) -> None:
    config, plan, metrics = state.config, state.plan, state.metrics
    with metrics:
        for batch in metrics.waiting(batches):
            lr = state.set_lr(batch.step, total)
            metrics.add(batch.step, *train_step(state, batch))
            done = batch.step + 1
            ends_phase = done < total and plan.phase_of(done) != plan.phase_of(batch.step)
            if done % config.log_every == 0 or ends_phase or done == total:
                metrics.refuse_nan(plan.path.name)
                metrics.write(
                    {
                        "step": done,
                        "epoch": plan.epoch_of(batch.step),
                        "phase": plan.phase_of(batch.step),
                        "temperature": state.model.temperature.item(),
                        "lr": lr,
                    }
                )
            if done % config.checkpoint_every == 0 or done == total:
                metrics.refuse_nan(plan.path.name)
                metrics.flush()
                state.checkpoint(done).write(run / "checkpoints")
            if progress:
                progress(done, total, metrics.last)


def train_step(state: _State, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Take one step of the optimizer.

    Returns:
        The loss, the (B, B) logits and the gradient's norm before clipping.
    """
    config, model = state.config, state.model
    seed_step(config.seed, batch.step)
    batch = batch.to(state.device)
    bf16 = config.precision == "bfloat16"
    with torch.autocast(state.device.type, torch.bfloat16, enabled=bf16):
        images, texts = model(batch)
    loss, logits = info_nce(images, texts, model.temperature)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
    state.optimizer.step()
    model.clamp_temperature()
    return loss, logits, norm


def seed_step(seed: int, step: int) -> None:
    """Seed everything a step draws (dropout, left-out regions); step -1 is the first weights."""
    mixed = np.random.SeedSequence((seed, step + 1)).generate_state(1, np.uint64)
    torch.manual_seed(int(mixed[0] >> np.uint64(1)))


def lr_share(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate at a step: a linear rise, then a cosine to zero.

    >>> [round(lr_share(s, 10, 0.2), 2) for s in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.04]
    """
    rising = round(total * warmup)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (total - rising)))


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


# -- what a run is made of -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _TextSide:
    """Where captions come from: cached vectors, or tokens for an encoder that is trained along."""

    source: Texts
    dim: int
    encoder: Any = None
    tokenizer: Any = None
    fingerprint: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _State:
    """Everything that changes while training, and what it is bound to."""

    config: TrainConfig
    plan: Plan
    device: torch.device
    model: DualEncoder
    optimizer: torch.optim.AdamW
    metrics: Metrics
    identity: dict[str, Any]

    def set_lr(self, step: int, total: int) -> float:
        """Set the learning rates of a step; return that of the towers."""
        share = lr_share(step, total, self.config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = share * group["peak_lr"]
        return share * self.config.lr

    def checkpoint(self, step: int) -> Checkpoint:
        """Everything as it is after ``step`` batches."""
        weights = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        adamw = optimizer_tensors(self.model, self.optimizer)
        tensors = {**weights, **adamw, "sums": self.metrics.sums}
        return Checkpoint(step=step, identity=self.identity, tensors=tensors)

    def resume(self, run: Path) -> int:
        """Take over the run's newest checkpoint, if there is one; return its step."""
        paths = list_checkpoints(run / "checkpoints")
        if not paths:
            self.metrics.cut(0)
            return 0
        found = Checkpoint.read(paths[-1])
        found.require(self.identity, run)
        weights = {k: found.tensors[f"model.{k}"] for k in self.model.state_dict()}
        self.model.load_state_dict(weights)
        load_optimizer(self.model, self.optimizer, found.tensors)
        self.metrics.sums.copy_(found.tensors["sums"])
        self.metrics.cut(found.step)
        log.info("going on from step %d of %s", found.step, run)
        return found.step


def _frozen(texts: Cached | None) -> _TextSide:
    if texts is None:
        found = "'frozen' without caption vectors"
        raise InputError("train.text", found, do="run 'tonics embed' first")
    return _TextSide(source=texts, dim=texts.dim)


def _finetuned(config: TrainConfig, plan: Plan, texts: Cached | None) -> _TextSide:
    if texts is not None:
        raise InputError("train.text", "'finetune' with cached caption vectors", expected="none")
    tokenizer, encoder = load_text_encoder(config.encoder, config.encoder_revision)
    return _TextSide(
        source=TokenisedTexts.of_plan(tokenizer, plan, config.max_tokens),
        dim=encoder.config.hidden_size,
        encoder=encoder,
        tokenizer=tokenizer,
        fingerprint=encoder_fingerprint(config.encoder, config.encoder_revision),
    )


def _begin(
    config: TrainConfig,
    plan: Plan,
    store: FeatureStore,
    text: _TextSide,
    run: Path,
    device: torch.device,
) -> _State:
    """Build model and optimizer with fresh weights, the same for a seed."""
    shapes = ModelConfig(
        feature_dim=store.dim,
        text_dim=text.dim,
        text=text.source.kind,
        **{name: getattr(config, name) for name in SHARED},
    )
    seed_step(config.seed, -1)
    model = DualEncoder(shapes, text.encoder).to(device).train()
    identity = {
        "plan_id": plan.plan_id,
        "total_steps": config.total_steps(plan),
        "features": store.content_hash,
        "texts": text.source.identity,
        "encoder": text.fingerprint,
        **config.identity(),
    }
    return _State(
        config=config,
        plan=plan,
        device=device,
        model=model,
        optimizer=_optimizer(model, config),
        metrics=Metrics(run / "metrics.jsonl", device),
        identity=identity,
    )


def _optimizer(model: DualEncoder, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over up to four groups: in the encoder or not, decayed (matrices) or not."""
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        key = (name.startswith("text.encoder."), parameter.ndim >= 2)
        groups.setdefault(key, []).append(parameter)
    described = [
        {
            "params": members,
            "peak_lr": config.encoder_lr if in_encoder else config.lr,
            "weight_decay": config.weight_decay if decayed else 0.0,
        }
        for (in_encoder, decayed), members in groups.items()
    ]
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    return torch.optim.AdamW(described, lr=config.lr, betas=config.betas, fused=fused)


def _write_config(run: Path, state: _State, text: _TextSide) -> None:
    """Write what is needed to load the model again, and what it was made from."""
    described = {
        "format": RUN_FORMAT,
        "version": RUN_VERSION,
        "plan": state.plan.path.name,
        "model": asdict(state.model.config),
        "train": asdict(state.config),
        "identity": state.identity,
    }
    write_json(run / "config.json", described)
    if text.tokenizer is not None:
        with atomic_folder(run / "encoder") as tmp:
            text.encoder.config.save_pretrained(tmp)
            text.tokenizer.save_pretrained(tmp)


def _write_model(run: Path, model: DualEncoder) -> None:
    with atomic_file(run / "model.safetensors") as tmp:
        save_tensors(model.state_dict(), tmp)
