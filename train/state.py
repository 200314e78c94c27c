"""What a training run is made of, what of it changes, and how that is saved and taken up again."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ..artifact import atomic_file, atomic_folder, write_json
from ..errors import FormatError, InputError
from .checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_optimizer,
    optimizer_tensors,
    save_tensors,
)
from .config import TrainConfig
from .course import Course, course_of
from .metrics import Metrics
from .model.dual import SHARED, DualEncoder, ModelConfig
from .model.encoders import encoder_fingerprint, load_text_encoder
from .objective import Objective, compile_towers, spread
from .optimizing import Average, adamw, lr_share, set_lr
from .plan import Plan
from .ranks import Ranks
from .stream import Cached, Texts, TokenisedTexts

if TYPE_CHECKING:
    from ..features import FeatureStore

log = logging.getLogger(__name__)

RUN_FORMAT, RUN_VERSION = "tonics-run", 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextSide:
    """Where captions come from: cached vectors, or tokens for an encoder that is trained along."""

    source: Texts
    dim: int
    encoder: Any = None
    tokenizer: Any = None
    fingerprint: dict[str, Any] | None = None


def text_side(
    config: TrainConfig, plan: Plan, texts: Cached | None, tokens: Path | None = None
) -> TextSide:
    """Prepare the text side that a configuration asks for.

    Args:
        tokens: a folder to keep token ids in.

    Raises:
        InputError: cached vectors for a fine-tuned tower, or none for a frozen one.
    """
    if config.text == "frozen":
        if texts is None:
            found = "'frozen' without caption vectors"
            raise InputError("train.text", found, do="run 'tonics embed' first")
        return TextSide(source=texts, dim=texts.dim)
    if texts is not None:
        raise InputError("train.text", "'finetune' with cached caption vectors", expected="none")
    tokenizer, encoder = load_text_encoder(config.encoder, config.encoder_revision)
    return TextSide(
        source=TokenisedTexts.of_plan(tokenizer, plan, config.max_tokens, cache=tokens),
        dim=encoder.config.hidden_size,
        encoder=encoder,
        tokenizer=tokenizer,
        fingerprint=encoder_fingerprint(config.encoder, config.encoder_revision),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class State:
    """Everything that changes while training, and what it is bound to.

    Attributes:
        total: batches of the run in all.
        objective: the model and its loss. wrapped: the same, as it is called on several ranks.
        identity: what a checkpoint must be of, by name.
    """

    config: TrainConfig
    plan: Plan
    total: int
    ranks: Ranks
    device: torch.device
    course: Course
    objective: Objective
    wrapped: nn.Module
    optimizer: torch.optim.AdamW
    average: Average
    metrics: Metrics
    identity: dict[str, Any]

    @property
    def model(self) -> DualEncoder:
        """The model alone."""
        model: DualEncoder = self.objective.model
        return model

    def set_lr(self, step: int) -> float:
        """Set the learning rates of a step; return that of the towers."""
        share = lr_share(step, self.total, self.config.warmup)
        set_lr(self.optimizer, share)
        return share * self.config.lr

    def save(self, step: int, run: Path) -> None:
        """Write everything as it is after ``step`` batches; called on all ranks, one writes."""
        tensors = {
            **self.objective.state_dict(),
            **optimizer_tensors(self.objective, self.optimizer),
            **{f"ema.{name}": tensor for name, tensor in self.average.tensors.items()},
            "sums": self.metrics.share_sums(),
        }
        state = self.course.state()
        if self.ranks.leads:
            made = Checkpoint(step=step, identity=self.identity, tensors=tensors, state=state)
            made.write(run / "checkpoints")

    def resume(self, run: Path) -> int:
        """Take over the run's newest checkpoint, if there is one; return its step."""
        paths = list_checkpoints(run / "checkpoints")
        found = Checkpoint.read(paths[-1]) if paths else None
        if found is not None:
            found.require(self.identity, run)
        step = found.step if found is not None else 0
        self.ranks.agree(run, [step, self.identity])
        self.metrics.cut(step)
        if found is not None:
            self._take_over(found, paths[-1])
            log.info("going on from step %d of %s", step, run)
        return step

    def _take_over(self, found: Checkpoint, path: Path) -> None:
        try:
            self._restore(found)
        except (KeyError, RuntimeError, ValueError) as error:
            what = f"not what this run needs ({type(error).__name__}: {str(error)[:200]})"
            do = f"delete {path.name}: the run goes on from the one before it"
            raise FormatError(path, what, do=do) from error

    def _restore(self, found: Checkpoint) -> None:
        tensors = found.tensors
        self.objective.load_state_dict({k: tensors[k] for k in self.objective.state_dict()})
        load_optimizer(self.objective, self.optimizer, tensors)
        averaged = {k: t for k, t in tensors.items() if k.startswith("ema.")}
        self.average.load({k.removeprefix("ema."): t for k, t in averaged.items()})
        self.metrics.sums.copy_(tensors["sums"])
        self.course.resume(found.state, found.step)


