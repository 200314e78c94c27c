"""Parse: captions become nouns, ``nouns/NNNNN.parquet``."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from ...artifact import Manifest, hash_rows
from ...ontology.nouns import count_known, find_nouns, load_parser, parser_fingerprint
from ...ontology.wordnet import open_wordnet, wordnet_fingerprint
from ..dataset import write_table
from ..stage import Estimate, Made, Shard, Stage, row_shards

_ENOUGH_CAPTIONS = 20  # to judge their language by
_KNOWN_SHARE = 0.85  # of nouns; English captions have 0.98 to 0.99, other languages at most 0.6


class ParseStage(Stage):
    """Finds the nouns of every caption; inputs are pairs."""

    kind: ClassVar[str] = "parse"
    estimate: ClassVar[Estimate] = Estimate(cpu_s=0.0003, bytes=30)
    unit: ClassVar[str] = "captions"

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("ingest",)

    @property
    def folder(self) -> Path:
        return self.dataset.nouns

    @property
    def parser(self) -> str:
        """The spaCy pipeline: package or folder."""
        return self.dataset.local(self.dataset.config.nouns.parser)

    @cached_property
    def pairs(self) -> pa.Table:
        """pairs.parquet"""
        return self.dataset.pairs()

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What decides which nouns are found: the spaCy pipeline, our rules, WordNet."""
        parser = parser_fingerprint(self.parser)
        return {**parser, "wordnet": wordnet_fingerprint()}

    def check(self) -> None:
        name = self.parser
        if not (Path(name).is_dir() or (name.isidentifier() and importlib.util.find_spec(name))):
            assert self.fingerprint  # loading spaCy takes seconds: only to say what is wrong

    def shards(self) -> list[Shard]:
        return row_shards(self.pairs.num_rows, self.dataset.config.nouns.shard_pairs)

    def identity(self, shard: Shard) -> dict[str, Any]:
        start, stop = shard.work
        rows = self.pairs.slice(start, stop - start)
        return {
            "rows": hash_rows(rows, ["pair", "caption_hash"]),
            "parser": {"name": self.dataset.config.nouns.parser, **self.fingerprint},
            "settings": {"shard_pairs": self.dataset.config.nouns.shard_pairs},
        }

    def make(self, shard: Shard) -> Made:
        start, stop = shard.work
        rows = self.pairs.slice(start, stop - start)
        known = open_wordnet().knows
        nouns = find_nouns(
            _parser(self.parser),
            rows.column("pair").to_pylist(),
            rows.column("caption").to_pylist(),
            known=known,
            advance=lambda captions: self.advance(captions, 0),
        )
        output = self.folder / f"{shard.name}.parquet"
        write_table(output, nouns)
        counts = {"nouns": nouns.num_rows, "known_nouns": count_known(nouns, known)}
        return Made(outputs=[output], rows=rows.num_rows, counts=counts)

    def merge(self, shards: Sequence[Manifest]) -> Made:
        counts: dict[str, Any] = {
            key: sum(m.counts[key] for m in shards) for key in ("nouns", "known_nouns")
        }
        captions = sum(m.counts["out"] for m in shards)
        if captions >= _ENOUGH_CAPTIONS and counts["known_nouns"] <= _KNOWN_SHARE * counts["nouns"]:
            counts["notes"] = [_unlike_english(captions, **counts)]
        return Made(counts=counts)


def _unlike_english(captions: int, nouns: int, known_nouns: int) -> str:
    share = f"{known_nouns / nouns:.0%}" if nouns else "none"
    return (
        f"WordNet knows {share} of the {nouns:,} nouns in {captions:,} captions, and about 99% of "
        "those in English ones; captions in another language must be translated before ingest"
    )


@functools.lru_cache(maxsize=1)
def _parser(name: str) -> Any:
    return load_parser(name)
