"""``tonics verify``: every file against its hash; what is damaged goes, if it can be made anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..artifact import Manifest
from ..errors import FormatError, TonicsError, writing_to
from ..features import FeatureStore
from ..features.schema import INDEX_NAME, INDEX_VERSION, version_of
from ..features.shard import Shard as FeatureShard
from ..features.shard import open_file, without_advice
from ..train.plan import Plan
from .lock import lock_file, locked
from .stage import Stage, manifest_file

_NUMBERS = (
    "restore images.parquet and pairs.parquet from a copy; without one "
    "'tonics run --rebuild ingest' numbers all images and pairs afresh"
)


@dataclass(slots=True, kw_only=True)
class Verified:
    """What was looked at, and what is wrong.

    Attributes:
        problems: one text for each damaged file, whose further lines say where in it.
        kept: how many damaged files were left, for they cannot be made again.
    """

    files: int = 0
    stages: int = 0
    problems: list[str] = field(default_factory=list)
    kept: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Damage:
    """A file that is not as it was written, and the manifest that speaks of it."""

    manifest: Path
    file: Path
    problem: str


def verify_dataset(stages: Sequence[Stage]) -> Verified:
    """Check all finished shards.

    A damaged file is deleted and its manifest dropped, so that nobody reads it and 'tonics run'
    makes exactly that shard again. What cannot be made again is left as it is: the tables of
    ingest, whose numbers are not written down anywhere else, and imported features whose file is
    gone.

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
    damages = _damaged_files(stage, found) or _index_damage(stage)
    tables = (stage.dataset.images_file, stage.dataset.pairs_file)
    numbers = any(damage.file in tables for damage in damages)
    where = [_where(stage, damage) for damage in damages]
    for damage, lines in zip(damages, where, strict=True):
        why = _NUMBERS if numbers else stage.irreplaceable(damage.manifest.stem)
        if why:
            found.kept += 1
            lines = [*lines, f"kept, because it cannot be made again: {why}"]
        else:
            _delete(damage)
        found.problems.append("\n  ".join([f"{stage.key}: {damage.problem}", *lines]))


def _damaged_files(stage: Stage, found: Verified) -> list[_Damage]:
    """Compare files with the hashes in their manifests."""
    damages = []
    root = stage.dataset.root
    for file in sorted(manifest_file(stage.dataset, stage.key).parent.glob("*.json")):
        manifest = Manifest.read(file)
        if manifest is None:
            problem = f"{file.name} cannot be read"
            damages.append(_Damage(manifest=file, file=file, problem=problem))
            continue
        found.files += len(manifest.outputs)
        for output in manifest.outputs:
            if problem := output.damaged(root):
                damages.append(_Damage(manifest=file, file=root / output.path, problem=problem))
    return damages


def _index_damage(stage: Stage) -> list[_Damage]:
    """Compare the index of a finished store, whose files are all as written, with its shards."""
    manifest, file = manifest_file(stage.dataset, stage.key), stage.folder / INDEX_NAME
    if stage.kind != "extract" or not manifest.exists() or not file.exists():
        return []
    try:
        if version_of(open_file(file).schema) != INDEX_VERSION:  # that is for 'features migrate'
            return []
        problems = FeatureStore(stage.folder).compare()
    except TonicsError as error:
        problems = [without_advice(error)]
    if not problems:
        return []
    problem = f"{INDEX_NAME} does not fit its shards: {'; '.join(problems)}"
    return [_Damage(manifest=manifest, file=file, problem=problem)]


def _delete(damage: _Damage) -> None:
    for file in (damage.manifest, damage.file):
        with writing_to(file):
            file.unlink(missing_ok=True)


def _where(stage: Stage, damage: _Damage) -> list[str]:
    """Say more precisely where the damage is, where the format knows."""
    file = damage.file
    try:
        if stage.kind == "extract":
            shard = file.suffix == ".arrow" and file.name != INDEX_NAME and file.exists()
            lines = _damage_in(file) if shard else []
        elif stage.kind == "plan" and file != damage.manifest:
            lines = [line for line in Plan(stage.folder).verify() if file.name in line]
        else:
            lines = []
    except TonicsError as error:
        lines = [without_advice(error)]
    return lines


def _damage_in(file: Path) -> list[str]:
    """Name batches and images of a feature shard that are not as they were written."""
    try:
        found = FeatureShard(file).verify()
    except FormatError as error:
        return [without_advice(error)]
    return found or [f"{file}: every image in it is intact; the damage is between them"]
