"""Reading: what was written comes back, and damage is noticed and named."""

from __future__ import annotations

import dataclasses
import os
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from tonics.errors import FormatError, ImageNotFound, InputError
from tonics.features import FeatureStore, RegionBuffer
from tonics.features.detector import Vocabulary
from tonics.features.index import image_key
from tonics.features.shard import Shard, ShardBatch
from tonics.features.writer import write_index

PACKED = ("features", "boxes", "labels", "scores")


def assert_gathered(batch, rows, images, max_regions=None):
    """Compare a batch with the naive loop over the images."""
    parts = [rows[image] for image in images]
    counts = [len(part) if max_regions is None else min(len(part), max_regions) for part in parts]
    assert batch.images.tolist() == list(images)
    assert batch.cu_seqlens.dtype == np.int32
    assert batch.cu_seqlens.tolist() == [0, *np.cumsum(counts).tolist()]
    for name in PACKED:
        naive = [getattr(part, name)[:n] for part, n in zip(parts, counts, strict=True)]
        found = getattr(batch, name)
        if parts:
            np.testing.assert_array_equal(found, np.concatenate(naive), err_msg=name)
            assert found.dtype == naive[0].dtype
        else:
            assert len(found) == 0
    geometry = [part.geometry[:n] for part, n in zip(parts, counts, strict=True)]
    np.testing.assert_array_equal(batch.geometry, np.concatenate([np.zeros((0, 6)), *geometry]))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_was_written_comes_back(data, regions, build, same):
    counts = data.draw(st.dictionaries(st.integers(0, 500), st.integers(0, 5), max_size=25))
    rows = {k: regions(k, n, attributes=k % 2 == 0) for k, n in sorted(counts.items())}
    shard_rows = data.draw(st.integers(1, 30), label="shard rows")
    batch_bytes = data.draw(st.integers(1, 3000), label="batch bytes")
    buffer = RegionBuffer(6)
    with tempfile.TemporaryDirectory() as name:
        cut = {"shard_rows": shard_rows, "batch_bytes": batch_bytes}
        store = FeatureStore(build(Path(name), rows, **cut))
        assert store.images.tolist() == sorted(rows)
        assert store.verify() == []
        for image, expected in rows.items():
            same(store[image], expected)
        for _ in range(3 if rows else 0):
            images = data.draw(st.lists(st.sampled_from(sorted(rows)), max_size=20))
            most = data.draw(st.none() | st.integers(0, 6))
            assert_gathered(store.gather(images, most), rows, images, most)
            assert_gathered(store.gather(images, most, out=buffer), rows, images, most)


def test_the_store_describes_itself(folder, rows):
    store = FeatureStore(str(folder))
    assert len(store) == 30
    assert list(store) == sorted(rows)
    assert store.dim == 6
    assert len(store.content_hash) == 32
    assert store.vocabulary.labels[0].synset == "dog.n.01"
    assert 2 in store
    assert 3 not in store
    assert store.num_regions([9, 2, 30]).tolist() == [len(rows[k]) for k in (9, 2, 30)]


def test_an_image_is_a_view_of_the_mapped_file(folder):
    store = FeatureStore(folder)
    one, again = store[30], store[30]
    for name in (*PACKED, "attributes", "attribute_scores"):
        assert np.shares_memory(getattr(one, name), getattr(again, name)), name
        assert not getattr(one, name).flags.writeable, name


def test_shards_are_opened_when_first_read(folder):
    store = FeatureStore(folder)
    other = FeatureStore(folder)
    path = folder / "00001.arrow"
    path.write_bytes(b"x" * path.stat().st_size)
    assert len(store[2]) == 0
    with pytest.raises(FormatError, match=r"00001.arrow: damaged"):
        store.gather(other.images)


def test_a_buffer_is_reused(folder, rows):
    store, buffer = FeatureStore(folder), RegionBuffer(6, 100)
    first = store.gather(sorted(rows)[:20], out=buffer)
    second = store.gather(sorted(rows)[10:], out=buffer)
    assert np.shares_memory(first.features, second.features)
    assert_gathered(second, rows, sorted(rows)[10:])
    with pytest.raises(InputError, match="features of 5 numbers, expected 6"):
        store.gather([2], out=RegionBuffer(5))


