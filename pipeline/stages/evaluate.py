"""Evaluate: every run is scored on the query set of its split."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from ...artifact import Manifest, write_json
from ...features import FeatureStore
from ...train.evaluation.queries import queries_hash
from ...train.evaluation.scoring import EVAL_FORMAT, EVAL_VERSION
from ..config import IMPORTED
from ..dataset import write_table
from ..engines.machine import device_of, torch_threads
from ..stage import Estimate, Made, Shard, Stage, manifest_file, require_done
from .extract import load_store
from .queries import QueriesStage, SameObjectStage
from .train import TrainStage, cached_texts


class EvalStage(Stage):
    """Scores a run's model, ``runs/NAME/eval.json`` and ``eval.parquet``; inputs are captions."""

    kind: ClassVar[str] = "eval"
    format: ClassVar[int] = 3  # 3: says which queries and sets; 2: every query's result is kept
    estimate: ClassVar[Estimate] = Estimate(cpu_s=0.0001, bytes=10)
    parallel: ClassVar[bool] = False
    uses_device: ClassVar[bool] = True

    @property
    def train(self) -> TrainStage:
        """The stage that made the model."""
        return TrainStage(self.dataset, self.name)

    @property
    def split(self) -> str:
        """Which query set."""
        return self.train.config.eval_split

    @property
    def inputs(self) -> tuple[str, ...]:
        always = (f"train/{self.name}", f"queries/{self.split}")
        return (*always, f"same-object/{self.split}") if self._has_objects else always

    @property
    def _has_objects(self) -> bool:
        """Whether there is an ontology: an evaluation alone is no reason to make one."""
        from .plan import PlanStage

        if manifest_file(self.dataset, "ontology").exists():
            return True
        run = self.train
        imported = run.plan_config.curriculum == IMPORTED
        return not imported and "ontology" in PlanStage(self.dataset, run.config.plan).inputs

    @property
    def folder(self) -> Path:
        return self.dataset.run(self.name)

    @cached_property
    def queries(self) -> pa.Table:
        """The query set."""
        return QueriesStage(self.dataset, self.split).read()

    def shards(self) -> list[Shard]:
        return [Shard(name="all", rows=self.queries.num_rows)]

    def identity(self, shard: Shard) -> dict[str, Any]:
        read = {
            "model": f"train/{self.name}",
            "queries": f"queries/{self.split}",
            "same_object": f"same-object/{self.split}",
        }
        found = {
            what: require_done(self.dataset, key).identity["shards"]
            for what, key in read.items()
            if key in self.inputs
        }
        return {**found, "settings": {"fold_images": self.dataset.config.evaluation.fold_images}}

    def stored_queries(self, store: FeatureStore) -> pa.Table:
        """The queries whose images have features."""
        known = pc.is_in(self.queries.column("image"), value_set=pa.array(store.images))
        return self.queries.filter(known)

    def make(self, shard: Shard) -> Made:
        from ...train.evaluation import score_run

        train = self.train
        store = load_store(self.dataset, train.plan_config.features)
        stored = self.stored_queries(store)
        with torch_threads(train.threads):
            scores = score_run(
                self.folder,
                store,
                cached_texts(train),
                stored,
                SameObjectStage(self.dataset, self.split).read() if self._has_objects else None,
                fold_images=self.dataset.config.evaluation.fold_images,
                device=device_of(self.dataset),
            )
        outputs = [self.folder / "eval.json", self.folder / "eval.parquet"]
        head = {"format": EVAL_FORMAT, "version": EVAL_VERSION, "split": self.split}
        asked = {"queries": queries_hash(self.queries)}
        write_json(outputs[0], {**head, **asked, **scores.report})
        write_table(outputs[1], scores.results)
        ignored = {"without features": shard.rows - stored.num_rows}
        return Made(
            outputs=outputs,
            rows=stored.num_rows,
            ignored={k: n for k, n in ignored.items() if n},
            counts={"scores": scores.report},
        )

    def merge(self, shards: Sequence[Manifest]) -> Made:
        return Made(counts={"scores": shards[0].counts["scores"]})
