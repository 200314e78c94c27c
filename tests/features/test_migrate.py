"""Migration: a store of an older version becomes one of today's, whatever interrupts it."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow as pa
import pytest

import tonics
from tonics import features
from tonics.errors import FormatError, InputError
from tonics.features import FeatureStore
from tonics.features.index import hash_keys
from tonics.features.migrate import Migrated, migrate_store
from tonics.features.shard import Shard
from tonics.features.writer import write_index

NAMES = {9: "nine.jpg", 30: "thirty.jpg"}


def write_arrow(path, batches, schema):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch.cast(schema) if batch.schema != schema else batch)


def read_arrow(path):
    reader = pa.ipc.open_file(path.read_bytes())
    return [reader.get_batch(k) for k in range(reader.num_record_batches)], reader.schema


def as_version_1(folder, *, keys=True):
    """Write the index as tonics 0.1 did: no hash of its own, in the first days no keys."""
    (batch,), schema = read_arrow(folder / "index.arrow")
    facts = {k: v for k, v in schema.metadata.items() if k not in (b"xxh3", b"tonics")}
    if not keys:
        batch = batch.drop_columns(["image_key"])
        facts.pop(b"keys_hash")
    facts |= {b"version": b"1"}
    batch = batch.replace_schema_metadata(facts)
    write_arrow(folder / "index.arrow", [batch], batch.schema)
    return folder


def as_version_0(folder):
    """Make up an older version, whose shards keep scores as float64."""
    as_version_1(folder)
    for path in folder.glob("0*.arrow"):
        batches, schema = read_arrow(path)
        at = schema.get_field_index("scores")
        wide = pa.field("scores", pa.large_list(pa.float64()), nullable=False)
        schema = schema.set(at, wide).with_metadata(schema.metadata | {b"version": b"0"})
        write_arrow(path, batches, schema)
    (batch,), schema = read_arrow(folder / "index.arrow")
    facts = dict(schema.metadata)
    files = [(p.name, p.stat().st_size) for p in sorted(folder.glob("0*.arrow"))]
    facts |= {b"version": b"0", b"files": json.dumps(files).encode()}
    batch = batch.replace_schema_metadata(facts)
    write_arrow(folder / "index.arrow", [batch], batch.schema)
    return folder


def narrow_scores(source, target):
    batches, schema = read_arrow(source)
    at = schema.get_field_index("scores")
    narrow = pa.field("scores", pa.large_list(pa.float32()), nullable=False)
    schema = schema.set(at, narrow).with_metadata(schema.metadata | {b"version": b"1"})
    write_arrow(target, batches, schema)


@pytest.fixture
def named(folder):
    """A store whose shards are written as ``write_arrow`` does, to compare bytes with."""
    vocabulary = FeatureStore(folder).vocabulary
    for path in folder.glob("0*.arrow"):
        write_arrow(path, *read_arrow(path))
    write_index(folder, vocabulary, NAMES)
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_version_1_becomes_todays_and_only_its_index_is_written(named):
    wanted = contents(named)
    shards = {p: p.stat().st_mtime_ns for p in named.glob("0*.arrow")}
    as_version_1(named)
    with pytest.raises(FormatError, match=r"version 1 is an older .*migrate_store\(.*store"):
        FeatureStore(named)
    assert migrate_store(named) == Migrated(before=1, after=2, shards=0)
    assert contents(named) == wanted
    assert {p: p.stat().st_mtime_ns for p in shards} == shards
    assert FeatureStore(named).verify() == []
    assert migrate_store(named) == Migrated(before=2, after=2, shards=0)


def test_a_store_from_before_images_had_keys_has_none_afterwards(named, rows, same):
    content = FeatureStore(named).content_hash
    migrate_store(as_version_1(named, keys=False))
    store = FeatureStore(named)
    assert store.image_keys([9, 30]).tolist() == [0, 0]
    assert store.content_hash == content
    for image, expected in rows.items():
        same(store[image], expected)


@pytest.fixture
def _step(monkeypatch):
    monkeypatch.setitem(features.migrate.SHARD_STEPS, 0, narrow_scores)


@pytest.mark.usefixtures("_step")
def test_shards_of_an_older_version_are_rewritten_one_at_a_time(named):
    wanted = contents(named)
    seen = []
    done = migrate_store(as_version_0(named), lambda path, new: seen.append((path.name, new)))
    assert done == Migrated(before=0, after=2, shards=3)
    assert seen == [("00000.arrow", True), ("00001.arrow", True), ("00002.arrow", True)]
    assert contents(named) == wanted


@pytest.mark.usefixtures("_step")
@pytest.mark.parametrize("stop", range(8))
def test_a_migration_killed_anywhere_ends_well_the_next_time(named, monkeypatch, stop):
    """The process ends at one of its writes: three shards and the index, before and after."""
    from tonics import artifact

    wanted = contents(named)
    as_version_0(named)
    left = [stop]

    def replace(source, target, really=artifact.os.replace):
        for step in (lambda: None, lambda: really(source, target)):
            step()
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1

    with monkeypatch.context() as patched:
        patched.setattr(artifact.os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            migrate_store(named)
    if contents(named)["index.arrow"] != wanted["index.arrow"]:
        with pytest.raises(FormatError, match="format version 0 is an older one"):
            FeatureStore(named)
    migrate_store(named)
    assert contents(named) == wanted


@pytest.mark.usefixtures("_step")
def test_damage_is_not_migrated(named, rows):
    as_version_0(named)
    path, image = named / "00001.arrow", sorted(rows)[23]
    data = bytearray(path.read_bytes())
    data[data.find(rows[image].features.tobytes()) + 3] ^= 4
    path.write_bytes(data)
    with pytest.raises(FormatError, match=rf"1 images were altered, .*: image {image} was altered"):
        migrate_store(named)
    assert path.read_bytes() == data


@pytest.mark.parametrize("damage", [False, True])
def test_two_steps_replace_a_shard_once_after_its_rows_were_compared(
    named, rows, monkeypatch, damage
):
    """As if today's shards were of version 2, and those of version 1 differed in the number."""

    def raise_version(source, target):
        batches, schema = read_arrow(source)
        write_arrow(target, batches, schema.with_metadata(schema.metadata | {b"version": b"2"}))

    as_version_0(named)
    for module in (features.migrate, features.shard):
        monkeypatch.setattr(module, "SHARD_VERSION", 2)
    monkeypatch.setattr(features.migrate, "SHARD_STEPS", {0: narrow_scores, 1: raise_version})
    path, image = named / "00001.arrow", sorted(rows)[23]
    if damage:
        data = bytearray(path.read_bytes())
        data[data.find(rows[image].features.tobytes()) + 3] ^= 4
        path.write_bytes(data)
    before = path.read_bytes()
    if damage:
        with pytest.raises(FormatError, match=f"00001.arrow: 1 images .*: image {image} was alt"):
            migrate_store(named)
        assert path.read_bytes() == before, "also not as version 1"
    else:
        assert migrate_store(named).shards == 3
        assert FeatureStore(named).verify() == []
    assert not list(named.glob("*.tmp"))


