"""``tonics run -n``: what would run, why, and what it will cost in time and disk."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ..artifact import Manifest
from .dataset import Dataset
from .stage import Estimate, Stage, manifest_file
from .stages.ingest import IngestStage
from .stages.train import TrainStage
from .staleness import Status, refusal, status_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What one stage would do.

    Attributes:
        shards: how many would be made; None where that depends on stages before it.
        refused: 'tonics run' would ask for ``--rebuild`` first.
        rows: inputs to be worked on. cpu_s, bytes: what they will cost.
        measured: the cost is this dataset's own, not a general figure.
    """

    key: str
    why: str
    shards: int | None
    refused: bool
    rows: int
    cpu_s: float
    bytes: float
    measured: bool

    def json(self) -> dict[str, Any]:
        """As a program reads it."""
        return {name: getattr(self, name) for name in self.__slots__}


def forecast(
    dataset: Dataset, stages: Sequence[Stage], rebuild: Collection[str] = ()
) -> list[Forecast]:
    """Say what would run, in order.

    A stage that reads from one that would run is listed with all its rows: whether its own inputs
    change is known only then.
    """
    found: list[Forecast] = []
    will_run: set[str] = set()
    sizes = _Sizes(dataset)
    for stage in stages:
        first = next((key for key in stage.inputs if key in will_run), None)
        if first is not None:
            why = f"after {first}, where that changes its input"
            found.append(_forecast(stage, why, None, sizes.rows_of(stage)))
        elif stage.key in rebuild:
            shards = stage.shards()
            rows = sum(shard.rows for shard in shards)
            found.append(_forecast(stage, "to be rebuilt", len(shards), rows))
        else:
            status = status_of(stage)
            if status.done:
                continue
            found.append(_of_status(stage, status))
        will_run.add(stage.key)
    return found


def _of_status(stage: Stage, status: Status) -> Forecast:
    rows = sum(s.shard.rows for s in status.stale)
    refused = refusal(stage, status) is not None
    why = f"NEEDS --rebuild {stage.key}: {status.why}" if refused else status.why
    return _forecast(stage, why, len(status.stale), rows, refused=refused)


def _forecast(
    stage: Stage, why: str, shards: int | None, rows: int, *, refused: bool = False
) -> Forecast:
    old = Manifest.read(manifest_file(stage.dataset, stage.key))
    rate = _measured(stage, old) or stage.estimate
    return Forecast(
        key=stage.key,
        why=why,
        shards=shards,
        refused=refused,
        rows=rows,
        cpu_s=rows * rate.cpu_s,
        bytes=rows * rate.bytes,
        measured=rate is not stage.estimate,
    )


def _measured(stage: Stage, merged: Manifest | None) -> Estimate | None:
    """What a row of this stage cost the last time, over its finished shards."""
    if merged is None or not merged.counts.get("in"):
        return None
    shards = manifest_file(stage.dataset, stage.key).parent.glob("*.json")
    made = [m for m in map(Manifest.read, shards) if m is not None]
    size = sum(output.bytes for m in made for output in m.outputs)
    rows = merged.counts["in"]
    return Estimate(cpu_s=merged.cost["cpu_s"] / rows, bytes=size / rows)


class _Sizes:
    """How many rows stages will have whose inputs are not made yet, as far as sources tell."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._known: tuple[int, int] | None = None

    def rows_of(self, stage: Stage) -> int:
        """Inputs of a stage: images for extract, batches for train, else captions."""
        images, captions = self._sources()
        if stage.kind == "extract":
            return images
        if isinstance(stage, TrainStage):
            plan = stage.plan_config
            return captions * plan.epochs // plan.batch_size
        return captions

    def _sources(self) -> tuple[int, int]:
        if self._known is None:
            ingest = IngestStage(self.dataset)
            self._known = (ingest.num_images, ingest.num_captions)
        return self._known