def test_threads_may_share_a_store(folder, rows):
    store = FeatureStore(folder)
    orders = [random.Random(k).sample(sorted(rows), 20) for k in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for images, batch in zip(orders, pool.map(store.gather, orders), strict=True):
            assert_gathered(batch, rows, images)


def test_a_pickled_store_opens_again(folder, rows):
    store = pickle.loads(pickle.dumps(FeatureStore(folder)))
    assert_gathered(store.gather([9, 2]), rows, [9, 2])


def test_unknown_images_are_listed(folder):
    store = FeatureStore(folder)
    wanted = [2, *range(1000, 1015), 1000, 9]
    with pytest.raises(ImageNotFound) as error:
        store.gather(wanted)
    assert "holds no image 1000, 1001, " in str(error.value)
    assert str(error.value).endswith("1009 and 5 more")
    for read in (lambda: store[-1], lambda: store.num_regions([3])):
        with pytest.raises(ImageNotFound, match="holds no image"):
            read()


@pytest.mark.parametrize("images", [[1.5], [[2, 9]], ["2"], np.array([True])])
def test_numbers_that_are_no_image_numbers_are_refused(folder, images):
    with pytest.raises(InputError, match="expected one axis of whole numbers"):
        FeatureStore(folder).gather(images)
    with pytest.raises(InputError, match="max_regions: -1"):
        FeatureStore(folder).gather([2], max_regions=-1)


def test_sliced_batches_read_like_whole_ones(folder, rows, same):
    path = folder / "00001.arrow"
    table = pa.ipc.open_file(path).read_all().combine_chunks()
    whole = table.to_batches()[0]
    part = ShardBatch.of(whole.slice(4, 5))
    for row, image in enumerate(part.images.tolist()):
        same(part.regions(row), rows[image])
    np.testing.assert_array_equal(part.hashes, ShardBatch.of(whole).hashes[4:9])
    with pa.ipc.new_file(path, table.schema) as writer:
        for start, count in ((0, 3), (3, 6), (9, 3)):
            writer.write_batch(whole.slice(start, count))
    write_index(folder, Vocabulary.read(folder / "vocabulary.json"))
    store = FeatureStore(folder)
    assert store.verify() == []
    assert_gathered(store.gather(store.images[::-1]), rows, sorted(rows, reverse=True))


def test_a_sliced_list_child_reads_like_a_whole_one(folder, rows, same):
    batch = pa.ipc.open_file(folder / "00001.arrow").read_all().combine_chunks().to_batches()[0]
    at = batch.schema.get_field_index("features")
    lists = batch.column(at)
    padding = pa.array([[9.0] * 6] * 3, lists.type.value_type)
    child = pa.concat_arrays([padding, lists.values]).slice(3)
    moved = pa.LargeListArray.from_arrays(lists.offsets, child, type=lists.type)
    part = ShardBatch.of(batch.set_column(at, batch.schema.field(at), moved))
    for row, image in enumerate(part.images.tolist()):
        same(part.regions(row), rows[image])


def test_it_says_what_it_is_in_a_line(folder):
    assert repr(FeatureStore(folder)) == f"FeatureStore({str(folder)!r}, 30 images, dim=6)"


def test_it_says_whose_image_a_row_is(folder, rows):
    before = FeatureStore(folder)
    assert before.image_keys([9, 2]).tolist() == [0, 0]
    names = {image: f"été {image}.jpg" for image in sorted(rows)[1:]} | {5000: "not here.jpg"}
    write_index(folder, before.vocabulary, image_ids=names)
    store = FeatureStore(folder)
    keys = store.image_keys([30, 2, 9, 30])
    expected = [xxhash.xxh3_64_intdigest(f"été {k}.jpg".encode()) for k in (30, 9)]
    assert keys.dtype == np.uint64
    assert keys.tolist() == [expected[0], 0, expected[1], expected[0]]
    assert store.content_hash == before.content_hash
    assert store.verify() == []
    assert store.image_keys([]).shape == (0,)
    with pytest.raises(ImageNotFound, match="holds no image 3"):
        store.image_keys([3])


def change(path, edit):
    """Write an Arrow file anew with other columns."""
    table = pa.ipc.open_file(path.read_bytes()).read_all()
    changed = edit(table).replace_schema_metadata(table.schema.metadata)
    path.unlink()
    with pa.ipc.new_file(path, changed.schema) as writer:
        writer.write_table(changed.combine_chunks())


def replaced(name, kind):
    def edit(table):
        at = table.column_names.index(name)
        return table.set_column(at, name, table.column(name).cast(kind))

    return edit


@pytest.mark.parametrize("what", ["keys", "a file's size", "the content hash"])
def test_an_altered_index_is_noticed_at_open(folder, rows, what):
    path = folder / "index.arrow"
    write_index(folder, FeatureStore(folder).vocabulary, {image: "a" for image in rows})
    data = bytearray(path.read_bytes())
    found = {
        "keys": np.array([image_key("a")] * len(rows), "<u8").tobytes(),
        "a file's size": str((folder / "00001.arrow").stat().st_size).encode(),
        "the content hash": FeatureStore(folder).content_hash.encode(),
    }[what]
    data[data.rfind(found) + 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"index\.arrow: was altered; 'tonics verify', then"):
        FeatureStore(folder)


def test_columns_of_a_later_release_are_ignored(folder, rows):
    def add(table):
        return table.add_column(2, "later", pa.array(["new"] * len(table)))

    change(folder / "00001.arrow", add)
    write_index(folder, Vocabulary.read(folder / "vocabulary.json"))
    change(folder / "index.arrow", add)
    store = FeatureStore(folder)
    assert store.verify() == []
    assert_gathered(store.gather(sorted(rows)), rows, sorted(rows))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (replaced("row", pa.int64()), "column 'row' is int64, expected int32"),
        (replaced("image_key", pa.int64()), "column 'image_key' is int64, expected uint64"),
        (lambda t: t.drop_columns(["width"]), "column 'width' is missing, expected int32"),
    ],
)
def test_an_index_with_a_column_of_another_type_is_refused(folder, edit, message):
    change(folder / "index.arrow", edit)
    with pytest.raises(FormatError, match=rf"index\.arrow: {message}"):
        FeatureStore(folder)


