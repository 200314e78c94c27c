"""The caption files that ``[ingest]`` names, and how the rows of each become the dataset's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..artifact import hash_json
from ..errors import ConfigError, InputError
from .config import CONFIG_NAME, Source
from .dataset import Dataset
from .sources import find_files, format_of
from .sources.listing import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionFile:
    """A caption file of a source. ``name`` is what messages and manifests call it."""

    path: Path
    name: str
    source: Source
    is_tar: bool
    reading: Reading

    @property
    def shard(self) -> str:
        """The name of a tar's shard: its own, whatever other tars there are.

        Sources that read one tar differently (texts here, a field of the JSON there) have a shard
        each.
        """
        name = self.name.encode("utf-8", "surrogateescape").hex()
        return f"tar-{hash_json([name, self.settings])[:16]}"

    @property
    def settings(self) -> dict[str, Any]:
        """What decides, with its bytes, which rows a tar gives."""
        columns = self.source.columns
        return {
            "columns": columns.model_dump(),
            "columns_named": sorted(columns.model_fields_set),
            "split": self.reading.split,
            "folder": self.reading.folder,
            "image_files": self.reading.image_files,
        }


def caption_files(dataset: Dataset) -> list[CaptionFile]:
    """All caption files, in order.

    Raises:
        ConfigError: there are no sources, or settings that contradict each other.
        InputError: a file, or the folder of the images, is not there.
    """
    config = dataset.config.ingest
    if not config.sources:
        raise ConfigError(
            dataset.root / CONFIG_NAME,
            "no [[ingest.sources]]",
            expected="at least one caption file",
            do="add one: [[ingest.sources]] captions = 'captions.json'",
        )
    if config.image_files and not dataset.image_root.is_dir():
        raise InputError(
            dataset.image_root,
            "no such image folder",
            do="check ingest.image_root in tonics.toml; for features without images, say "
            "image_files = false",
        )
    return [file for source in config.sources for file in _files_of(dataset, source)]


def _files_of(dataset: Dataset, source: Source) -> Iterator[CaptionFile]:
    image_files = dataset.config.ingest.image_files
    if image_files and not source.columns.image:
        raise ConfigError(
            f"{dataset.root / CONFIG_NAME}: ingest.sources.columns.image",
            "value ''",
            expected="the column of the images' paths",
            do="or say ingest.image_files = false, for features without images",
        )
    for path in find_files(dataset.root, source.captions):
        is_tar = format_of(path, source) == "webdataset"
        folder = "" if "{" in source.images else source.images.strip("/")
        if is_tar and image_files:
            folder = _below_root(dataset, path.parent)
        name = path.relative_to(dataset.root) if path.is_relative_to(dataset.root) else path
        yield CaptionFile(
            path=path,
            name=str(name),
            source=source,
            is_tar=is_tar,
            reading=Reading(folder=folder, split=source.split, image_files=image_files),
        )


def _below_root(dataset: Dataset, folder: Path) -> str:
    """A folder of tars, relative to image_root."""
    root = Path(os.path.abspath(dataset.image_root))
    absolute = Path(os.path.abspath(folder))
    if not absolute.is_relative_to(root):
        raise ConfigError(
            f"{dataset.root / CONFIG_NAME}: ingest.image_root",
            f"value {dataset.config.ingest.image_root!r}",
            expected=f"a folder that the tars are in, such as {folder}",
        )
    relative = absolute.relative_to(root).as_posix()
    return "" if relative == "." else relative
