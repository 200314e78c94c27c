"""``tonics features migrate``: all counts as up to date afterwards, whatever interrupts it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from tonics import artifact
from tonics.artifact import Manifest, Output, hash_json
from tonics.errors import FormatError, InputError, WouldDiscard
from tonics.features import FeatureStore, migrate
from tonics.features.shard import Shard
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.graph import stages_of
from tonics.pipeline.lock import LockedError, lock_file, locked
from tonics.pipeline.migrate import migrate_features
from tonics.pipeline.runner import bring_up_to_date
from tonics.pipeline.stage import Stage, manifest_file
from tonics.pipeline.staleness import status_of
from tonics.pipeline.verify import verify_dataset


def rewrite(source: Path, target: Path, facts: dict[bytes, bytes | None]) -> None:
    """Write an Arrow file with other metadata."""
    reader = pa.ipc.open_file(source.read_bytes())
    metadata = {**reader.schema.metadata, **facts}
    schema = reader.schema.with_metadata({k: v for k, v in metadata.items() if v is not None})
    with pa.OSFile(str(target), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for number in range(reader.num_record_batches):
            batch, own = reader.get_batch_with_custom_metadata(number)
            batch = batch.replace_schema_metadata(schema.metadata)
            writer.write_batch(batch, custom_metadata=own or None)


def as_old(stage: Stage, *, version: int) -> None:
    """Make the store, and what its manifests say, one of version 1 or of a made-up version 0."""
    root, folder = stage.dataset.root, stage.folder
    manifests = manifest_file(stage.dataset, stage.key).parent
    shards = []
    for file in sorted(manifests.glob("0*.json")):
        manifest = Manifest.read(file)
        assert manifest
        if version == 0:
            path = root / manifest.outputs[0].path
            rewrite(path, path, {b"version": b"0", b"old": b"and longer"})
            identity = {**manifest.identity, "format": 0}
            outputs = (Output.of(root, path),)
            manifest = dataclasses.replace(manifest, identity=identity, outputs=outputs)
            manifest.write(file)
        shards.append(manifest)
    index = folder / "index.arrow"
    files = [(p.name, p.stat().st_size) for p in sorted(folder.glob("0*.arrow"))]
    facts: dict[bytes, bytes | None] = {b"xxh3": None, b"tonics": None}
    facts |= {b"version": str(version).encode(), b"files": json.dumps(files).encode()}
    rewrite(index, index, facts)
    merged = Manifest.read(manifests / "stage.json")
    assert merged
    identity = {**merged.identity, "format": min(version, 1)}
    identity["shards"] = hash_json([m.content() for m in shards])
    outputs = tuple(Output.of(root, root / o.path) for o in merged.outputs)
    dataclasses.replace(merged, identity=identity, outputs=outputs).write(manifests / "stage.json")


@pytest.fixture
def stage(little: Path) -> Stage:
    return stages_of(Dataset.open(little))["extract/grid"]


@pytest.fixture
def _step(monkeypatch: pytest.MonkeyPatch) -> None:
    def renumber(source: Path, target: Path) -> None:
        rewrite(source, target, {b"version": b"1", b"old": None})

    monkeypatch.setitem(migrate.SHARD_STEPS, 0, renumber)


def contents(stage: Stage) -> dict[str, bytes]:
    """Artefacts and manifests: all that a later stage depends on."""
    root = stage.dataset.root
    files = [*stage.folder.iterdir(), *(root / ".tonics" / "manifests").rglob("*.json")]
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


def test_version_1_is_migrated_and_counts_as_up_to_date(stage: Stage) -> None:
    wanted = contents(stage)
    assert status_of(stage).done
    as_old(stage, version=1)
    with pytest.raises(FormatError, match="run 'tonics features migrate grid'"):
        FeatureStore(stage.folder)
    (line,) = migrate_features(stage.dataset, ["grid"])
    assert line.startswith("features/grid: format version 1 is now 2 (0 shards rewritten)")
    assert contents(stage) == wanted
    assert status_of(stage).done
    remnant = stage.folder / "00000.arrow.77.tmp"
    remnant.write_bytes(b"half")
    (line,) = migrate_features(stage.dataset, [])
    assert not remnant.exists()
    assert line == "features/grid: is of format version 2, the newest; nothing to do"
    assert contents(stage) == wanted


@pytest.mark.usefixtures("_step")
def test_rewritten_shards_are_up_to_date_too(stage: Stage) -> None:
    wanted = contents(stage)
    as_old(stage, version=0)
    assert not status_of(stage).done
    (line,) = migrate_features(stage.dataset, ["grid"])
    assert "format version 0 is now 2 (3 shards rewritten)" in line
    assert contents(stage) == wanted
    assert status_of(stage).done


@pytest.mark.usefixtures("_step")
def test_killed_at_any_write_it_ends_well_the_next_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three shards, their manifests, the index, its manifest: eight files, each may come last."""
    wanted = contents(stage)
    as_old(stage, version=0)
    killed = 0
    while status_of(stage).why or killed < 8:
        left = 1  # files that this attempt may write

        def replace(
            source: Path, target: Path, really: Callable[[Path, Path], None] = artifact.os.replace
        ) -> None:
            nonlocal left, killed
            if not left:
                killed += 1
                raise KeyboardInterrupt
            left -= 1
            really(source, target)

        with monkeypatch.context() as patched:
            patched.setattr(artifact.os, "replace", replace)
            try:
                list(migrate_features(stage.dataset, ["grid"]))
            except KeyboardInterrupt:
                continue
            break
    assert killed == 7
    assert contents(stage) == wanted


