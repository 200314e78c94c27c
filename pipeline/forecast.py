"""``tonics run -n``: what would run, why, and what it will cost in time and disk."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..artifact import Manifest
from .dataset import Dataset
from .engines.machine import check_device, worker_count
from .stage import Stage, manifest_file, shard_manifests
from .stages.ingest import IngestStage
from .stages.train import TrainStage
from .staleness import Status, refusal, status_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What one stage would do.

    Attributes:
        shards: how many would be made; None where that depends on stages before it.
        refused: 'tonics run' would ask for ``--rebuild`` first.
        rows: inputs to be worked on. bytes: what they will take on disk.
        cpu_s: CPU-seconds; None on a GPU where nothing was measured yet, as general figures are
            for a CPU. gpu_s: seconds of one GPU, where one computes.
        wall_s: at best, with all workers at work; None where that is not known.
        measured: the cost is this dataset's own, not a general figure.
    """

    key: str
    why: str
    shards: int | None
    refused: bool
    rows: int
    cpu_s: float | None
    gpu_s: float | None
    wall_s: float | None
    bytes: float
    measured: bool

    def json(self) -> dict[str, Any]:
        """As a program reads it."""
        return {name: getattr(self, name) for name in self.__slots__}


def forecast(
    dataset: Dataset, stages: Sequence[Stage], rebuild: Collection[str] = (), workers: int = 0
) -> list[Forecast]:
    """Say what would run, in order.

    A stage that reads from one that would run is listed with all its rows: whether its own inputs
    change is known only then.

    Raises:
        InputError: a GPU is asked for that is not there.
    """
    for stage in stages:
        check_device(stage)
    found: list[Forecast] = []
    hands = Hands.of(dataset, workers)
    will_run: set[str] = set()
    sizes = _Sizes(dataset)
    for stage in stages:
        first = next((key for key in stage.inputs if key in will_run), None)
        if first is not None:
            why = f"after {first}, where that changes its input"
            found.append(_forecast(stage, hands, why, None, sizes.rows_of(stage)))
        elif stage.key in rebuild:
            shards = stage.shards()
            rows = sum(shard.rows for shard in shards)
            found.append(_forecast(stage, hands, "to be rebuilt", len(shards), rows))
        else:
            status = status_of(stage)
            if status.done:
                continue
            found.append(_of_status(stage, hands, status))
        will_run.add(stage.key)
    return found


def _of_status(stage: Stage, hands: Hands, status: Status) -> Forecast:
    rows = sum(s.shard.rows for s in status.stale)
    refused = refusal(stage, status) is not None
    why = f"NEEDS --rebuild {stage.key}: {status.why}" if refused else status.why
    return _forecast(stage, hands, why, len(status.stale), rows, refused=refused)


def _forecast(
    stage: Stage,
    hands: Hands,
    why: str,
    shards: int | None,
    rows: int,
    *,
    refused: bool = False,
) -> Forecast:
    on_gpu = stage.uses_device and hands.gpus is not None
    rate = _measured(stage, on_gpu=on_gpu)
    cpu_s = rows * (rate or stage.estimate).cpu_s if rate or not on_gpu else None
    gpu_s = rows * rate.wall_s if rate and on_gpu else None
    busy_s, count = (gpu_s, hands.gpus) if on_gpu else (cpu_s, hands.cores)
    if not stage.parallel:
        count = 1
    if shards is not None and count is not None:
        count = min(count, max(1, shards))
    return Forecast(
        key=stage.key,
        why=why,
        shards=shards,
        refused=refused,
        rows=rows,
        cpu_s=cpu_s,
        gpu_s=gpu_s,
        wall_s=None if busy_s is None or count is None else busy_s / count,
        bytes=rows * (rate or stage.estimate).bytes,
        measured=rate is not None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What a row cost in finished shards."""

    cpu_s: float
    wall_s: float
    bytes: float


def _measured(stage: Stage, *, on_gpu: bool) -> Rate | None:
    """What a row of this stage cost, over the shards that are finished and tell of the others."""
    made = shard_manifests(stage.dataset, stage.key)
    merged = Manifest.read(manifest_file(stage.dataset, stage.key))
    alike = [m for m in made if _made_on_gpu(m) == on_gpu and stage.tells_of_cost(m)]
    rows = sum(m.counts["in"] for m in alike)
    if not rows:
        return None
    costs = {name: sum(m.cost[name] for m in alike) for name in ("cpu_s", "wall_s")}
    if merged is not None and len(alike) == len(made):
        costs = {name: merged.cost[name] for name in costs}  # with what the merge took
        alike.append(merged)
    size = sum(output.bytes for m in alike for output in m.outputs)
    return Rate(cpu_s=costs["cpu_s"] / rows, wall_s=costs["wall_s"] / rows, bytes=size / rows)


def _made_on_gpu(made: Manifest) -> bool:
    """Whether a shard was made on a GPU."""
    return bool(made.cost.get("device", "cpu") != "cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """How many workers there will be: cores, and GPUs where stages compute on them.

    None: no GPU computes; or, for cores, how large the cluster is is not known.
    """

    cores: int | None
    gpus: int | None

    @classmethod
    def of(cls, dataset: Dataset, workers: int = 0) -> Hands:
        """As ``tonics.toml`` says; a cluster is not asked."""
        runtime = dataset.config.runtime
        workers = workers or runtime.workers
        if runtime.engine == "ray" and runtime.ray_address:
            wanted = runtime.device == "cuda"
            return cls(cores=workers or None, gpus=max(1, workers) if wanted else None)
        gpus = _gpus_here() if runtime.device != "cpu" else 0
        if runtime.engine == "local":
            gpus = min(gpus, 1)
        return cls(cores=worker_count(workers), gpus=gpus or None)


def _gpus_here() -> int:
    """GPUs of this machine, as torch counts them; where there can be none torch is not loaded."""
    if not any(Path(p).exists() for p in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")):
        return 0
    import torch

    return torch.cuda.device_count()


class _Sizes:
    """How many rows stages will have whose inputs are not made yet, as far as sources tell."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._known: tuple[int, int] | None = None

    def rows_of(self, stage: Stage) -> int:
        """Inputs of a stage: images (of each feature set), batches for train, else captions."""
        images, captions = self._sources()
        if stage.kind == "extract":
            return images
        if stage.kind == "detections":
            return images * len(stage.inputs)
        if isinstance(stage, TrainStage):
            plan = stage.plan_config
            return captions * plan.epochs // plan.batch_size
        return captions

    def _sources(self) -> tuple[int, int]:
        if self._known is None:
            ingest = IngestStage(self.dataset)
            self._known = (ingest.num_images, ingest.num_captions)
        return self._known