def test_a_shard_with_a_column_of_another_type_is_refused(folder):
    change(folder / "00001.arrow", replaced("width", pa.int64()))
    with pytest.raises(FormatError, match=r"column 'width' is int64, expected int32"):
        Shard(folder / "00001.arrow")


def test_a_folder_without_a_store_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"no feature store, expected .*; run 'tonics extract'$"):
        FeatureStore(tmp_path / "absent")


def test_a_truncated_shard_is_noticed_at_open(folder):
    path = folder / "00001.arrow"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(FormatError) as error:
        FeatureStore(folder)
    message = f"{path}: {len(whole) - 100} bytes, expected {len(whole)} as index.arrow says"
    assert str(error.value) == f"{message}; 'tonics run' makes it anew"
    path.unlink()
    with pytest.raises(FormatError, match=r"00001.arrow: is missing; 'tonics run' makes it anew"):
        FeatureStore(folder)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"version": "9"}, "format version 9 is newer than this tonics reads, expected {now}; "
         "install a newer tonics"),
        ({"version": "9", "tonics": "0.8.1"}, "format version 9 (written by tonics 0.8.1) is newer "
         "than this tonics reads, expected {now}; pip install 'tonics>=0.8.1'"),
        ({"version": "9", "tonics": "1; rm"}, "is newer than this tonics reads, expected {now}; "
         "install a newer tonics"),
        ({"version": "0"}, "format version 0 is an older one, expected {now}; "
         "tonics.features.migrate.migrate_store("),
        ({}, "not a file of a tonics feature store"),
        ({"version": "²"}, "not a file of a tonics feature store"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["index.arrow", "00001.arrow"])
def test_other_versions_are_refused(folder, name, found, message):
    path = folder / name
    table = pa.ipc.open_file(path.read_bytes()).read_all()
    metadata = {k: v for k, v in table.schema.metadata.items() if k not in (b"version", b"tonics")}
    with pa.ipc.new_file(path, table.schema.with_metadata(metadata | found)) as writer:
        writer.write_table(table)
    with pytest.raises(FormatError) as error:
        FeatureStore(folder) if name == "index.arrow" else Shard(path)
    assert message.format(now=2 if name == "index.arrow" else 1) in str(error.value)
    assert str(path) in str(error.value)


