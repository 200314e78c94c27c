"""What the kernel is asked for: the features that a gather will copy, and small columns whole."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonics.errors import ImageNotFound
from tonics.features import FeatureStore, readahead
from tonics.features.readahead import let_go, merge_ranges

PAGE = mmap.PAGESIZE


@given(
    st.lists(st.tuples(st.integers(0, 60 * PAGE), st.integers(0, 5 * PAGE)), max_size=12),
)
def test_merged_ranges_are_the_pages_of_the_ranges(ranges):
    starts = np.array([start for start, _ in ranges], np.int64)
    stops = starts + np.array([size for _, size in ranges], np.int64)
    found = list(zip(*merge_ranges(starts, stops), strict=True))
    wanted = {page for a, b in zip(starts, stops, strict=True) if b > a
              for page in range(a // PAGE, -(-b // PAGE))}  # fmt: skip
    pages = [page for a, b in found for page in range(a // PAGE, b // PAGE)]
    assert sorted(wanted) == pages, "each once, in order"
    assert all(one[1] < other[0] for one, other in itertools.pairwise(found)), "merged"


@pytest.fixture
def asked(monkeypatch):
    """Every (address, size, advice) the kernel is given."""
    calls = []
    monkeypatch.setattr(readahead, "_madvise", lambda: lambda *call: calls.append(call))
    return calls


def spans(store, images, max_regions=None):
    """Where the features of images lie, and the small columns of their record batches."""
    for image in images:
        features = store[image].features[:max_regions]
        yield features.__array_interface__["data"][0], features.nbytes
        row = int(np.searchsorted(store.images, image))
        batch = store._batches[int(store._index.file[row]), int(store._index.batch[row])]
        for array in (batch.boxes, batch.labels, batch.scores):
            yield array.__array_interface__["data"][0], array.nbytes


@pytest.mark.parametrize("max_regions", [None, 1])
def test_the_bytes_of_the_images_are_asked_for_and_hardly_more(
    tmp_path, build, regions, asked, max_regions
):
    rows = {k: regions(k, 1 + k % 9, dim=2048) for k in range(60)}
    folder = build(tmp_path / "store", rows, shard_rows=25, batch_bytes=300_000, dim=2048)
    store = FeatureStore(folder, asks_ahead=True)
    images = [44, 3, 17, 3, 58, 4]
    wanted = set()
    for address, size in spans(store, images, max_regions):
        wanted |= set(range(address // PAGE, -(-(address + size) // PAGE)))
    assert {advice for *_, advice in asked} == {mmap.MADV_RANDOM}
    asked.clear()
    store.will_need(images, max_regions)
    pages = [page for at, size, _ in asked for page in range(at // PAGE, -(-(at + size) // PAGE))]
    assert {advice for *_, advice in asked} == {mmap.MADV_WILLNEED}
    assert max(size for _, size, _ in asked) <= 128 << 10
    assert sorted(pages) == sorted(wanted)
    asked.clear()
    assert len(store.gather(images, max_regions)) == 6
    assert asked, "a store that asks does so for a single gather too"


def test_a_store_that_fits_into_memory_asks_for_nothing(folder, rows, asked, monkeypatch):
    store = FeatureStore(folder)
    assert not store.asks_ahead
    store.gather(store.images)
    assert asked == []
    monkeypatch.setattr(readahead, "memory_bytes", lambda: 1000)
    assert FeatureStore(folder).asks_ahead
    assert not FeatureStore(folder, asks_ahead=False).asks_ahead
    with pytest.raises(ImageNotFound):
        store.will_need([9999])


def test_memory_is_that_of_the_machine():
    assert 1 << 28 < readahead.memory_bytes() < 1 << 50


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        (
            "0::/a/b\n",
            {"memory.max": "max", "a/memory.max": "7000", "a/b/memory.max": "9000"},
            7000,
        ),
        ("0::/a/b\n", {"a/b/memory.max": "5000"}, 5000),
        ("0::/\n", {"memory.max": "3000"}, 3000),
        ("3:cpu:/x\n5:memory:/a/b\n", {"memory/a/memory.limit_in_bytes": "6000"}, 6000),
        ("5:cpu,memory:/unseen\n", {"memory/memory.limit_in_bytes": "4000"}, 4000),
        ("3:cpu:/a\n", {"memory/a/memory.limit_in_bytes": "6000"}, None),
        ("nonsense\n", {}, None),
    ],
)
def test_memory_is_the_least_that_any_group_above_allows(tmp_path, groups, limits, expected):
    (tmp_path / "groups").write_text(groups)
    for name, limit in limits.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(f"{limit}\n")
    found = readahead.memory_bytes(tmp_path / "groups", tmp_path / "root")
    assert found == (expected or readahead.memory_bytes(tmp_path / "absent", tmp_path))


def resident(path):
    """How many pages of a file are in memory."""
    whole = np.memmap(path, np.uint8, "r")
    pages = np.zeros(-(-len(whole) // PAGE), np.uint8)
    mincore = ctypes.CDLL(None).mincore
    mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    assert mincore(whole.ctypes.data, len(whole), pages.ctypes.data) == 0
    return int((pages & 1).sum())


@pytest.mark.skipif(sys.platform != "linux", reason="mincore as Linux has it")
def test_the_kernel_reads_what_it_was_asked_for_and_no_more(tmp_path, build, regions):
    rows = dict.fromkeys(range(40), regions(0, 40, attributes=False, dim=2048))
    folder = build(tmp_path / "store", rows, batch_bytes=8 << 20, dim=2048)
    path = folder / "00000.arrow"
    store = FeatureStore(folder, asks_ahead=True)
    store.gather(store.images)
    for batch in store._batches.values():
        let_go(batch.features.ctypes.data, batch.features.nbytes)
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)
    before = resident(path)
    if before > 200:
        pytest.skip("this file system does not let go of pages")
    store.will_need([7, 30])
    wanted = 2 * 40 * 4096 // PAGE  # and what is small: 22 bytes a region
    for _ in range(2000):
        if resident(path) >= before + wanted:
            break
        time.sleep(0.005)
    assert before + wanted <= resident(path) <= before + wanted + 20
