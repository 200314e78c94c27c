"""What a trainer's owner may set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from ..errors import ConfigError
from .model import HEADS, POOLINGS
from .model.tokens import MAX_TOKENS
from .plan import Plan


def _one_of(names: Sequence[str]) -> str:
    return "one of " + ", ".join(map(repr, names))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """What a trainer's owner may set; the defaults are those of a frozen text tower.

    Attributes:
        encoder, encoder_revision: the text encoder; loaded only for ``text = "finetune"``.
        text: ``"frozen"`` starts from cached caption vectors, ``"finetune"`` trains the encoder
            too.
        pooling, text_pooling: how regions, and tokens where the text tower is given any, become one
            vector: ``gpo``, ``mean``, ``attention`` or ``transformer:1``, ``:2``, ``:4``.
        train_layers: how many of the encoder's last layers are fine-tuned; None for all of it.
        embedding_dim, hidden, dropout, region_dropout, token_dropout, temperature: see
            ``ModelConfig``.
        max_regions: only the first (best) regions of each image; None for all.
        max_tokens: where a caption is cut off.
        lr: peak learning rate of the towers. encoder_lr: of the text encoder.
        weight_decay: of matrices; biases, norms and the temperature have none.
        betas: of AdamW. warmup: share of the steps with a rising rate; then a cosine to zero.
        clip_norm: largest norm of the gradient.
        steps: how many of the plan's batches; None for all.
        precision: ``"bfloat16"`` computes linear layers and attention in bf16; loss, norms and
            pooling stay float32.
        seed: of the weights and of everything drawn while training.
        log_every, checkpoint_every: in steps.
        prefetch: batches that a thread works ahead.
        loss: ``"info_nce"``, or ``"siglip"``, which likes to start at a temperature of 0.1.
        chunk: a batch of more pairs has its logits computed in blocks of ``chunk**2``.
        ema: how much of the average of all weights a step keeps, such as 0.999; the average is
            what the run ends with. 0: none is taken.
        compile: let torch compile the towers: minutes at the start, and other random numbers.
        tensorboard: write the metrics for TensorBoard, too (needs its package).
        input: where features come from: ``"store"`` reads them as they are needed, ``"resident"``
            keeps all of them on the device, ``"auto"`` does so on a GPU where they fit.
    """

    encoder: str = ""
    encoder_revision: str | None = None
    text: Literal["frozen", "finetune"] = "frozen"
    pooling: str = "gpo"
    text_pooling: str = "gpo"
    train_layers: int | None = None
    embedding_dim: int = 512
    hidden: int = 512
    dropout: float = 0.3
    region_dropout: float = 0.2
    token_dropout: float = 0.2
    temperature: float = 0.07
    max_regions: int | None = None
    max_tokens: int = MAX_TOKENS
    lr: float = 3e-4
    encoder_lr: float = 3e-5
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    warmup: float = 0.05
    clip_norm: float = 1.0
    steps: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    log_every: int = 20
    checkpoint_every: int = 200
    prefetch: int = 2
    loss: Literal["info_nce", "siglip"] = "info_nce"
    chunk: int = 16_384
    ema: float = 0.0
    compile: bool = False
    tensorboard: bool = False
    input: Literal["store", "resident", "auto"] = "auto"

    def __post_init__(self) -> None:
        allowed = {
            "text": (self.text in ("frozen", "finetune"), "'frozen' or 'finetune'"),
            "precision": (self.precision in ("float32", "bfloat16"), "'float32' or 'bfloat16'"),
            "encoder": (self.text == "frozen" or self.encoder, "a text encoder, to fine-tune it"),
            "pooling": (self.pooling in POOLINGS, _one_of(POOLINGS)),
            "text_pooling": (self.text_pooling in POOLINGS, _one_of(POOLINGS)),
            "train_layers": self._layers_allowed(),
            "embedding_dim": (self._fits_heads, f"a multiple of {HEADS}"),
            "max_regions": (self.max_regions is None or self.max_regions > 0, "1 or more"),
            "steps": (self.steps is None or self.steps > 0, "1 or more"),
            "lr": (self.lr > 0, "above 0"),
            "encoder_lr": (self.encoder_lr >= 0, "0 or more"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "betas": (
                len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
                "two numbers of 0 to below 1",
            ),
            "temperature": (0.01 <= self.temperature <= 1, "0.01 to 1"),
            "clip_norm": (self.clip_norm > 0, "above 0"),
            "seed": (self.seed >= 0, "0 or more"),
            "prefetch": (self.prefetch >= 0, "0 or more"),
            "loss": (self.loss in ("info_nce", "siglip"), "'info_nce' or 'siglip'"),
            "input": (
                self.input in ("store", "resident", "auto"),
                "'store', 'resident' or 'auto'",
            ),
        }
        for key in ("hidden", "max_tokens", "log_every", "checkpoint_every", "chunk"):
            allowed[key] = (getattr(self, key) > 0, "1 or more")
        for key in ("dropout", "region_dropout", "token_dropout", "warmup", "ema"):
            allowed[key] = (0 <= getattr(self, key) < 1, "0 to below 1")
        for key, (fine, expected) in allowed.items():
            if not fine:
                raise ConfigError(f"train.{key}", repr(getattr(self, key)), expected=expected)

    def _layers_allowed(self) -> tuple[bool, str]:
        if self.train_layers is None or self.text == "finetune":
            return self.train_layers is None or self.train_layers >= 0, "0 or more"
        return False, "none where the text tower is frozen"

    @property
    def _fits_heads(self) -> bool:
        return self.embedding_dim > 0 and self.embedding_dim % HEADS == 0

    def total_steps(self, plan: Plan) -> int:
        """How many batches will be trained on; of pools as many as the plan's schedule says.

        Raises:
            ConfigError: more than the plan has, or it has none.
        """
        count = len(plan)
        if count and plan.schedule is not None:
            count = int(plan.schedule["steps"])
        if not count or (self.steps or 0) > count:
            found = f"steps = {self.steps} on a plan of {count} batches"
            raise ConfigError(
                "train.steps", found, do="build a plan with more epochs, or take fewer"
            )
        return self.steps or count

    def identity(self) -> dict[str, Any]:
        """The settings that affect the result; an encoder's name is not its content."""
        outside = {"checkpoint_every", "log_every", "prefetch", "tensorboard", "input"}
        outside |= {"encoder", "encoder_revision"}
        if self.text == "frozen":
            outside |= {"encoder_lr", "max_tokens", "train_layers"}
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in outside}
        return kept | {"betas": list(self.betas)}
