"""``tonics clean``: what killed runs left, and what the configuration no longer names."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from ..artifact import remove_leftovers
from .config import CONFIG_NAME
from .dataset import Dataset
from .lock import locked
from .tables import size_text


def clean_dataset(dataset: Dataset, *, unnamed: bool) -> Iterator[str]:
    """Delete half-written files, and unnamed artefacts when asked; yield a line for each matter.

    Raises:
        LockedError: a run is at work.
    """
    with contextlib.ExitStack() as stack:
        for lock in sorted((dataset.state / "locks").glob("*.lock")):
            stack.enter_context(locked(lock, lock.stem))
        count = sum(remove_leftovers(place) for place in _own_places(dataset))
        yield f"{count} half-written files deleted"
        for folder in unnamed_artefacts(dataset):
            size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
            shown = f"{folder.relative_to(dataset.root)} ({size_text(size)})"
            if not unnamed:
                yield f"{shown} is not named in tonics.toml; --unnamed deletes it"
                continue
            _forget(dataset, folder)
            shutil.rmtree(folder)
            yield f"{shown} deleted"


def _own_places(dataset: Dataset) -> list[Path]:
    """Files and folders that are ours alone: never the user's photos."""
    names = ("features", "nouns", "embeddings", "plans", "shards", "runs", "evaluation", "rejected")
    folders = [dataset.root / name for name in names]
    files = [dataset.images_file, dataset.pairs_file]
    files += [dataset.ontology_file, dataset.detections_file]
    return [*folders, dataset.state, *files, dataset.root / CONFIG_NAME]


def unnamed_artefacts(dataset: Dataset) -> list[Path]:
    """Folders of features, embeddings, plans and runs that the configuration does not name."""
    config = dataset.config
    named: dict[str, Collection[str]] = {
        "features": config.features,
        "embeddings": config.embeddings,
        "plans": config.plans,
        "runs": config.runs,
    }
    return [
        folder
        for kind, names in named.items()
        for folder in sorted((dataset.root / kind).glob("*"))
        if folder.is_dir() and folder.name not in names
    ]


def _forget(dataset: Dataset, folder: Path) -> None:
    kinds = {
        "features": ["extract"],
        "embeddings": ["embed"],
        "plans": ["plan"],
        "runs": ["train", "eval"],
    }
    for kind in kinds[folder.parent.name]:
        manifests = dataset.state / "manifests" / kind / folder.name
        shutil.rmtree(manifests, ignore_errors=True)
        for file in dataset.rejected.glob(f"{kind}-{folder.name}-*.parquet"):
            file.unlink()
