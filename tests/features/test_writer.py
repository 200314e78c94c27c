"""Writing: bytes that depend on the rows only, and an index that refuses what does not fit."""

from __future__ import annotations

import dataclasses
import shutil

import pyarrow as pa
import pytest

from tonics.errors import FormatError, InputError
from tonics.features import FeatureStore
from tonics.features.detector import Label, Vocabulary
from tonics.features.schema import shard_schema
from tonics.features.shard import Shard
from tonics.features.writer import write_index, write_shard


def test_columns_are_those_of_the_design():
    types = {field.name: str(field.type) for field in shard_schema(2048)}
    assert types == {
        "image": "int64",
        "num_regions": "int16",
        "width": "int32",
        "height": "int32",
        "features": "large_list<item: fixed_size_list<item: halffloat>[2048]>",
        "boxes": "large_list<item: fixed_size_list<item: float>[4]>",
        "labels": "large_list<item: uint16>",
        "scores": "large_list<item: float>",
        "attributes": "large_list<item: fixed_size_list<item: uint16>[16]>",
        "attribute_scores": "large_list<item: fixed_size_list<item: halffloat>[16]>",
        "xxh3": "fixed_size_binary[16]",
    }


def test_equal_rows_give_equal_bytes(tmp_path, rows, build):
    one = build(tmp_path / "one", rows, shard_rows=12, batch_bytes=500)
    copies = {image: regions for image, regions in reversed(rows.items())}
    other = build(tmp_path / "other", copies, shard_rows=12, batch_bytes=500)
    names = sorted(path.name for path in one.iterdir())
    assert names == ["00000.arrow", "00001.arrow", "00002.arrow", "index.arrow", "vocabulary.json"]
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_batches_are_cut_by_size_and_written_uncompressed(tmp_path, rows):
    path = tmp_path / "shard"
    assert write_shard(path, rows.items(), dim=6, batch_bytes=1000) == 30
    reader = pa.ipc.open_file(path)
    batches = [reader.get_batch(k) for k in range(reader.num_record_batches)]
    assert len(batches) > 3
    payload = [
        sum(rows[image].nbytes + 64 for image in b.column("image").to_pylist()) for b in batches
    ]
    assert all(size >= 1000 for size in payload[:-1])
    largest = max(r.nbytes + 64 for r in rows.values())
    assert all(size < 1000 + largest for size in payload)
    assert max(rows.values(), key=len).features.tobytes() in path.read_bytes()


@pytest.mark.parametrize("dim", [6, 2048])
@pytest.mark.parametrize("first", range(5))
def test_features_begin_at_cache_lines(tmp_path, regions, dim, first):
    """So that copies of them run at full speed, whatever lies before them."""
    rows = {k: regions(k, 1 + k % 4, dim=dim) for k in range(first, 40)}
    path = tmp_path / "shard"
    write_shard(path, rows.items(), dim=dim, batch_bytes=5 * rows[10].nbytes + 1)
    shard = Shard(path)
    assert shard.num_batches > 4
    for number in range(shard.num_batches):
        assert shard.batch(number).features.ctypes.data % 64 == 0, number


def test_rows_are_consumed_a_batch_at_a_time(tmp_path, rows):
    path, seen = tmp_path / "shard", []

    def watched():
        for image, regions in rows.items():
            seen.append(path.stat().st_size)
            yield image, regions

    write_shard(path, watched(), dim=6, batch_bytes=1000)
    assert len(set(seen)) > 3, "nothing was written before the rows were over"


def test_a_shard_may_be_empty(tmp_path, build):
    store = FeatureStore(build(tmp_path / "store", {}))
    assert len(store) == 0
    assert store.dim == 6
    assert store.verify() == []
    assert store.gather([]).features.shape == (0, 6)
    assert 3 not in store


def test_content_hash_knows_rows_not_shards(tmp_path, rows, build, regions):
    def content(name, rows, **cut):
        return FeatureStore(build(tmp_path / name, rows, **cut)).content_hash

    whole = content("whole", rows)
    assert content("cut", rows, shard_rows=7, batch_bytes=300) == whole
    assert content("other row", rows | {2: regions(99, 1)}) != whole
    taller = dataclasses.replace(rows[2], height=rows[2].height + 1)
    assert content("other size", rows | {2: taller}) != whole
    first, *others = rows.items()
    assert content("other number", {0: first[1], **dict(others)}) != whole


