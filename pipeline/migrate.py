"""``tonics features migrate``: feature stores of an older format version, without extracting again.

The manifests follow the files, so that the stage counts as up to date afterwards; and because the
content stays the same, so does everything that was made from it. A migration that was killed is
finished by the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..artifact import Manifest, Output, remove_leftovers
from ..errors import FormatError, InputError, TonicsError
from ..features import FeatureStore
from ..features.migrate import Migrated, migrate_store, refuse_damage
from ..features.schema import INDEX_NAME
from .dataset import Dataset
from .graph import stages_of
from .lock import lock_file, locked
from .stage import Stage, manifest_file, shard_manifests
from .staleness import merge_identity


def migrate_features(dataset: Dataset, names: Sequence[str]) -> Iterator[str]:
    """Migrate feature sets of a dataset, all that were made when none is named.

    One that cannot be migrated does not stop the others; what is wrong with it is raised when they
    are done.

    Returns:
        One line for each, as soon as it is done.

    Raises:
        InputError: tonics.toml has no such feature set, or nothing was made of it.
        FormatError: a store is damaged, or of a newer version.
        LockedError: it is being made.
    """
    stages = {s.name: s for s in stages_of(dataset).values() if s.kind == "extract"}
    for name in names:
        if name not in stages:
            found, expected = f"no [features.{name}] in tonics.toml", f"one of {sorted(stages)}"
            raise InputError("features migrate", found, expected=expected)
    made = [name for name, stage in stages.items() if (stage.folder / INDEX_NAME).exists()]
    errors: list[TonicsError] = []
    for name in names or made:
        try:
            yield _migrate(stages[name])
        except TonicsError as error:
            errors.append(error)
    yield from map(str, errors[:-1])
    if errors:
        raise errors[-1]


def _migrate(stage: Stage) -> str:
    with locked(lock_file(stage.dataset, stage.key), stage.key):
        remove_leftovers(stage.folder)
        root = stage.dataset.root
        manifests = shard_manifests(stage.dataset, stage.key)
        of_shard = {root / o.path: manifest for manifest in manifests for o in manifest.outputs}

        def follow(path: Path, rewritten: bool) -> None:
            if path in of_shard:
                _follow_shard(stage, path, of_shard[path], rewritten)

        done = migrate_store(stage.folder, follow)
        _follow_index(stage)
    return _line(stage, done)


def _line(stage: Stage, done: Migrated) -> str:
    where = f"features/{stage.name}"
    if done.before == done.after and not done.shards:
        return f"{where}: is of format version {done.after}, the newest; nothing to do"
    return (
        f"{where}: format version {done.before} is now {done.after} "
        f"({done.shards} shards rewritten); what was made from it stays up to date"
    )


def _follow_shard(stage: Stage, path: Path, manifest: Manifest, rewritten: bool) -> None:
    """Record a shard as it is now, unless its manifest says so already.

    Shards that a killed migration rewrote are known by the older format in their manifests. What
    happened to them since, only the hashes of their rows can tell.

    Raises:
        FormatError: it was damaged since.
    """
    if not rewritten:
        if manifest.identity.get("format") == stage.format:
            return
        refuse_damage(path, path)
    root = stage.dataset.root
    outputs = tuple(Output.of(root, root / o.path) for o in manifest.outputs)
    identity = {**manifest.identity, "format": stage.format}
    file = manifest_file(stage.dataset, stage.key, manifest.shard)
    replace(manifest, identity=identity, outputs=outputs).write(file)


def _follow_index(stage: Stage) -> None:
    """Record the index as it is now; a stage that was not finished is left to 'tonics run'.

    Raises:
        FormatError: the store does not hold what the stage made.
    """
    file = manifest_file(stage.dataset, stage.key)
    merged = Manifest.read(file)
    if merged is None:
        return
    store = FeatureStore(stage.folder)
    if store.content_hash != merged.counts["content_hash"]:
        raise FormatError(store.path, "does not hold what was extracted", do="run 'tonics verify'")
    root = stage.dataset.root
    now = merge_identity(stage, shard_manifests(stage.dataset, stage.key))
    identity = {**merged.identity, "format": now["format"], "shards": now["shards"]}
    outputs = tuple(_now(root, output, stage.folder / INDEX_NAME) for output in merged.outputs)
    if (identity, outputs) != (merged.identity, merged.outputs):
        replace(merged, identity=identity, outputs=outputs).write(file)


def _now(root: Path, output: Output, index: Path) -> Output:
    return Output.of(root, index) if root / output.path == index else output