@pytest.mark.usefixtures("_step")
def test_what_is_damaged_between_a_kill_and_the_next_migration_is_not_recorded_as_fine(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_old(stage, version=0)

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:  # the shard is replaced, its manifest is not
        patched.setattr(Manifest, "write", kill)
        with pytest.raises(KeyboardInterrupt):
            list(migrate_features(stage.dataset, ["grid"]))
    path = stage.folder / "00000.arrow"
    data, manifest = bytearray(path.read_bytes()), manifest_file(stage.dataset, stage.key, "00000")
    data[data.find(Shard(path).batch(0).features.tobytes()) + 3] ^= 4
    path.write_bytes(data)
    before = manifest.read_bytes()
    with pytest.raises(FormatError, match=r"00000.arrow: 1 images were altered, .*'tonics verify'"):
        list(migrate_features(stage.dataset, ["grid"]))
    assert manifest.read_bytes() == before
    assert any("00000.arrow" in problem for problem in verify_dataset([stage]).problems)


@pytest.mark.usefixtures("_step")
def test_a_run_on_older_shards_says_to_migrate_and_not_to_rebuild(stage: Stage) -> None:
    as_old(stage, version=0)
    with pytest.raises(WouldDiscard, match=r"format 0, now 1\); 'tonics features migrate grid'"):
        bring_up_to_date(stage, workers=1)
    list(migrate_features(stage.dataset, ["grid"]))
    assert bring_up_to_date(stage, workers=1).fresh


def test_a_store_that_cannot_be_migrated_does_not_stop_the_others(stage: Stage) -> None:
    root = stage.dataset.root
    with (root / "tonics.toml").open("a") as file:
        file.write("[features.another]\ndetector = 'made-up'\n")
        file.write("[features.broken]\ndetector = 'made-up'\n")
    as_old(stage, version=1)
    for name in ("another", "broken"):
        (root / "features" / name).mkdir()
        (root / "features" / name / "index.arrow").write_bytes(b"nothing like it")
    lines = migrate_features(Dataset.open(root), ["another", "grid", "broken"])
    assert "format version 1 is now 2" in next(lines)
    assert "another/index.arrow: damaged" in next(lines)
    with pytest.raises(FormatError, match=r"broken/index\.arrow: damaged"):
        next(lines)
    assert status_of(stage).done


def test_a_shard_that_was_stale_before_stays_stale(stage: Stage) -> None:
    as_old(stage, version=1)
    file = manifest_file(stage.dataset, stage.key, "00001")
    manifest = Manifest.read(file)
    assert manifest
    dataclasses.replace(manifest, identity={**manifest.identity, "rows": "other"}).write(file)
    list(migrate_features(stage.dataset, ["grid"]))
    assert [s.shard.name for s in status_of(stage).stale] == ["00001"]


def test_what_cannot_be_migrated_is_said(stage: Stage) -> None:
    with pytest.raises(InputError, match=r"no \[features.vinvl\] in tonics.toml, .*\['grid'\]"):
        list(migrate_features(stage.dataset, ["vinvl"]))
    held = locked(lock_file(stage.dataset, stage.key), stage.key)
    with held, pytest.raises(LockedError):
        list(migrate_features(stage.dataset, ["grid"]))
    (stage.folder / "index.arrow").unlink()
    with pytest.raises(InputError, match=r"no feature store.*run 'tonics extract'"):
        list(migrate_features(stage.dataset, ["grid"]))
    assert list(migrate_features(stage.dataset, [])) == []