@pytest.mark.parametrize("images", [[3, 3], [4, 3], [-1]])
def test_rows_out_of_order_are_refused(tmp_path, regions, images):
    with pytest.raises(InputError, match="comes after image"):
        write_shard(tmp_path / "shard", [(k, regions(0, 1)) for k in images], dim=6)


def test_a_row_that_the_format_does_not_allow_names_its_image(tmp_path, regions):
    with pytest.raises(InputError, match=r"^image 12: features are float16 \(1, 9\)"):
        write_shard(tmp_path / "shard", [(12, regions(0, 1, dim=9))], dim=6)


def index_again(folder, labels=5, attributes=3):
    names = tuple(Label(str(k)) for k in range(labels))
    attribute_names = tuple(str(k) for k in range(attributes))
    write_index(folder, Vocabulary(labels=names, attributes=attribute_names))


def test_shards_may_have_gaps_in_their_numbers(folder, rows, same):
    (folder / "00001.arrow").rename(folder / "100000.arrow")
    index_again(folder)
    store = FeatureStore(folder)
    for image, expected in rows.items():
        same(store[image], expected)


def test_an_image_in_two_shards_is_refused(folder):
    shutil.copy(folder / "00001.arrow", folder / "00007.arrow")
    with pytest.raises(FormatError, match=r"is in 00001.arrow and again in 00007.arrow"):
        index_again(folder)


def test_shards_that_differ_in_dim_are_refused(folder, regions):
    write_shard(folder / "00007.arrow", [(999, regions(0, 2, dim=9))], dim=9)
    with pytest.raises(FormatError, match=r"00007.arrow: features have 9 numbers, expected 6"):
        index_again(folder)


def test_labels_outside_the_vocabulary_are_refused(folder):
    with pytest.raises(FormatError, match=r"label 4 in batch \d+, expected one of the voc.* 4"):
        index_again(folder, labels=4)
    with pytest.raises(FormatError, match=r"attribute 2 in batch \d+, expected one of the voc.* 2"):
        index_again(folder, attributes=2)


def test_attributes_with_score_zero_are_filler(tmp_path, regions):
    one = regions(0, 1)
    one.attributes[0, 5], one.attribute_scores[0, 5] = 400, 0
    write_shard(tmp_path / "00000.arrow", [(0, one)], dim=6)
    index_again(tmp_path)


def test_a_folder_without_shards_or_with_a_damaged_one_is_refused(tmp_path, folder):
    with pytest.raises(FormatError, match=r"no NNNNN.arrow shard"):
        index_again(tmp_path)
    (folder / "00002.arrow").write_bytes(b"ARROW1 but not really")
    with pytest.raises(FormatError, match=r"00002.arrow: damaged"):
        index_again(folder)


def test_lists_that_disagree_with_their_counts_are_refused(folder):
    path = folder / "00002.arrow"
    table = pa.ipc.open_file(path).read_all()
    for name, message in (("num_regions", "num_regions differs"), ("scores", "differ in length")):
        column = table.column(name).combine_chunks()
        turned = column.take(pa.array(range(len(column) - 1, -1, -1)))
        at = table.schema.get_field_index(name)
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table.set_column(at, table.schema.field(at), turned))
        with pytest.raises(FormatError, match=rf"00002.arrow: batch 0 is damaged .*{message}"):
            index_again(folder)


def test_other_columns_are_refused(folder):
    schema = pa.schema({"image": pa.int64()}, metadata=shard_schema(6).metadata)
    with pa.ipc.new_file(folder / "00002.arrow", schema):
        pass
    with pytest.raises(FormatError, match=r"00002.arrow: column 'features' is not"):
        index_again(folder)
    at = shard_schema(6).get_field_index("boxes")
    changed = shard_schema(6).set(at, pa.field("boxes", pa.float64()))
    with pa.ipc.new_file(folder / "00002.arrow", changed):
        pass
    with pytest.raises(FormatError, match=r"column 'boxes' is double, expected large_list<"):
        index_again(folder)
