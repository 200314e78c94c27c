"""Detections: the labels and boxes of all feature sets become ``detections.duckdb``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ... import __version__
from ...artifact import Manifest, atomic_file, hash_json
from ...errors import FormatError
from ...features.detector import Vocabulary
from ...features.schema import REBUILD, VOCABULARY_NAME
from ...features.shard import Shard as StoredShard
from ...features.shard import ShardBatch
from ...features.writer import shard_paths
from ...ontology.detections import (
    DETECTIONS_SCHEMA,
    FORMAT,
    IMAGES_SCHEMA,
    Detected,
    FeatureSet,
    build_detections,
)
from ...ontology.labels import labels_fingerprint
from ...ontology.wordnet import open_wordnet, wordnet_fingerprint
from ..stage import Estimate, Made, Shard, Stage, require_done

_ROWS_AT_ONCE = 500_000  # labels of images handed on together


class DetectionsStage(Stage):
    """Builds the database from all feature sets at once; inputs are images of a feature set."""

    kind: ClassVar[str] = "detections"
    estimate: ClassVar[Estimate] = Estimate(cpu_s=0.0002, bytes=1700)
    parallel: ClassVar[bool] = False
    unit: ClassVar[str] = "images"

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(f"extract/{name}" for name in self.dataset.config.features)

    @property
    def folder(self) -> Path:
        return self.dataset.detections_file

    @cached_property
    def extracted(self) -> dict[str, Manifest]:
        """The manifests of the feature sets, by name."""
        names = self.dataset.config.features
        return {name: require_done(self.dataset, f"extract/{name}") for name in names}

    def shards(self) -> list[Shard]:
        rows = sum(int(manifest.counts["out"]) for manifest in self.extracted.values())
        return [Shard(name="all", rows=rows)]

    def identity(self, shard: Shard) -> dict[str, Any]:
        sets = self.extracted.items()
        return {
            "features": {name: made.content() for name, made in sets},
            "vocabularies": {name: _vocabulary_hash(made) for name, made in sets},
            "wordnet": wordnet_fingerprint(),
            "labels": labels_fingerprint(),
            "format": FORMAT,
        }

    def make(self, shard: Shard) -> Made:
        identity = self.identity(shard)
        output = self.dataset.detections_file
        with atomic_file(output) as tmp:
            counts = build_detections(
                tmp,
                [self._feature_set(name, made) for name, made in self.extracted.items()],
                wordnet=open_wordnet(),
                versions={"tonics": __version__, "inputs": hash_json(identity)},
            )
        return Made(outputs=[output], rows=shard.rows, counts=counts)

    def _feature_set(self, name: str, made: Manifest) -> FeatureSet:
        folder = self.dataset.features(name)
        labels = Vocabulary.read(folder / VOCABULARY_NAME).labels
        return FeatureSet(
            name=name,
            labels=[(label.name, label.synset) for label in labels],
            detected=self._detected(folder, len(labels)),
            content_hash=made.content(),
            vocabulary_hash=_vocabulary_hash(made),
        )

    def _detected(self, folder: Path, num_labels: int) -> Iterator[Detected]:
        """Read the small columns of a store, record batch by record batch; never its features."""
        waiting: list[Detected] = []
        for path in shard_paths(folder):
            shard = StoredShard(path)
            for number in range(shard.num_batches):
                batch = shard.batch(number)
                _check_labels(path, batch, num_labels)
                waiting.append(detected_in(batch))
                self.advance(len(batch), 0)
                if sum(one.detections.num_rows for one in waiting) >= _ROWS_AT_ONCE:
                    yield _joined(waiting)
                    waiting.clear()
        yield _joined(waiting)

    def merge(self, shards: Any) -> Made:
        skip = ("in", "out", "rejected", "ignored")
        counts = {k: v for k, v in shards[0].counts.items() if k not in skip}
        unclear = counts.pop("sets_without_synset")
        notes = [f"no label of {name} is a word that WordNet knows" for name in unclear]
        return Made(counts=counts | ({"notes": notes} if notes else {}))


def detected_in(batch: ShardBatch) -> Detected:
    """Sum up a record batch by image and label: regions, best score, share of the largest box."""
    regions = np.diff(batch.offsets)
    first, last = int(batch.offsets[0]), int(batch.offsets[-1])
    rows = np.repeat(np.arange(len(batch)), regions)
    labels, scores = batch.labels[first:last], batch.scores[first:last]
    areas = _areas(batch.boxes[first:last], batch.widths[rows], batch.heights[rows])
    order = np.lexsort((labels, rows))
    rows, labels = rows[order], labels[order]
    keys = rows * (np.iinfo(np.uint16).max + 1) + labels
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    counts = np.diff(starts, append=len(rows))
    best = [
        np.maximum.reduceat(values[order], starts) if len(starts) else values
        for values in (scores, areas)
    ]
    images = [batch.images, regions]
    detections = [batch.images[rows[starts]], labels[starts], counts, *best]
    return Detected(_table(images, IMAGES_SCHEMA), _table(detections, DETECTIONS_SCHEMA))


def _areas(boxes: np.ndarray, widths: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Say how much of its image each box covers, (n,) float32 in 0..1."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).astype(np.float64)
    shares = sides.prod(axis=1) / (widths.astype(np.float64) * heights)
    return np.minimum(shares, 1).astype(np.float32)


def _table(columns: Sequence[np.ndarray], schema: pa.Schema) -> pa.Table:
    arrays = [
        pa.array(column.astype(field.type.to_pandas_dtype(), copy=False))
        for column, field in zip(columns, schema, strict=True)
    ]
    return pa.table(arrays, schema=schema)


def _joined(parts: Sequence[Detected]) -> Detected:
    images = [IMAGES_SCHEMA.empty_table(), *(part.images for part in parts)]
    detections = [DETECTIONS_SCHEMA.empty_table(), *(part.detections for part in parts)]
    return Detected(pa.concat_tables(images), pa.concat_tables(detections))


def _check_labels(path: Path, batch: ShardBatch, num_labels: int) -> None:
    """Refuse numbers that the vocabulary does not have: what they mean is not known.

    Raises:
        FormatError: naming the first image that has one.
    """
    bad = np.flatnonzero(batch.labels >= num_labels)
    if len(bad):
        row = int(np.searchsorted(batch.offsets, bad[0], side="right")) - 1
        found = f"image {batch.images[row]} has label {batch.labels[bad[0]]}"
        expected = f"one of the {num_labels:,} labels of {VOCABULARY_NAME}"
        raise FormatError(path, found, expected=expected, do=REBUILD)


def _vocabulary_hash(made: Manifest) -> str:
    """Read the hash of vocabulary.json from the manifest of its feature set."""
    files = (output for output in made.outputs if Path(output.path).name == VOCABULARY_NAME)
    return next(file.xxh3 for file in files)
