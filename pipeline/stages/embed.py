"""Embed: captions become vectors, ``embeddings/NAME/NNNNN.npy``, a row a pair.

With ``states = true`` also ``states-NNNNN.npy``, a row a token, and ``lengths-NNNNN.npy``, the
tokens of each pair.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ...artifact import Manifest, atomic_file, hash_rows
from ...train.model.encoders import TextEncoder, encoder_fingerprint, load_text_encoder
from ..config import Embedding, Precision
from ..engines.machine import device_of, torch_threads
from ..stage import Estimate, Made, Shard, Stage, row_shards
from ..vectors import LENGTHS, STATES


class EmbedStage(Stage):
    """Runs a text encoder over the captions; inputs are pairs."""

    kind: ClassVar[str] = "embed"
    renewable: ClassVar[frozenset[str] | None] = frozenset({"rows"})
    unit: ClassVar[str] = "captions"
    uses_device: ClassVar[bool] = True

    @property
    def config(self) -> Embedding:
        """The section ``[embeddings.NAME]``."""
        return self.dataset.config.embeddings[self.name]

    @property
    def estimate(self) -> Estimate:  # type: ignore[override]
        """A vector, and where they are kept the states of some 14 tokens, of 384 numbers."""
        return Estimate(cpu_s=0.004, bytes=768 * (15 if self.config.states else 1))

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("ingest",)

    @property
    def folder(self) -> Path:
        return self.dataset.embeddings(self.name)

    @property
    def encoder(self) -> str:
        """The encoder: package, folder or hub name."""
        return self.dataset.local(self.config.encoder)

    @cached_property
    def pairs(self) -> pa.Table:
        """pairs.parquet"""
        return self.dataset.pairs()

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the vectors: the encoder's files."""
        return encoder_fingerprint(self.encoder, self.config.revision or None)

    @property
    def _encoder_identity(self) -> dict[str, Any]:
        return {"name": self.config.encoder, **self.fingerprint}

    def check(self) -> None:
        assert self.fingerprint

    def shards(self) -> list[Shard]:
        return row_shards(self.pairs.num_rows, self.config.shard_pairs)

    def identity(self, shard: Shard) -> dict[str, Any]:
        start, stop = shard.work
        rows = self.pairs.slice(start, stop - start)
        settings = self.config.model_dump(include={"max_tokens", "shard_pairs", "precision"})
        if self.config.precision == "float32":
            del settings["precision"]  # shards of before there was a choice stay fresh
        if self.config.states:
            settings["states"] = True
        return {
            "rows": hash_rows(rows, ["pair", "caption_hash"]),
            "encoder": self._encoder_identity,
            "settings": settings,
        }

    def make(self, shard: Shard) -> Made:
        start, stop = shard.work
        captions = self.pairs.column("caption").slice(start, stop - start).to_pylist()
        config, device = self.config, device_of(self.dataset)
        encoder = _encoder(self.encoder, config.revision, device, config.precision)
        arrays: dict[str, np.ndarray] = {}
        with torch_threads(1):
            if config.states:
                found = encoder.encode_tokens(captions, max_tokens=config.max_tokens)
                vectors, arrays[STATES], arrays[LENGTHS] = found
            else:
                vectors = encoder.encode(captions, max_tokens=config.max_tokens)
        arrays[""] = vectors.astype(np.float16)
        outputs = [self._write(f"{kind}{shard.name}", array) for kind, array in arrays.items()]
        return Made(outputs=outputs, rows=len(vectors), counts={"dim": vectors.shape[1]})

    def _write(self, name: str, array: np.ndarray) -> Path:
        output = self.folder / f"{name}.npy"
        with atomic_file(output) as tmp, tmp.open("wb") as file:
            np.save(file, array)
        return output

    def tells_of_cost(self, made: Manifest) -> bool:
        settings = made.identity.get("settings", {})
        then = (settings.get("precision", "float32"), settings.get("states", False))
        same = made.identity.get("encoder") == self._encoder_identity
        return bool(same and then == (self.config.precision, self.config.states))

    def merge(self, shards: Sequence[Manifest]) -> Made:
        return Made(counts={"dim": shards[0].counts["dim"] if shards else 0})


@functools.lru_cache(maxsize=1)
def _encoder(name: str, revision: str, device: str, precision: Precision) -> TextEncoder:
    tokenizer, model = load_text_encoder(name, revision or None)
    return TextEncoder(tokenizer, model, device, precision)
