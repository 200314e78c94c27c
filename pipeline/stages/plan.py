"""Plan: pairs, features and the ontology become a list of minibatches, ``plans/NAME``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ... import __version__
from ...artifact import atomic_folder, hash_rows
from ...train.plan import PLAN_VERSION, Batches, write_plan
from .. import config as configs
from ..plans.curriculum import (
    ASSEMBLY_VERSION,
    Stretch,
    build_batches,
    require_images,
    stretches,
)
from ..plans.eligible import Eligible, Objects, find_eligible, none_eligible
from ..plans.quality import measure_quality
from ..stage import Estimate, Made, Shard, Stage, require_done
from ..staleness import status_of
from .embed import Vectors
from .extract import load_store
from .ingest import IngestStage

_GENERAL_DEPTH = 2  # entity, object, living thing: no deeper object says much of a picture
_FEW_OBJECTS = 5


class PlanStage(Stage):
    """Builds a plan; inputs are pairs of all splits."""

    kind: ClassVar[str] = "plan"
    format: ClassVar[int] = PLAN_VERSION
    estimate: ClassVar[Estimate] = Estimate(cpu_s=0.0001, bytes=300)
    parallel: ClassVar[bool] = False

    @property
    def config(self) -> configs.Plan:
        """The section ``[plans.NAME]``."""
        return self.dataset.config.plans[self.name]

    @cached_property
    def phases(self) -> list[Stretch]:
        """The curriculum, checked."""
        where = f"{self.dataset.root / configs.CONFIG_NAME}: plans.{self.name}"
        return stretches(where, self.config)

    @property
    def needs_objects(self) -> bool:
        """Whether a phase asks the ontology."""
        return any("objects" in phase.builder.needs for phase in self.phases)

    @property
    def inputs(self) -> tuple[str, ...]:
        found = ["ingest", f"extract/{self.config.features}"]
        if self.needs_objects:
            found.append("ontology")
        if self.config.embeddings:
            found.append(f"embed/{self.config.embeddings}")
        return tuple(found)

    @property
    def folder(self) -> Path:
        return self.dataset.plan(self.name)

    def check(self) -> None:
        assert self.phases
        self._check_images()

    def _check_images(self) -> None:
        """Refuse a split that cannot fill a batch as soon as ingest has said so.

        Tables that ingest is about to make anew prove nothing.
        """
        if not (self.dataset.images_file.exists() and self.dataset.pairs_file.exists()):
            return
        pairs, images = self.dataset.pairs(), self.dataset.images()
        shown = pairs.filter(pc.equal(pairs.column("split"), self.config.split)).column("image")
        content = images.column("content_hash").take(shown.unique())
        count, size = pc.count_distinct(content).as_py(), self.config.batch_size
        if count < size and status_of(IngestStage(self.dataset)).done:
            if not len(shown):
                raise none_eligible(pairs, self.config.split)
            require_images(count, len(shown), size)

    def shards(self) -> list[Shard]:
        return [Shard(name="all", rows=self.dataset.pairs().num_rows)]

    def identity(self, shard: Shard) -> dict[str, Any]:
        pairs, images = self.dataset.pairs(), self.dataset.images()
        outside = {"features", "embeddings", "curriculum", "phases"}  # the phases stand for both
        return {
            "pairs": hash_rows(pairs, ["pair", "pair_key", "image", "split", "caption_hash"]),
            "images": hash_rows(images, ["image", "image_id", "content_hash"]),
            "inputs": self._input_hashes(),
            "embeddings": self._embeddings_hash(),
            "assembly": ASSEMBLY_VERSION,
            "builders": {p.builder.name: p.builder.version for p in self.phases},
            "phases": {p.name: describe(p) for p in self.phases},
            "settings": self.config.model_dump(mode="json", exclude=outside),
        }

    def _input_hashes(self) -> dict[str, str]:
        features = require_done(self.dataset, f"extract/{self.config.features}")
        hashes = {"features": str(features.counts["content_hash"])}
        if self.needs_objects:
            hashes["ontology"] = str(require_done(self.dataset, "ontology").counts["content_hash"])
        return hashes

    def _embeddings_hash(self) -> str:
        if not self.config.embeddings:
            return ""
        return str(require_done(self.dataset, f"embed/{self.config.embeddings}").identity["shards"])

    def make(self, shard: Shard) -> Made:
        eligible = self._eligible()
        batches, remainder = build_batches(eligible, self.config, self.phases)
        quality: dict[str, Any] = {}
        if self.config.embeddings:
            vectors = Vectors(self.dataset, self.config.embeddings)
            quality = measure_quality(eligible, batches, vectors)
        header = self._header(eligible, batches, remainder)
        with atomic_folder(self.folder) as tmp:
            written = write_plan(tmp, header, batches, eligible.table, remainder, quality)
        return Made(
            outputs=sorted(self.folder.iterdir()),
            rows=len(eligible),
            ignored={"not eligible": shard.rows - len(eligible)},
            counts={
                "plan_id": written["plan_id"],
                **written["counts"],
                "notes": general_objects(eligible.objects, batches, self.phases),
            },
        )

    def merge(self, shards: Sequence[Any]) -> Made:
        keep = ("plan_id", "batches", "epochs", "pairs", "images", "remainder", "notes")
        return Made(counts={k: shards[0].counts[k] for k in keep})

    def _eligible(self) -> Eligible:
        pairs, images = self.dataset.pairs(), self.dataset.images()
        store = load_store(self.dataset, self.config.features)
        eligible = find_eligible(pairs, images, store, self.config.split)
        if not self.needs_objects:
            return eligible
        objects = load_objects(self.dataset.ontology_file, eligible.pair)
        return Eligible(table=eligible.table, image=eligible.image, objects=objects)

    def _header(self, eligible: Eligible, batches: Batches, remainder: pa.Table) -> dict[str, Any]:
        return {
            "created_by": f"tonics {__version__}",
            "batch_size": self.config.batch_size,
            "sub_block": 1,
            "seed": self.config.seed,
            "counts": {
                "batches": len(batches.pairs),
                "epochs": self.config.epochs,
                "pairs": len(eligible),
                "images": eligible.num_images,
                "remainder": remainder.num_rows,
            },
            "constraints": {
                "split": self.config.split,
                "passes": self.config.passes,
                "unique": ["image content", "folded caption"],
            },
            "phases": [{"name": phase.name, **describe(phase)} for phase in self.phases],
            "nodes": eligible.objects.names if eligible.objects else [],
            "inputs": {"pairs": eligible.content_hash(), **self._input_hashes()},
            "coverage": coverage(eligible, batches, remainder),
        }


def describe(phase: Stretch) -> dict[str, Any]:
    """What decides the batches of a phase, as JSON."""
    return {
        "builder": phase.builder.name,
        "params": phase.params.model_dump(mode="json"),
        "first_epoch": phase.epochs.start,
        "epochs": len(phase.epochs),
    }


def general_objects(
    objects: Objects | None, batches: Batches, phases: Sequence[Stretch]
) -> list[str]:
    """Notes for the user: same-object batches that are about hardly anything in particular.

    Phases that were asked to stay near the root are left out.
    """
    deep = [i for i, phase in enumerate(phases) if _goes_deep(phase)]
    if objects is None or not deep:
        return []
    node = batches.node[np.isin(batches.phase, deep)]
    node = node[node >= 0]
    general = node[objects.depth[node] <= _GENERAL_DEPTH]
    few = np.count_nonzero(objects.depth > _GENERAL_DEPTH) < _FEW_OBJECTS
    if len(node) and 2 * len(general) <= len(node) and not few:
        return []
    counts = np.bincount(general, minlength=len(objects.names))
    common = [objects.names[n] for n in np.argsort(-counts, kind="stable")[:3] if counts[n]]
    named = ", ".join([*(common or objects.names[:1]), "..."])
    return [
        f"most same-object batches are about very general objects ({named}): "
        "lower ontology.min_images or batch_size"
    ]


def _goes_deep(phase: Stretch) -> bool:
    depth = getattr(phase.params, "depth", "leaves")
    wanted = "objects" in phase.builder.needs
    return wanted and not (isinstance(depth, int) and depth <= _GENERAL_DEPTH)


def coverage(eligible: Eligible, batches: Batches, remainder: pa.Table) -> dict[str, Any]:
    """How often pairs are seen: in the whole plan, and what each reason kept out of an epoch."""
    used = np.bincount(np.searchsorted(eligible.pair, batches.pairs).reshape(-1))
    used = np.pad(used, (0, len(eligible) - len(used)))
    times, counts = np.unique(used, return_counts=True)
    reasons = pc.value_counts(remainder.column("reason")).to_pylist()
    return {
        "pairs_by_times_seen": {str(t): int(c) for t, c in zip(times, counts, strict=True)},
        "placed": int(batches.pairs.size),
        "remainder": {r["values"]: r["counts"] for r in sorted(reasons, key=lambda r: r["values"])},
    }


def load_objects(ontology_file: Path, pairs: np.ndarray) -> Objects:
    """Read the object tree, and the deepest objects of some pairs (increasing numbers)."""
    from ...ontology import Ontology

    with Ontology(ontology_file) as ontology:
        tree, deepest = ontology.objects(), ontology.deepest_objects()
    pair, member = deepest.column("pair").to_numpy(), deepest.column("object").to_numpy()
    row = np.searchsorted(pairs, pair)
    known = pairs[np.minimum(row, len(pairs) - 1)] == pair
    counts = np.bincount(row[known], minlength=len(pairs))
    return Objects(
        names=tree.column("synset").to_pylist(),
        parent=tree.column("parent").fill_null(-1).to_numpy().astype(np.int32),
        depth=tree.column("depth").to_numpy().astype(np.int32),
        starts=np.concatenate([[0], np.cumsum(counts)]),
        members=member[known].astype(np.int32),
    )
