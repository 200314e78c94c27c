"""Evaluate: query sets are made once a dataset, then every run is scored on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from ...artifact import Manifest, hash_rows, write_json
from ...errors import InputError
from ..dataset import read_table, write_table
from ..engines.machine import device_of, torch_threads
from ..stage import Estimate, Made, Shard, Stage, require_done
from .extract import load_store
from .train import TrainStage, cached_texts

QUERIES_SCHEMA = pa.schema([("pair", pa.int64()), ("image", pa.int64()), ("caption", pa.string())])


class QueriesStage(Stage):
    """Writes the captions and images of a split, ``evaluation/SPLIT.parquet``; inputs are pairs."""

    kind: ClassVar[str] = "queries"
    estimate: ClassVar[Estimate] = Estimate(cpu_s=1e-6, bytes=40)
    parallel: ClassVar[bool] = False

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("ingest",)

    @property
    def folder(self) -> Path:
        return self.dataset.evaluation

    def shards(self) -> list[Shard]:
        return [Shard(name="all", rows=self.dataset.pairs().num_rows)]

    def identity(self, shard: Shard) -> dict[str, Any]:
        columns = ["pair", "image", "split", "caption_hash"]
        return {"pairs": hash_rows(self.dataset.pairs(), columns)}

    def make(self, shard: Shard) -> Made:
        pairs = self.dataset.pairs()
        chosen = pairs.filter(pc.equal(pairs.column("split"), self.name))
        if chosen.num_rows == 0:
            splits = sorted(set(pairs.column("split").to_pylist()) - {""})
            do = "set eval_split of the run, or [ingest.splits], in tonics.toml"
            found = f"no pair is in split {self.name!r}"
            raise InputError("eval", found, expected=f"one of {splits}", do=do)
        output = self.folder / f"{self.name}.parquet"
        write_table(output, chosen.select(QUERIES_SCHEMA.names).cast(QUERIES_SCHEMA))
        ignored = {"of other splits": pairs.num_rows - chosen.num_rows}
        return Made(outputs=[output], rows=chosen.num_rows, ignored=ignored)


class EvalStage(Stage):
    """Scores a run's model on retrieval, ``runs/NAME/eval.json``; inputs are captions."""

    kind: ClassVar[str] = "eval"
    estimate: ClassVar[Estimate] = Estimate(cpu_s=0.0001, bytes=1)
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
        return (f"train/{self.name}", f"queries/{self.split}")

    @property
    def folder(self) -> Path:
        return self.dataset.run(self.name)

    @property
    def queries(self) -> pa.Table:
        """The query set."""
        return read_table(self.dataset.evaluation / f"{self.split}.parquet", QUERIES_SCHEMA)

    def shards(self) -> list[Shard]:
        return [Shard(name="all", rows=self.queries.num_rows)]

    def identity(self, shard: Shard) -> dict[str, Any]:
        return {
            "model": require_done(self.dataset, f"train/{self.name}").identity["shards"],
            "queries": require_done(self.dataset, f"queries/{self.split}").identity["shards"],
        }

    def make(self, shard: Shard) -> Made:
        from ...train.evaluation import evaluate

        train = self.train
        store = load_store(self.dataset, train.plan_config.features)
        queries = self.queries
        stored = queries.filter(pc.is_in(queries.column("image"), value_set=pa.array(store.images)))
        with torch_threads(train.threads):
            scores = evaluate(
                self.folder, store, cached_texts(train), stored, device=device_of(self.dataset)
            )
        output = self.folder / "eval.json"
        write_json(output, {"split": self.split, **scores})
        ignored = {"without features": shard.rows - stored.num_rows}
        return Made(
            outputs=[output],
            rows=stored.num_rows,
            ignored={k: n for k, n in ignored.items() if n},
            counts={"scores": scores},
        )

    def merge(self, shards: Sequence[Manifest]) -> Made:
        return Made(counts={"scores": shards[0].counts["scores"]})