def begin(
    config: TrainConfig,
    plan: Plan,
    store: FeatureStore,
    text: TextSide,
    run: Path,
    device: torch.device,
    ranks: Ranks,
) -> State:
    """Build model and optimizer with fresh weights, the same for a seed."""
    total = config.total_steps(plan)
    seed_step(config.seed, -1)
    model = DualEncoder(_shapes(config, store, text), text.encoder).to(device).train()
    if config.compile:
        compile_towers(model)
    objective = Objective(model, config, ranks).to(device)
    return State(
        config=config,
        plan=plan,
        total=total,
        ranks=ranks,
        device=device,
        course=course_of(plan, total, config.seed, ranks),
        objective=objective,
        wrapped=spread(objective, ranks),
        optimizer=adamw(objective, config),
        average=Average(objective, config.ema),
        metrics=Metrics(run / "metrics.jsonl", device, ranks, config.tensorboard),
        identity={
            "plan_id": plan.plan_id,
            "features": store.content_hash,
            "texts": text.source.identity,
            "encoder": text.fingerprint,
            "ranks": ranks.world,
            **config.identity(),
        },
    )


def _shapes(config: TrainConfig, store: FeatureStore, text: TextSide) -> ModelConfig:
    return ModelConfig(
        feature_dim=store.dim,
        text_dim=text.dim,
        text=text.source.kind,
        **{name: getattr(config, name) for name in SHARED},
    )


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed everything a rank draws in a step (dropout, left-out regions).

    Step -1 is the first weights, which are the same on all ranks.
    """
    mixed = np.random.SeedSequence((seed, step + 1, rank)).generate_state(1, np.uint64)
    torch.manual_seed(int(mixed[0] >> np.uint64(1)))


def write_config(run: Path, state: State, text: TextSide, *, fresh: bool) -> None:
    """Write what is needed to load the model again, and what it was made from.

    Args:
        fresh: the run begins: a model of an earlier one, which is not of this configuration, goes.
    """
    if fresh:
        (run / "model.safetensors").unlink(missing_ok=True)
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
            forget_calls(text.tokenizer)
            text.encoder.config.save_pretrained(tmp)
            text.tokenizer.save_pretrained(tmp)


def forget_calls(tokenizer: Any) -> None:
    """Undo what a fast tokenizer keeps of its last call, if there was one: cutting, and padding."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()


def write_model(run: Path, state: State) -> None:
    """Write the weights, averaged where the run averages them."""
    averaged = {k.removeprefix("model."): t for k, t in state.average.tensors.items()}
    weights = {k: averaged.get(k, t) for k, t in state.model.state_dict().items()}
    with atomic_file(run / "model.safetensors") as tmp:
        save_tensors(weights, tmp)
