"""``tonics verify``: every file against its hash; what is damaged goes, to be made anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..artifact import Manifest
from ..errors import FormatError, TonicsError, writing_to
from ..features.schema import INDEX_NAME
from ..features.shard import Shard as FeatureShard
from ..train.plan import Plan
from .lock import lock_file, locked
from .stage import Stage, manifest_file


@dataclass(slots=True, kw_only=True)
class Verified:
    """What was looked at, and what is wrong, one line each."""

    files: int = 0
    stages: int = 0
    problems: list[str] = field(default_factory=list)


def verify_dataset(stages: Sequence[Stage]) -> Verified:
    """Check all finished shards.

    A damaged file is deleted and its manifest dropped, so that nobody reads it and 'tonics run'
    makes exactly that shard again. The tables of ingest are left: the numbers in them are not
    written down anywhere else.

    Raises:
        LockedError: a stage is being built.
    """
    found = Verified()
    for stage in stages:
        if not any(manifest_file(stage.dataset, stage.key).parent.glob("*.json")):
            continue
        with locked(lock_file(stage.dataset, stage.key), stage.key):
            _verify_stage(stage, found)
    return found


def _verify_stage(stage: Stage, found: Verified) -> None:
    found.stages += 1
    bad: list[Path] = []
    problems = _verify_manifests(stage, bad, found)
    if problems:
        problems += _verify_content(stage, bad)
    tables = (stage.dataset.images_file, stage.dataset.pairs_file)
    if any(file in tables for file in bad):
        problems.append(
            f"{stage.key}: restore images.parquet and pairs.parquet from a copy; without one "
            "'tonics run --rebuild ingest' numbers all images and pairs afresh"
        )
        bad = []
    for file in bad:
        with writing_to(file):
            file.unlink(missing_ok=True)
    found.problems += problems


def _verify_manifests(stage: Stage, bad: list[Path], found: Verified) -> list[str]:
    """Compare files with hashes; add the damaged ones, with their manifests, to ``bad``."""
    problems = []
    root = stage.dataset.root
    for file in sorted(manifest_file(stage.dataset, stage.key).parent.glob("*.json")):
        manifest = Manifest.read(file)
        if manifest is None:
            problems.append(f"{stage.key}: {file.name} cannot be read")
            bad.append(file)
            continue
        found.files += len(manifest.outputs)
        damaged = {o.path: p for o in manifest.outputs if (p := o.damaged(root))}
        if damaged:
            bad += [file, *(root / path for path in damaged)]
            problems += [f"{stage.key}: {problem}" for problem in damaged.values()]
    return problems


def _verify_content(stage: Stage, damaged: Sequence[Path]) -> list[str]:
    """Say more precisely where the damage is, where the format knows."""
    try:
        if stage.kind == "extract":
            shards = [f for f in damaged if f.suffix == ".arrow" and f.name != INDEX_NAME]
            lines = [line for file in shards if file.exists() for line in _damage_in(file)]
        elif stage.kind == "plan":
            lines = Plan(stage.folder).verify()
        else:
            lines = []
    except TonicsError as error:
        lines = [_without_advice(error)]
    return [f"{stage.key}: {line}" for line in lines]


def _damage_in(file: Path) -> list[str]:
    """Name batches and images of a feature shard that are not as they were written."""
    try:
        found = FeatureShard(file).verify()
    except FormatError as error:
        return [_without_advice(error)]
    return found or [f"{file}: every image in it is intact; the damage is between them"]


def _without_advice(error: TonicsError) -> str:
    """What is wrong, without the advice to run this very command."""
    return f"{error.where}: {error.found}"