def test_an_open_store_holds_no_file_descriptors(folder):
    store = FeatureStore(folder)
    store.gather(store.images)
    handles = [Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    opened = [os.readlink(handle) for handle in handles if handle.is_symlink()]
    assert not [path for path in opened if path.startswith(str(folder))]
    assert f"{folder}/00001.arrow" in Path("/proc/self/maps").read_text()


def test_a_flipped_byte_is_reported_by_shard_batch_and_image(folder, rows):
    path, image = folder / "00001.arrow", sorted(rows)[23]
    data = bytearray(path.read_bytes())
    at = data.find(rows[image].features.tobytes())
    assert at > 0
    data[at + 3] ^= 4
    path.write_bytes(data)
    store = FeatureStore(folder)
    (problem,) = store.verify()
    number = int(store._index.batch[store.images == image][0])
    assert number > 0, "the test should tell a batch from the first"
    assert problem == f"{path}: batch {number}: image {image} was altered"


def test_no_flipped_byte_is_missed(folder, rows, same, tmp_path):
    """Flip bytes anywhere: either it is reported, or every value is still the same."""
    rng, silent = random.Random(0), 0
    for name in ("00000.arrow", "index.arrow", "vocabulary.json"):
        whole = (folder / name).read_bytes()
        for _ in range(60):
            damaged = bytearray(whole)
            damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
            copy = tmp_path / "copy"
            shutil.copytree(folder, copy, dirs_exist_ok=True)
            (copy / name).write_bytes(damaged)
            silent += harmless(copy, rows, FeatureStore(folder).vocabulary, same)
    assert silent < 60, "most flips must be reported, only padding and names are harmless"


def harmless(folder, rows, vocabulary, same) -> bool:
    try:
        store = FeatureStore(folder)
        if store.verify():
            return False
    except FormatError:
        return False
    assert store.images.tolist() == sorted(rows)
    assert store.vocabulary == vocabulary
    for image, expected in rows.items():
        same(store[image], expected)
    return True


def test_a_shard_that_changed_after_indexing_is_refused(folder, rows, build, tmp_path, regions):
    other = {image + 1: part for image, part in rows.items()}
    build(tmp_path / "other", other, shard_rows=12, batch_bytes=500)
    shutil.copy(tmp_path / "other" / "00001.arrow", folder / "00001.arrow")
    store = FeatureStore(folder)
    with pytest.raises(FormatError, match=r"00001.arrow: batch 0 is not what index.arrow says"):
        store.gather(store.images)
    assert any("00001.arrow: batch 0 is not" in problem for problem in store.verify())


def test_a_shard_of_the_same_shape_but_other_values_is_noticed(folder, rows, build, tmp_path):
    other = dict(rows)
    image = sorted(rows)[23]
    other[image] = dataclasses.replace(other[image], scores=other[image].scores / 2)
    build(tmp_path / "other", other, shard_rows=12, batch_bytes=500)
    shutil.copy(tmp_path / "other" / "00001.arrow", folder / "00001.arrow")
    (problem,) = FeatureStore(folder).verify()
    assert problem == f"{folder / 'index.arrow'}: content hash differs from the shards'"


READER = """
import sys
allowed = {"numpy", "pyarrow", "xxhash", "_xxhash", "tonics", "cython_runtime"}

class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top not in allowed and top not in sys.stdlib_module_names and "editable" not in top:
            raise ImportError(f"{name} is not installed")

sys.meta_path.insert(0, Refuse())
from tonics.features import FeatureStore
store = FeatureStore(sys.argv[1])
batch = store.gather(store.images)
assert not store.verify()
assert store.vocabulary.labels and batch.geometry.shape == (len(batch.features), 6)
heavy = {"torch", "PIL", "pandas", "spacy", "nltk", "duckdb"} & set(sys.modules)
assert not heavy, heavy
print(len(batch.features))
"""


def test_reading_needs_numpy_pyarrow_and_xxhash_only(folder, rows):
    command = [sys.executable, "-c", READER, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert int(done.stdout) == sum(map(len, rows.values()))
