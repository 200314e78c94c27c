"""Batches of others: what a table may look like, and the rules that its batches must keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonics.errors import InputError
from tonics.pipeline.plans.eligible import Eligible
from tonics.pipeline.plans.exchange import imported, table
from tonics.pipeline.plans.exchange.imported import Placed, place_batches
from tonics.pipeline.plans.exchange.listed import Listed, read_batches
from tonics.pipeline.plans.exchange.table import write_batches

TEXTS = (
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.int16(), pa.string()),
    pa.dictionary(pa.int32(), pa.large_string()),
)


def write(folder: Path, **columns: Any) -> Path:
    path = folder / "theirs.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def shown(listed: Listed) -> list[list[str]]:
    return [listed.keys.take(pa.array(row)).to_pylist() for row in listed.key]


# -- the table -------------------------------------------------------------------------------------


def test_batches_ascend_and_rows_keep_their_order(tmp_path: Path) -> None:
    path = write(tmp_path, batch=[7, -2, 7, -2], other=[1, 2, 3, 4], pair_key=["d", "a", "c", "b"])
    listed = read_batches(path)
    assert listed.batch.tolist() == [-2, 7]
    assert shown(listed) == [["a", "b"], ["d", "c"]]
    assert listed.keys.to_pylist() == ["a", "b", "d", "c"]  # by first appearance
    assert (listed.size, listed.epochs, listed.image_id) == (2, 1, None)


def test_positions_go_before_the_order_of_rows(tmp_path: Path) -> None:
    keys = ["d", "a", "c", "b"]
    path = write(tmp_path, batch=[7, -2, 7, -2], position=[90, 5, -1, 4], pair_key=keys)
    assert shown(read_batches(path)) == [["b", "a"], ["c", "d"]]


def test_batches_may_be_numbered_anew_in_each_epoch(tmp_path: Path) -> None:
    keys = ["a", "b", "b", "a"]
    listed = read_batches(write(tmp_path, epoch=[9, 9, 4, 4], batch=[0, 0, 0, 0], pair_key=keys))
    assert listed.batch.tolist() == [0, 0]
    assert listed.epoch is not None
    assert listed.epoch.tolist() == [0, 1]
    assert shown(listed) == [["b", "a"], ["a", "b"]]
    assert listed.epochs == 2


@pytest.mark.parametrize("kind", TEXTS, ids=str)
@pytest.mark.parametrize("number", [pa.int8(), pa.uint32(), pa.int64()], ids=str)
def test_any_texts_and_whole_numbers_are_read(
    tmp_path: Path, kind: pa.DataType, number: pa.DataType
) -> None:
    keys = ["b#0", "ä#1", "c#0", "b#0"]
    texts = pa.array(keys, kind) if pa.types.is_dictionary(kind) else pa.array(keys).cast(kind)
    path = write(tmp_path, batch=pa.array([1, 1, 2, 2], number), pair_key=texts)
    assert shown(read_batches(path)) == [["b#0", "ä#1"], ["c#0", "b#0"]]


@given(data=st.data())
def test_what_is_read_can_be_written_and_read_again(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("again")
    count, size = data.draw(st.integers(1, 6)), data.draw(st.integers(2, 4))
    key = st.lists(st.integers(0, 5), min_size=count * size, max_size=count * size)
    keys = [f"{i}#0" for i in data.draw(key)]
    columns: dict[str, Any] = {
        "batch": np.repeat(np.arange(count) * 3 - 4, size),
        "position": np.tile(np.arange(size), count),
        "pair_key": keys,
    }
    if data.draw(st.booleans()):
        columns["image_id"] = [key[0] for key in keys]
    if data.draw(st.booleans()):
        columns["epoch"] = np.repeat(np.arange(count) // 2, size)
    order = data.draw(st.permutations(range(count * size)))
    mixed = {name: pa.array(np.array(c)[order]) for name, c in columns.items()}
    first = read_batches(write(folder, **mixed))
    assert shown(first) == np.array(keys).reshape(count, size).tolist()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(table, "ROWS_AT_ONCE", data.draw(st.integers(1, 8)))
        write_batches(folder / "ours.parquet", first.tables(), {"hash": "x"})
        second = read_batches(folder / "ours.parquet")
    assert second.content_hash() == first.content_hash()
    assert shown(second) == shown(first)
    assert second.keys.to_pylist() == first.keys.to_pylist()


def test_other_batches_have_another_hash(tmp_path: Path) -> None:
    one: dict[str, Any] = {"batch": [0, 0, 1, 1], "pair_key": ["a", "b", "c", "a"]}
    changes: list[dict[str, Any]] = [
        {},
        {"pair_key": ["a", "b", "a", "c"]},
        {"pair_key": ["a", "b", "d", "a"]},
        {"batch": [0, 0, 2, 2]},
        {"epoch": [0, 0, 1, 1]},
        {"epoch": [0, 0, 0, 0]},
        {"image_id": ["x", "y", "z", "x"]},
        {"batch": [0, 0, 0, 0], "pair_key": ["a", "b", "c", "d"]},
    ]
    hashes = [read_batches(write(tmp_path, **{**one, **c})).content_hash() for c in changes]
    assert len(set(hashes)) == len(changes)


FOUR: dict[str, Any] = {"batch": [3, 3, 4, 4], "pair_key": ["a", "b", "c", "d"]}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("no batch", {"batch": None}, r"no column 'batch', but \['pair_key'\], expected columns"),
    ("no key", {"pair_key": None, "key": ["a"] * 4}, "no column 'pair_key', but"),
    ("floats", {"batch": [3.0, 3, 4, 4]}, r"'batch' is double, expected whole numbers .*; cast"),
    ("numbers", {"pair_key": [1, 2, 3, 4]}, r"'pair_key' is int64, expected texts \(string\)"),
    ("bytes", {"pair_key": [b"a"] * 4}, r"'pair_key' is binary, expected texts"),
    ("ids", {"image_id": [1, 2, 3, 4]}, "column 'image_id' is int64, expected texts"),
    ("a position", {"position": ["1", "2", "1", "2"]}, "column 'position' is string, expected wh"),
    ("null", {"pair_key": ["a", None, "c", None]}, r"'pair_key' has no value in rows 1, 3 \(from"),
    ("null batch", {"batch": [3, 3, None, 4]}, "column 'batch' has no value in rows 2"),
    ("empty", {"batch": pa.array([], pa.int8()), "pair_key": pa.array([], pa.string())}, "no rows"),
    ("too large", {"batch": pa.array([2**63] * 4, pa.uint64())}, "cannot be read .*not in range"),
    (
        "ragged",
        {"batch": [3, 3, 3, 4]},
        r"batches hold \d pairs, others not: \d \(\d\), expected b",
    ),
    ("single", {"batch": [1, 2, 3, 4]}, "batches of a single pair, expected two"),
    (
        "position",
        {"position": [0, 0, 5, 5]},
        "2 rows with the position of another: 0 in batch 3, 5",
    ),
    (
        "image",
        {"pair_key": list("abca"), "image_id": list("xyzw")},
        "1 pair_keys with several .*'a'",
    ),
]


@pytest.mark.parametrize(("change", "says"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED])
def test_what_is_no_table_of_batches_is_refused(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    columns = {name: c for name, c in {**FOUR, **change}.items() if c is not None}
    with pytest.raises(InputError, match=rf"theirs\.parquet: .*{says}"):
        read_batches(write(tmp_path, **columns))


def test_rows_are_numbered_over_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "ROWS_AT_ONCE", 1)  # four rows are read at a time
    keys = [*"abcdefghi", None, "j", "k"]
    with pytest.raises(InputError, match=r"no value in rows 9 \(from 0\)"):
        read_batches(write(tmp_path, batch=[0] * 12, pair_key=keys))


def test_odd_batches_are_listed(tmp_path: Path) -> None:
    batch = [*np.repeat(np.arange(20), 4).tolist(), *range(100, 112)]
    path = write(tmp_path, batch=batch, pair_key=[str(i) for i in range(92)])
    says = r"20 of 32 batches hold 4 pairs, others not: 100 \(1\), .*109 \(1\) and 2 more, expected"
    with pytest.raises(InputError, match=says):
        read_batches(path)


def test_what_is_no_parquet_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing.parquet: no such file"):
        read_batches(tmp_path / "nothing.parquet")
    with pytest.raises(InputError, match="is a folder"):
        read_batches(tmp_path)
    (tmp_path / "text.parquet").write_text("batch,pair_key\n0,a\n")
    with pytest.raises(InputError, match=r"not a parquet file .*, expected a parquet file of bat"):
        read_batches(tmp_path / "text.parquet")
    path = write(tmp_path, batch=np.zeros(4096, int), pair_key=[str(i) for i in range(4096)])
    data = bytearray(path.read_bytes())
    data[4:2000] = bytes(1996)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"theirs.parquet: cannot be read"):
        read_batches(path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    starts, data = np.array([0, 1, 2], np.int32), b"\xffb"
    texts = pa.StringArray.from_buffers(2, pa.py_buffer(starts), pa.py_buffer(data))
    with pytest.raises(InputError, match=r"cannot be read .*UTF"):
        read_batches(write(tmp_path, batch=[0, 0], pair_key=texts))


# -- the rules -------------------------------------------------------------------------------------


def pairs() -> pa.Table:
    """Pairs 10, 11, ...: two captions of each of six images; image 4 is held out."""
    count = 12
    image = np.arange(count) // 2
    return pa.table(
        {
            "pair": 10 + np.arange(count),
            "pair_key": [f"{i}.png#{k % 2}" for k, i in enumerate(image)],
            "image": image,
            "image_id": [f"{i}.png" for i in image],
            "caption": [f"Caption {k}" if k not in (3, 5) else "A dog." for k in range(count)],
            "split": ["test" if i == 4 else "train" for i in image],
        }
    )


def eligible() -> Eligible:
    """All but the held-out image 4 and image 5, which has no features; image 3 copies image 0."""
    chosen = pairs().filter(pa.array([i < 4 for i in pairs().column("image").to_pylist()]))
    image = chosen.column("image").to_numpy()
    return Eligible(table=chosen, image=np.where(image == 3, 0, image))


def place(folder: Path, *rows: list[str], drop: bool = False, **columns: Any) -> Placed:
    batch = np.repeat(np.arange(len(rows)) * 10, [len(row) for row in rows])
    keys = [f"{key[0]}.png#{key[1]}" for row in rows for key in row]
    path = write(folder, batch=batch, pair_key=keys, **columns)
    ready = eligible()
    return place_batches("theirs", read_batches(path), ready, pairs(), "train", drop_conflicts=drop)


def test_batches_become_those_of_a_plan(tmp_path: Path) -> None:
    placed = place(tmp_path, ["20", "00"], ["10", "31"], epoch=[1, 1, 2, 2])
    assert placed.batches.pairs.tolist() == [[14, 10], [12, 17]]
    assert placed.batches.epoch.tolist() == [0, 1]
    assert placed.batches.node.tolist() == [-1, -1]
    assert placed.remainder.column("pair").to_pylist() == [11, 13, 15, 16]
    assert set(placed.remainder.column("reason").to_pylist()) == {"not in the imported batches"}
    assert placed.left_out == []


def test_pairs_that_may_not_be_used_are_refused(tmp_path: Path) -> None:
    says = r"theirs: 2 pair_keys that this dataset has not: '9.png#0', '8.png#0', expected its own"
    with pytest.raises(InputError, match=says + r", such as '0.png#0'"):
        place(tmp_path, ["20", "90"], ["80", "90"])
    says = (
        r"2 pairs that are not of split 'train': '4.png#1 \(test\)', '4.png#0 \(test\)', expected"
    )
    with pytest.raises(InputError, match=says):
        place(tmp_path, ["41", "00"], ["10", "40"])
    with pytest.raises(InputError, match=r"1 pairs whose image has no features: '5.png#0', expec"):
        place(tmp_path, ["20", "50"])


def test_an_image_id_must_be_that_of_the_key(tmp_path: Path) -> None:
    place(tmp_path, ["20", "10"], image_id=["2.png", "1.png"])
    says = "1 pair_keys with the image_id of another image: '1.png#0 with 0.png', expected '1.png'"
    with pytest.raises(InputError, match=says):
        place(tmp_path, ["20", "10"], image_id=["2.png", "0.png"])


def test_a_pair_twice_in_a_batch_is_refused_always(tmp_path: Path) -> None:
    says = "1 batches with a pair twice .batch 10: 1.png#0 and 1.png#0"
    with pytest.raises(InputError, match=says):
        place(tmp_path, ["00", "20"], ["10", "10"], drop=True)


CONFLICTS = (["00", "20"], ["10", "11"], ["00", "30"], ["11", "21"], ["10", "21"])


def test_conflicts_are_refused_and_listed(tmp_path: Path) -> None:
    says = (
        r"3 of 5 batches hold an image \(2\) or a caption \(1\) twice: "
        r"batch 10: 1.png#0 and 1.png#1; 20: 0.png#0 and 3.png#0; 30: 1.png#1 and 2.png#1, "
        r"expected .* --drop-conflicts"
    )
    with pytest.raises(InputError, match=says):
        place(tmp_path, *CONFLICTS)


def test_conflicts_may_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imported, "_BLOCK", 4)  # two batches at a time
    placed = place(tmp_path, *CONFLICTS, drop=True)
    assert placed.batches.pairs.tolist() == [[10, 14], [12, 15]]
    assert [(r.where, r.reason) for r in placed.left_out] == [
        ("batch 10", "batch with an image twice"),
        ("batch 20", "batch with an image twice"),
        ("batch 30", "batch with a caption twice"),
    ]
    assert placed.left_out[1].detail == "0.png#0 and 3.png#0"
    left = {row["pair"]: row["reason"] for row in placed.remainder.to_pylist()}
    assert left == {
        11: "not in the imported batches",
        13: "in a batch that was left out",
        16: "in a batch that was left out",
        17: "not in the imported batches",
    }
    with pytest.raises(InputError, match="all 1 batches hold an image or a caption twice"):
        place(tmp_path, ["10", "11"], drop=True)
