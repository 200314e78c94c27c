"""Train: a plan, a feature store and caption vectors become a model, ``runs/NAME``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...artifact import Manifest
from ...errors import ConfigError, MissingAsset
from ...features import FeatureStore
from ...train.checkpoint import checkpointed
from ...train.config import TrainConfig
from ...train.model.encoders import encoder_fingerprint
from ...train.plan import Plan
from ...train.plan_files import read_header
from .. import config as configs
from ..engines.machine import device_of, torch_threads, worker_count
from ..plans.eligible import Eligible, find_eligible
from ..stage import Estimate, Made, Shard, Stage, require_done
from ..vectors import States, Vectors
from .extract import load_store

if TYPE_CHECKING:
    from ...train.ranks import Ranks
    from ...train.trainer import TrainResult


class TrainStage(Stage):
    """Runs the trainer over a plan; inputs are batches."""

    kind: ClassVar[str] = "train"
    renewable: ClassVar[frozenset[str] | None] = frozenset()
    parallel: ClassVar[bool] = False
    unit: ClassVar[str] = "batches"
    uses_device: ClassVar[bool] = True

    @property
    def config(self) -> configs.Run:
        """The section ``[runs.NAME]``."""
        return self.dataset.config.runs[self.name]

    @property
    def estimate(self) -> Estimate:  # type: ignore[override]
        """What a batch takes: of small towers, with regions pooled one by one, or of an encoder."""
        pooled = self.settings.pooling != "mean" or self.pools_states
        each = 0.0004 if not pooled else 0.002
        tuned = 0.015 if not self.config.embeddings else 0.0
        return Estimate(cpu_s=self.plan_config.batch_size * (each + tuned), bytes=40_000)

    @property
    def where(self) -> str:
        """Where the trainer's settings stand, for messages."""
        return f"{self.dataset.root / configs.CONFIG_NAME}: runs.{self.name}.train"

    @property
    def plan_config(self) -> configs.Plan:
        """The section of the run's plan."""
        return self.dataset.config.plans[self.config.plan]

    @cached_property
    def settings(self) -> TrainConfig:
        """The trainer's own settings, checked; the text tower follows from ``embeddings``."""
        self._refuse_ignored()
        text = "frozen" if self.config.embeddings else "finetune"
        encoder = self.dataset.local(self.config.train.get("encoder", ""))
        values = {**self.config.train, "text": text, "encoder": encoder}
        return configs.settings_of(TrainConfig, values, self.where)

    def _refuse_ignored(self) -> None:
        """Refuse settings that would do nothing here, rather than let anybody believe in them."""
        name, given = self.config.embeddings, self.config.train
        if "text" in given:
            do = "leave 'embeddings' out to fine-tune 'encoder'; with it the tower is frozen"
            raise ConfigError(f"{self.where}.text", "follows from the run's embeddings", do=do)
        if not name:
            return
        for key in ("encoder", "encoder_revision", "encoder_lr", "max_tokens", "train_layers"):
            if key in given:
                found = f"has no effect beside embeddings = {name!r}, a frozen text tower"
                do = "take it out, or leave 'embeddings' out to fine-tune the encoder"
                raise ConfigError(f"{self.where}.{key}", found, do=do)
        pooling = given.get("text_pooling", "mean")
        if pooling != "mean" and not self.dataset.config.embeddings[name].states:
            found = f"value {pooling!r}: there are no token states to pool"
            do = f"set states = true in [embeddings.{name}], or take it out"
            raise ConfigError(f"{self.where}.text_pooling", found, do=do)

    @property
    def threads(self) -> int:
        """Torch threads: as configured, else one for small heads and all cores for an encoder.

        The matrices of a frozen run are so small that threads wait for one another longer than
        they work (docs/benchmarks.md).
        """
        configured = self.dataset.config.runtime.threads
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # processes that torchrun started here
        cores = max(1, worker_count(0) // beside)
        return configured or (1 if self.config.embeddings else cores)

    @property
    def pools_states(self) -> bool:
        """Whether a frozen text tower pools token states itself: where there are any to pool."""
        name = self.config.embeddings
        kept = bool(name) and self.dataset.config.embeddings[name].states
        return kept and self.settings.text_pooling != "mean"

    @property
    def inputs(self) -> tuple[str, ...]:
        found = [f"plan/{self.config.plan}", f"extract/{self.plan_config.features}"]
        if self.config.embeddings:
            found.append(f"embed/{self.config.embeddings}")
        return tuple(found)

    @property
    def folder(self) -> Path:
        return self.dataset.run(self.name)

    def check(self) -> None:
        settings = self.settings
        if settings.tensorboard and find_spec("tensorboard") is None:
            do = "pip install tensorboard, or read metrics.jsonl"
            raise MissingAsset(f"{self.where}.tensorboard", "its package is not installed", do=do)
        if self.config.embeddings:
            return
        try:
            encoder_fingerprint(settings.encoder, settings.encoder_revision)
        except MissingAsset as error:
            where = f"{self.where}.encoder: {error.where}"
            raise MissingAsset(where, error.found, do=error.do) from error

    def shards(self) -> list[Shard]:
        steps, there = self.settings.steps, self._batches()
        if (steps or 0) > there:
            found = f"value {steps}, and plan {self.config.plan!r} has {there:,} batches"
            do = "take fewer, or give the plan more epochs"
            raise ConfigError(f"{self.where}.steps", found, do=do)
        return [Shard(name="all", rows=steps or there)]

    def _batches(self) -> int:
        """How many batches the plan offers; of pools, what its schedule draws."""
        batches = int(require_done(self.dataset, f"plan/{self.config.plan}").counts["batches"])
        rule = read_header(self.dataset.plan(self.config.plan)).get("schedule") or {}
        return int(rule.get("steps", batches))

    def _notes(self, steps: int) -> list[str]:
        """What of the curriculum a run of so many steps never saw."""
        there = self._batches()
        if steps >= there:
            return []
        plan = Plan(self.dataset.plan(self.config.plan))
        found = f"{steps:,} of the plan's {there:,} batches (train.steps)"
        if plan.schedule is None:
            reached = plan.phase_of(steps - 1)
            unseen = [phase.name for phase in plan.phases[reached + 1 :]]
            found += f"; never reached: {', '.join(unseen)}" if unseen else ""
        return [found]

    def begun(self) -> str:
        done = checkpointed(self.folder / "checkpoints")
        return f"stopped after step {done[-1]:,}, goes on from there" if done else ""

    def identity(self, shard: Shard) -> dict[str, Any]:
        features = require_done(self.dataset, f"extract/{self.plan_config.features}")
        return {
            "plan": require_done(self.dataset, f"plan/{self.config.plan}").counts["plan_id"],
            "features": features.counts["content_hash"],
            "texts": texts_identity(self),
            "settings": self.settings.identity(),
        }

    def make(self, shard: Shard) -> Made:
        from ...train.ranks import joined

        with joined(device_of(self.dataset)) as ranks:
            ranks.share(self.name)
            result = self.train(ranks)
        files = [self.folder / "model.safetensors", self.folder / "config.json"]
        for name in ("encoder", "replay"):
            if (self.folder / name).is_dir():
                files += sorted(p for p in (self.folder / name).iterdir() if p.is_file())
        notes = self._notes(result.steps)
        counts = {"parameters": result.parameters, "steps": result.steps, "notes": notes}
        return Made(outputs=files, rows=result.steps, counts=counts)

    def train(self, ranks: Ranks) -> TrainResult:
        """Train, as one of several processes or alone; the first one tells how far it is."""
        from ...train.trainer import train

        done = 0

        def progress(step: int, total: int, metrics: Any) -> None:
            nonlocal done
            self.advance(step - done, 0)
            done = step

        store = load_store(self.dataset, self.plan_config.features)
        plan = Plan(self.dataset.plan(self.config.plan))
        plan.require(pairs=self._eligible(store).content_hash())
        with torch_threads(self.threads):
            return train(
                self.settings,
                plan,
                store,
                cached_texts(self),
                self.folder,
                device=device_of(self.dataset),
                progress=progress if ranks.leads else None,
                tokens=self.dataset.root / ".tonics" / "tokens",
            )

    def _eligible(self, store: FeatureStore) -> Eligible:
        """The pairs that the run's plan may use, as they are now."""
        split = self.plan_config.split
        return find_eligible(self.dataset.pairs(), self.dataset.images(), store, split)

    def merge(self, shards: Sequence[Manifest]) -> Made:
        found = shards[0].counts
        kept = {k: found[k] for k in ("parameters", "steps")}
        return Made(counts={**kept, "notes": found.get("notes", [])})

    def discard(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def cached_texts(stage: TrainStage) -> Any:
    """What a run's frozen text tower starts from, else None.

    Token states where there are any to pool; their means are the vectors.
    """
    name, identity = stage.config.embeddings, str(texts_identity(stage))
    if not name:
        return None
    from ...train.stream import CachedStates, CachedTexts

    if stage.pools_states:
        states = States(stage.dataset, name)
        return CachedStates(states, dim=states.dim, identity=identity)
    vectors = Vectors(stage.dataset, name)
    return CachedTexts(vectors, dim=vectors.dim, identity=identity)


def texts_identity(stage: TrainStage) -> str | dict[str, Any]:
    """What decides the text side: the vectors, or the encoder that is fine-tuned."""
    if stage.config.embeddings:
        done = require_done(stage.dataset, f"embed/{stage.config.embeddings}")
        return str(done.identity["shards"])
    return encoder_fingerprint(stage.settings.encoder, stage.settings.encoder_revision)
