"""Plan: pairs, features and the ontology become a list of minibatches, ``plans/NAME``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ... import __version__
from ...artifact import atomic_folder, hash_json, hash_rows
from ...errors import ConfigError
from ...features import FeatureStore
from ...train.plan_files import PLAN_VERSION, Batches, write_plan
from .. import config as configs
from ..plans import pools
from ..plans.curricula import Stretch, stretches
from ..plans.eligible import Eligible, Objects, none_eligible
from ..plans.epochs import ASSEMBLY_VERSION, build_batches, require_images
from ..plans.loading import load_eligible
from ..plans.pooled import pooled_images
from ..plans.quality.counts import group_nodes
from ..plans.quality.measure import coverage, measure_quality
from ..stage import Estimate, Made, Reject, Shard, Stage, require_done
from ..staleness import status_of
from ..vectors import Vectors
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

    @property
    def where(self) -> str:
        """The section, as messages name it."""
        return f"{self.dataset.root / configs.CONFIG_NAME}: plans.{self.name}"

    @cached_property
    def phases(self) -> list[Stretch]:
        """The curriculum, checked."""
        return stretches(self.where, self.config)

    @cached_property
    def needs(self) -> frozenset[str]:
        """What the builders need, and what they use where the plan has it."""
        parts = [part for phase in self.phases for part in phase.parts]
        has = {"text"} if self.config.embeddings else set[str]()
        likes = frozenset().union(*(part.builder.likes for part in parts))
        return frozenset().union(*(part.needs for part in parts)) | (likes & has)

    @property
    def inputs(self) -> tuple[str, ...]:
        found = ["ingest", f"extract/{self.config.features}"]
        if "objects" in self.needs:
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
        # The phases stand for the first four; how many processes will train decides no batch.
        outside = {"features", "embeddings", "curriculum", "phases", "world_size"}
        return {
            "pairs": hash_rows(pairs, ["pair", "pair_key", "image", "split", "caption_hash"]),
            "images": hash_rows(images, ["image", "image_id", "content_hash"]),
            "inputs": self._input_hashes(),
            "embeddings": self._embeddings_hash(),
            "assembly": ASSEMBLY_VERSION,
            "builders": {
                part.builder.name: part.builder.version for p in self.phases for part in p.parts
            },
            "phases": {p.name: describe(p) for p in self.phases},
            "settings": self.config.model_dump(mode="json", exclude=outside),
        }

    def _input_hashes(self) -> dict[str, str]:
        features = require_done(self.dataset, f"extract/{self.config.features}")
        hashes = {"features": str(features.counts["content_hash"])}
        if "objects" in self.needs:
            hashes["ontology"] = str(require_done(self.dataset, "ontology").counts["content_hash"])
        if "text" in self.needs:
            hashes["embeddings"] = hash_json(self._embeddings_hash())
        return hashes

    def _embeddings_hash(self) -> str:
        if not self.config.embeddings:
            return ""
        return str(require_done(self.dataset, f"embed/{self.config.embeddings}").identity["shards"])

    def make(self, shard: Shard) -> Made:
        eligible = self._eligible()
        batches, remainder, left_out = self.decide(eligible)
        quality = self._quality(eligible, batches, remainder)
        header = self._header(eligible, batches, remainder)
        with atomic_folder(self.folder) as tmp:
            written = write_plan(tmp, header, batches, eligible.table, remainder, quality)
        return Made(
            outputs=sorted(self.folder.iterdir()),
            rows=len(eligible),
            rejected=left_out,
            ignored={"not eligible": shard.rows - len(eligible)},
            counts={
                "plan_id": written["plan_id"],
                **written["counts"],
                "notes": [
                    *general_objects(eligible.objects, batches, self.phases),
                    *quality["warnings"],
                ],
            },
        )

    @property
    def random_share(self) -> dict[str, float]:
        """What share of each phase is drawn at random, by its name."""
        return {
            phase.name: sum(p.share for p in phase.parts if p.builder.name == "random")
            for phase in self.phases
        }

    @cached_property
    def _store(self) -> FeatureStore:
        return load_store(self.dataset, self.config.features)

    def _eligible(self) -> Eligible:
        return load_eligible(self.dataset, self.config, self._store, self.needs)

    def decide(self, eligible: Eligible) -> tuple[Batches, pa.Table, list[Reject]]:
        """The batches, the remainder, and batches that were to be and are left out."""
        try:
            return (*build_batches(eligible, self.config, self.phases), [])
        except ConfigError as error:  # of a builder that had to see the data first
            where = f"{self.where}: {error.where}"
            raise ConfigError(where, error.found, expected=error.expected, do=error.do) from error

    def merge(self, shards: Sequence[Any]) -> Made:
        keep = ("plan_id", "batches", "epochs", "pairs", "images", "remainder", "notes")
        return Made(counts={k: shards[0].counts[k] for k in keep})

    def _quality(self, eligible: Eligible, batches: Batches, remainder: pa.Table) -> dict[str, Any]:
        embeddings = self.config.embeddings
        return measure_quality(
            eligible,
            batches,
            Vectors(self.dataset, embeddings) if embeddings else None,
            images=partial(pooled_images, self._store),
            remainder=remainder,
            random_share=self.random_share,
            by_image=[phase.name for phase in self.phases if _compares_images(phase)],
            passes=self.config.passes,
        )

    def _header(self, eligible: Eligible, batches: Batches, remainder: pa.Table) -> dict[str, Any]:
        return {
            "created_by": f"tonics {__version__}",
            "batch_size": self.config.batch_size,
            "sub_block": 1,
            "seed": self.config.seed,
            "counts": {
                "batches": len(batches.pairs),
                "epochs": self.phases[-1].epochs.stop if self.phases else 1,
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
            **self._schedule(eligible, batches),
        }

    def _schedule(self, eligible: Eligible, batches: Batches) -> dict[str, Any]:
        """The header's rule for a trainer that decides, where the batches are pools."""
        part = self.phases[0].parts[0] if self.phases else None
        if part is None or not part.builder.pools:
            return {}
        assert eligible.objects is not None, "pools are of objects"
        steps = self.config.epochs * (len(eligible) // self.config.batch_size)
        return {"schedule": pools.schedule(eligible.objects, batches, part.params, steps)}


def describe(phase: Stretch) -> dict[str, Any]:
    """What decides the batches of a phase, as JSON."""
    return {
        "builder": phase.builder,
        "params": phase.params,
        "rotation": [part.rotation for part in phase.parts],
        "first_epoch": phase.epochs.start,
        "epochs": len(phase.epochs),
    }


def _compares_images(phase: Stretch) -> bool:
    """Whether a phase's builders compare images alone."""
    kinds = {getattr(part.params, "similarity", None) for part in phase.parts}
    return kinds - {None} == {"image"}


def general_objects(
    objects: Objects | None, batches: Batches, phases: Sequence[Stretch]
) -> list[str]:
    """Notes for the user: batches and groups of one object that is hardly anything in particular.

    Phases that were asked to stay near the root are left out.
    """
    if objects is None:
        return []
    lengths, nodes = group_nodes(batches)
    kinds = [
        ("same-object batches", batches.node, batches.phase, _goes_deep),
        ("groups", nodes, np.repeat(batches.phase, lengths), _groups_objects),
    ]
    notes = []
    for what, node, of_phase, counts in kinds:
        asked = [number for number, phase in enumerate(phases) if counts(phase)]
        if asked and (named := _general(objects, node[np.isin(of_phase, asked)])):
            notes.append(
                f"most {what} are about very general objects ({named}): "
                "lower ontology.min_images or batch_size"
            )
    return notes


def _general(objects: Objects, node: np.ndarray) -> str:
    """The commonest general objects, where most of ``node`` are, or hardly any others exist."""
    node = node[node >= 0]
    general = node[objects.depth[node] <= _GENERAL_DEPTH]
    few = np.count_nonzero(objects.depth > _GENERAL_DEPTH) < _FEW_OBJECTS
    if len(node) and 2 * len(general) <= len(node) and not few:
        return ""
    counts = np.bincount(general, minlength=len(objects.names))
    common = [objects.names[n] for n in np.argsort(-counts, kind="stable")[:3] if counts[n]]
    return ", ".join([*(common or objects.names[:1]), "..."])


def _groups_objects(phase: Stretch) -> bool:
    return any(getattr(p.params, "objects", False) for p in phase.parts)


def _goes_deep(phase: Stretch) -> bool:
    depths = [getattr(p.params, "depth", None) for p in phase.parts if p.builder.name == "ontology"]
    return any(not isinstance(d, int) or d > _GENERAL_DEPTH for d in depths)
