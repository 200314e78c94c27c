"""Where a command may write a file for the user: never over a dataset's own."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .dataset import Dataset


def check_target(dataset: Dataset, path: Path, *, force: bool) -> None:
    """Refuse a file that may not be written.

    Args:
        path: resolved. force: overwrite a file that is there.

    Raises:
        InputError: there is no such folder, the file is there, or is one of the dataset itself.
    """
    if not path.parent.is_dir():
        raise InputError(path.parent, "no such folder", do="make it first")
    if path.exists() and not path.is_file():
        raise InputError(path, "not a file", do="name a file to write")
    if path.exists() and not force:
        raise InputError(path, "exists already", do="name another file, or add --force")
    if path.is_relative_to(dataset.root) and _is_ours(dataset, path):
        raise InputError(path, "a file of the dataset itself", do="name another place")


def _is_ours(dataset: Dataset, path: Path) -> bool:
    first = path.relative_to(dataset.root).parts[0]
    tables = {dataset.images_file.name, dataset.pairs_file.name}
    folders = {
        "features",
        "nouns",
        "embeddings",
        "evaluation",
        "plans",
        "runs",
        "rejected",
        "shards",
    }
    return first in tables | folders | {".tonics", "tonics.toml"} or path.suffix == ".duckdb"
