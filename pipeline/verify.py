"""``tonics verify``: every file against its hash; a damaged shard is marked to be made anew."""

from __future__ import annotations

from collections.abc import Sequence

from ..artifact import Manifest
from ..errors import TonicsError
from ..features import FeatureStore
from ..train.plan import Plan
from .stage import Stage, manifest_file


def verify_dataset(stages: Sequence[Stage]) -> list[str]:
    """Check all finished shards; return what is wrong, one line each.

    The manifest of a damaged shard is dropped, so that 'tonics run' makes exactly that shard again.
    """
    problems: list[str] = []
    for stage in stages:
        found = _verify_manifests(stage)
        if found:
            found += _verify_content(stage)
        problems += found
    return problems


def _verify_manifests(stage: Stage) -> list[str]:
    problems = []
    for file in sorted(manifest_file(stage.dataset, stage.key).parent.glob("*.json")):
        manifest = Manifest.read(file)
        if manifest is None:
            problems.append(f"{stage.key}: {file.name} cannot be read")
            file.unlink()
            continue
        damaged = [p for o in manifest.outputs if (p := o.damaged(stage.dataset.root))]
        if damaged:
            file.unlink()
            problems += [f"{stage.key}: {problem}" for problem in damaged]
    return problems


def _verify_content(stage: Stage) -> list[str]:
    """Say more precisely where the damage is, where the format knows."""
    try:
        if stage.kind == "extract":
            return [f"{stage.key}: {p}" for p in FeatureStore(stage.folder).verify()]
        if stage.kind == "plan":
            return [f"{stage.key}: {p}" for p in Plan(stage.folder).verify()]
    except TonicsError as error:
        return [f"{stage.key}: {error}"]
    return []