def test_shards_that_the_old_index_does_not_list_are_left_to_a_run(named, build, regions):
    """As after a run that was stopped: it had written shards, and no index yet."""
    content = FeatureStore(named).content_hash
    as_version_1(named)
    more = build(named.parent / "more", {999: regions(5, 3)})
    (more / "00000.arrow").rename(named / "00007.arrow")
    assert migrate_store(named) == Migrated(before=1, after=2, shards=0)
    store = FeatureStore(named)
    assert store.content_hash == content
    assert 999 not in store
    assert store.verify() == []


def test_the_advice_on_an_older_store_works_in_a_dataset_and_outside(named, tmp_path):
    as_version_1(named)
    with pytest.raises(FormatError) as outside:
        FeatureStore(named)
    exec(
        re.search(r"; (tonics\..*) migrates it in place", str(outside.value))[1], {"tonics": tonics}
    )
    FeatureStore(named)
    as_version_1(named)
    (tmp_path / "features").mkdir()
    with pytest.raises(FormatError, match="run 'tonics features migrate grid'"):
        FeatureStore(named.rename(tmp_path / "features" / "grid"))


def test_an_index_that_does_not_fit_its_shards_is_not_migrated(named):
    as_version_1(named)
    (batch,), schema = read_arrow(named / "index.arrow")
    facts = dict(schema.metadata) | {b"content_hash": b"0" * 32}
    write_arrow(named / "index.arrow", [batch], schema.with_metadata(facts))
    before = contents(named)
    with pytest.raises(FormatError, match=r"the shards do not hold what it says; 'tonics verify'"):
        migrate_store(named)
    facts |= {b"keys_hash": hash_keys(np.zeros(3, np.uint64)).encode()}
    write_arrow(named / "index.arrow", [batch], schema.with_metadata(facts))
    with pytest.raises(FormatError, match=r"keys were altered"):
        migrate_store(named)
    assert {k: v for k, v in contents(named).items() if k != "index.arrow"} == {
        k: v for k, v in before.items() if k != "index.arrow"
    }


def test_what_cannot_be_migrated_is_refused(tmp_path, named):
    with pytest.raises(InputError, match="no feature store"):
        migrate_store(tmp_path / "absent")
    for name in ("00001.arrow", "index.arrow"):
        batches, schema = read_arrow(named / name)
        facts = schema.metadata | {b"version": b"9", b"tonics": b"3.0"}
        write_arrow(named / name, batches, schema.with_metadata(facts))
        with pytest.raises(FormatError, match=rf"{name}: format version 9 .*'tonics>=3.0'"):
            migrate_store(named)
    (named / "index.arrow").write_bytes(b"nothing like it")
    with pytest.raises(FormatError, match=r"index.arrow: damaged"):
        migrate_store(named)


def test_a_shard_without_a_step_is_refused(named):
    with pytest.raises(FormatError, match=r"00000.arrow: format version 0 is an older one"):
        migrate_store(as_version_0(named))
    with pytest.raises(FormatError):
        Shard(named / "00000.arrow")
