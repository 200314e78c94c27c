"""Brings a store of an older format version up to date, in place, without running a detector.

Shards come first, one at a time, each replaced atomically; the index, which carries the store's
version, comes last. So a migration that was killed leaves a store of the old version, some of whose
shards are new, and the next one goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..artifact import atomic_file
from ..errors import FormatError
from .index import Index, files_of, hash_keys, index_columns, reading_index
from .schema import (
    INDEX_NAME,
    INDEX_VERSION,
    REBUILD,
    SHARD_VERSION,
    check_version,
    version_of,
)
from .shard import Shard, open_file
from .writer import shard_paths

# version -> (source, target): writes a shard of that version as one of the next.
SHARD_STEPS: dict[int, Callable[[Path, Path], None]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """What a migration came to: versions of the store, and how many shards were rewritten."""

    before: int
    after: int
    shards: int


def migrate_store(
    folder: str | Path, on_shard: Callable[[Path, bool], None] = lambda path, rewritten: None
) -> Migrated:
    """Migrate a store to the version of this tonics; one that is there already is left alone.

    Args:
        on_shard: called with every shard once it is of this version, and whether it was rewritten
            now.

    Raises:
        InputError: there is no store in this folder.
        FormatError: it is of a newer version, or damaged; a damaged shard is not replaced.
    """
    folder = Path(folder)
    old = _OldIndex.read(folder)  # its shards only: a run that was stopped may have left others
    rewritten = [path for path in shard_paths(folder) if _migrate_shard(path, on_shard)]
    if old.version < INDEX_VERSION:
        shards = [Shard(folder / name) for name in old.files]
        index = Index.of(folder, shards, old.vocabulary_hash, old.keys)
        if index.content_hash != old.content_hash:
            found = "the shards do not hold what it says"
            raise FormatError(folder / INDEX_NAME, found, do=REBUILD)
        index.write(folder)
    return Migrated(before=old.version, after=INDEX_VERSION, shards=len(rewritten))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _OldIndex:
    """What an index of any version says that cannot be read from the shards."""

    version: int
    files: tuple[str, ...]
    content_hash: str
    vocabulary_hash: str
    image: np.ndarray
    image_key: np.ndarray

    @classmethod
    def read(cls, folder: Path) -> _OldIndex:
        path = folder / INDEX_NAME
        with reading_index(folder):
            reader = open_file(path)
            metadata = reader.schema.metadata or {}
            version = version_of(reader.schema)
            if version is None or version > INDEX_VERSION:
                check_version(path, reader.schema, INDEX_VERSION)
            columns = index_columns(reader)
            # The first stores knew no keys.
            none = np.zeros(len(columns["image"]), np.uint64)
            keys = columns.get("image_key", none)
            if b"keys_hash" in metadata and hash_keys(keys) != metadata[b"keys_hash"].decode():
                raise FormatError(path, "the images' keys were altered", do=REBUILD)
            return cls(
                version=int(version or 0),
                files=tuple(name for name, _ in files_of(metadata)),
                content_hash=metadata[b"content_hash"].decode(),
                vocabulary_hash=metadata[b"vocabulary_hash"].decode(),
                image=columns["image"],
                image_key=keys,
            )

    def keys(self, images: np.ndarray) -> np.ndarray:
        """The keys of the same images; all zeros for others, whose content hash will differ."""
        same = np.array_equal(images, self.image)
        return self.image_key if same else np.zeros(len(images), np.uint64)


def _migrate_shard(path: Path, on_shard: Callable[[Path, bool], None]) -> bool:
    """Take a shard through all the steps it needs."""
    version = _shard_version(path)
    if version < SHARD_VERSION:
        with atomic_file(path) as tmp:
            _take_steps(version, path, tmp)
            refuse_damage(path, tmp)
    on_shard(path, version < SHARD_VERSION)
    return version < SHARD_VERSION


def _take_steps(version: int, source: Path, target: Path) -> None:
    """Write a shard of some version as one of today's, by way of those between.

    ``source`` stays as it is: only the last version's rows can be compared with their hashes.
    """
    between = target.with_name(f"{target.name}.tmp")
    try:
        for step in range(version, SHARD_VERSION):
            written = target if (SHARD_VERSION - step) % 2 else between  # not what it reads
            SHARD_STEPS[step](source, written)
            source = written
    finally:
        between.unlink(missing_ok=True)


def _shard_version(path: Path) -> int:
    try:
        schema = open_file(path).schema
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FormatError(path, f"damaged ({error})", do=REBUILD) from error
    version = version_of(schema)
    if version is None or version not in {*SHARD_STEPS, SHARD_VERSION}:
        check_version(path, schema, SHARD_VERSION)
    return int(version or 0)


def refuse_damage(path: Path, migrated: Path) -> None:
    """Compare the migrated rows with their hashes, which came with them from the old file.

    Raises:
        FormatError: some were altered; the message speaks of ``path``.
    """
    if problems := Shard(migrated).verify():
        found = f"{len(problems)} images were altered, the first: {problems[0]}"
        raise FormatError(path, found.replace(str(migrated), path.name), do=REBUILD)
