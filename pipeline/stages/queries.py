"""What runs are scored on, made once a dataset: query sets, and same-object candidates."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...artifact import hash_rows
from ...errors import InputError
from ...train.evaluation.queries import QUERIES_SCHEMA
from ...train.evaluation.same_object import SAME_OBJECT_SCHEMA
from ..dataset import read_table, write_table
from ..same_object import same_object_sets
from ..stage import Estimate, Made, Shard, Stage, require_done


class QueriesStage(Stage):
    """Writes the captions and images of a split, ``evaluation/SPLIT.parquet``; inputs are pairs."""

    kind: ClassVar[str] = "queries"
    format: ClassVar[int] = 2  # 2: pair_key and image_id, to align others' vectors
    estimate: ClassVar[Estimate] = Estimate(cpu_s=1e-6, bytes=60)
    parallel: ClassVar[bool] = False

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("ingest",)

    @property
    def folder(self) -> Path:
        return self.dataset.evaluation

    @property
    def file(self) -> Path:
        """The query set."""
        return self.folder / f"{self.name}.parquet"

    @property
    def most(self) -> int:
        """How many captions of an image are asked at most; 0: all."""
        return self.dataset.config.evaluation.captions_per_image

    def shards(self) -> list[Shard]:
        return [Shard(name="all", rows=self.dataset.pairs().num_rows)]

    def identity(self, shard: Shard) -> dict[str, Any]:
        columns = ["pair", "pair_key", "image", "split", "caption_hash"]
        found: dict[str, Any] = {"pairs": hash_rows(self.dataset.pairs(), columns)}
        return found | ({"settings": {"captions_per_image": self.most}} if self.most else {})

    def make(self, shard: Shard) -> Made:
        pairs = self.dataset.pairs()
        chosen = pairs.filter(pc.equal(pairs.column("split"), self.name))
        if chosen.num_rows == 0:
            splits = sorted(set(pairs.column("split").to_pylist()) - {""})
            do = "set eval_split of the run, or [ingest.splits], in tonics.toml"
            found = f"no pair is in split {self.name!r}"
            raise InputError("eval", found, expected=f"one of {splits}", do=do)
        asked = chosen.filter(pa.array(first_captions(chosen, self.most))) if self.most else chosen
        names = self.dataset.images().column("image_id").take(asked.column("image"))
        table = asked.append_column("image_id", names).select(QUERIES_SCHEMA.names)
        write_table(self.file, table.cast(QUERIES_SCHEMA))
        ignored = {"of other splits": pairs.num_rows - chosen.num_rows}
        if beyond := chosen.num_rows - asked.num_rows:
            ignored[f"beyond the first {self.most} of an image"] = beyond
        return Made(outputs=[self.file], rows=asked.num_rows, ignored=ignored)

    def read(self) -> pa.Table:
        """Read the query set."""
        return read_table(self.file, QUERIES_SCHEMA)


class SameObjectStage(Stage):
    """Draws hard choices, ``evaluation/SPLIT.same-object.parquet``; inputs are queries."""

    kind: ClassVar[str] = "same-object"
    format: ClassVar[int] = 2  # 2: candidates are drawn by place, and never show the same picture
    estimate: ClassVar[Estimate] = Estimate(cpu_s=0.00005, bytes=80)
    parallel: ClassVar[bool] = False

    @property
    def inputs(self) -> tuple[str, ...]:
        return (f"queries/{self.name}", "ontology")

    @property
    def folder(self) -> Path:
        return self.dataset.evaluation

    @property
    def file(self) -> Path:
        """The sets of candidates."""
        return self.folder / f"{self.name}.same-object.parquet"

    @property
    def queries(self) -> QueriesStage:
        """The stage that made the query set."""
        return QueriesStage(self.dataset, self.name)

    def shards(self) -> list[Shard]:
        return [Shard(name="all", rows=self.queries.read().num_rows)]

    def identity(self, shard: Shard) -> dict[str, Any]:
        images = self.dataset.images()
        return {
            "queries": require_done(self.dataset, self.queries.key).identity["shards"],
            "images": hash_rows(images, ["image", "image_id", "content_hash"]),
            "ontology": require_done(self.dataset, "ontology").counts["content_hash"],
            "settings": {"same_object": self.dataset.config.evaluation.same_object},
        }

    def make(self, shard: Shard) -> Made:
        sets = same_object_sets(
            self.queries.read(),
            self.dataset.images(),
            self.dataset.ontology_file,
            self.dataset.config.evaluation.same_object,
        )
        write_table(self.file, sets)
        rest = shard.rows - sets.num_rows
        objects = len(set(sets.column("object").to_pylist()))
        return Made(
            outputs=[self.file],
            rows=sets.num_rows,
            ignored={"name no object of enough images": rest} if rest else {},
            counts={"objects": objects},
        )

    def merge(self, shards: Any) -> Made:
        return Made(counts={"objects": shards[0].counts["objects"]})

    def read(self) -> pa.Table:
        """Read the sets."""
        return read_table(self.file, SAME_OBJECT_SCHEMA)


def first_captions(pairs: pa.Table, most: int) -> np.ndarray:
    """Mark the first so many captions of each image, in the order of the source: (n,) bool."""
    parts = pc.split_pattern(pairs.column("pair_key"), "#", max_splits=1, reverse=True)
    k = pc.list_element(parts, 1).cast(pa.int64()).to_numpy()
    image = pairs.column("image").to_numpy()
    order = np.lexsort((k, image))
    _, first, counts = np.unique(image[order], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(first, counts)
    found = np.zeros(len(order), bool)
    found[order] = place < most
    return found
