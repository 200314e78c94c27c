"""Train: a plan, a feature store and caption vectors become a model, ``runs/NAME``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...artifact import Manifest
from ...features import FeatureStore
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
    estimate: ClassVar[Estimate] = Estimate(cpu_s=0.05, bytes=25_000)
    parallel: ClassVar[bool] = False
    unit: ClassVar[str] = "batches"
    uses_device: ClassVar[bool] = True

    @property
    def config(self) -> configs.Run:
        """The section ``[runs.NAME]``."""
        return self.dataset.config.runs[self.name]

    @property
    def plan_config(self) -> configs.Plan:
        """The section of the run's plan."""
        return self.dataset.config.plans[self.config.plan]

    @cached_property
    def settings(self) -> TrainConfig:
        """The trainer's own settings, checked; the text tower follows from ``embeddings``."""
        where = f"{self.dataset.root / configs.CONFIG_NAME}: runs.{self.name}.train"
        text = "frozen" if self.config.embeddings else "finetune"
        encoder = self.dataset.local(self.config.train.get("encoder", ""))
        values = {**self.config.train, "text": text, "encoder": encoder}
        return configs.settings_of(TrainConfig, values, where)

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
        assert self.settings
        if not self.config.embeddings:
            assert encoder_fingerprint(self.settings.encoder, self.settings.encoder_revision)

    def shards(self) -> list[Shard]:
        batches = require_done(self.dataset, f"plan/{self.config.plan}").counts["batches"]
        rule = read_header(self.dataset.plan(self.config.plan)).get("schedule") or {}
        return [Shard(name="all", rows=self.settings.steps or rule.get("steps", batches))]

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
        counts = {"parameters": result.parameters, "steps": result.steps}
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
        return Made(counts={k: shards[0].counts[k] for k in ("parameters", "steps")})

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
