"""Ontology: nouns, pairs and images become ``ontology.duckdb``."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ... import __version__
from ...artifact import Manifest, atomic_file, hash_json, hash_rows
from ...ontology.database import FORMAT, IMAGE_COLUMNS, PAIR_COLUMNS, build_database
from ...ontology.tables import tables_fingerprint
from ...ontology.wordnet import open_wordnet, wordnet_fingerprint
from ..stage import Estimate, Made, Shard, Stage, require_done


class OntologyStage(Stage):
    """Builds the database from all shards of nouns at once; inputs are pairs."""

    kind: ClassVar[str] = "ontology"
    estimate: ClassVar[Estimate] = Estimate(cpu_s=0.0002, bytes=400)
    parallel: ClassVar[bool] = False

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("parse", "ingest")

    @property
    def folder(self) -> Path:
        return self.dataset.ontology_file

    @cached_property
    def parsed(self) -> Manifest:
        """The manifest of the parse stage."""
        return require_done(self.dataset, "parse")

    @property
    def noun_files(self) -> list[Path]:
        """The noun tables, in order."""
        return sorted(self.dataset.nouns.glob("[0-9]*.parquet"))

    def shards(self) -> list[Shard]:
        return [Shard(name="all", rows=self.dataset.pairs().num_rows)]

    def identity(self, shard: Shard) -> dict[str, Any]:
        pairs, images = self.dataset.pairs(), self.dataset.images()
        return {
            "nouns": self.parsed.identity["shards"],
            "pairs": hash_rows(
                pairs, ["caption_hash", *(c for c in PAIR_COLUMNS if c != "caption")]
            ),
            "images": hash_rows(images, [*IMAGE_COLUMNS, "content_hash"]),
            "wordnet": wordnet_fingerprint(),
            "senses": tables_fingerprint(),
            "format": FORMAT,
            "settings": self.dataset.config.ontology.model_dump(),
        }

    def make(self, shard: Shard) -> Made:
        identity = self.identity(shard)
        output = self.dataset.ontology_file
        with atomic_file(output) as tmp:
            counts = build_database(
                tmp,
                nouns=self.noun_files,
                pairs=self.dataset.pairs_file,
                images=self.dataset.images_file,
                wordnet=open_wordnet(),
                min_images=self.dataset.config.ontology.min_images,
                versions={"tonics": __version__, "inputs": hash_json(identity)},
            )
        return Made(outputs=[output], rows=shard.rows, counts=counts)

    def merge(self, shards: Any) -> Made:
        skip = ("in", "out", "rejected", "ignored")
        return Made(counts={k: v for k, v in shards[0].counts.items() if k not in skip})
