"""``tonics verify``: every file against its hash; what is damaged goes, to be made anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..artifact import Manifest
from ..errors import TonicsError, writing_to
from ..features import FeatureStore
from ..train.plan import Plan
from .stage import Stage, manifest_file


def verify_dataset(stages: Sequence[Stage]) -> list[str]:
    """Check all finished shards; return what is wrong, one line each.

    A damaged file is deleted and its manifest dropped, so that nobody reads it and 'tonics run'
    makes exactly that shard again.
    """
    problems: list[str] = []
    for stage in stages:
        damaged: list[Path] = []
        found = _verify_manifests(stage, damaged)
        if found:
            found += _verify_content(stage)
        for file in damaged:
            with writing_to(file):
                file.unlink(missing_ok=True)
        problems += found
    return problems


def _verify_manifests(stage: Stage, bad: list[Path]) -> list[str]:
    """Compare files with hashes; add the damaged ones, with their manifests, to ``bad``."""
    problems = []
    root = stage.dataset.root
    for file in sorted(manifest_file(stage.dataset, stage.key).parent.glob("*.json")):
        manifest = Manifest.read(file)
        if manifest is None:
            problems.append(f"{stage.key}: {file.name} cannot be read")
            bad.append(file)
            continue
        damaged = {o.path: p for o in manifest.outputs if (p := o.damaged(root))}
        if damaged:
            bad += [file, *(root / path for path in damaged)]
            problems += [f"{stage.key}: {problem}" for problem in damaged.values()]
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
