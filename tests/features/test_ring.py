"""Batches gathered ahead are those of plain gathers, and memory is reused only when it may be."""

from __future__ import annotations

import random
import subprocess
import sys
import threading

import numpy as np
import pytest

from tonics.errors import FormatError, ImageNotFound
from tonics.features import FeatureStore
from tonics.features.ahead import THREAD_NAME
from tonics.features.ring import BufferPool, gather_ahead

ARRAYS = ("images", "features", "boxes", "labels", "scores", "cu_seqlens", "widths", "heights")
SHAPES = [(0, 1), (1, 1), (2, 1), (3, 2), (50, 4)]


def plan(rows, count=30, seed=0):
    chance = random.Random(seed)
    return [
        np.array(chance.choices(sorted(rows), k=chance.randrange(12)), int) for _ in range(count)
    ]


def assert_equal(found, expected):
    for name in ARRAYS:
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype, name
        np.testing.assert_array_equal(one, other, err_msg=name)
    np.testing.assert_array_equal(found.geometry, expected.geometry)


@pytest.mark.parametrize(("depth", "threads"), SHAPES)
@pytest.mark.parametrize("asks_ahead", [False, True])
@pytest.mark.parametrize("max_regions", [None, 2])
def test_batches_are_those_of_plain_gathers(folder, rows, depth, threads, asks_ahead, max_regions):
    store, plain = FeatureStore(folder, asks_ahead=asks_ahead), FeatureStore(folder)
    batches = plan(rows)
    found = gather_ahead(
        store, iter(batches), max_regions=max_regions, depth=depth, threads=threads
    )
    for images, batch in zip(batches, found, strict=True):
        assert_equal(batch, plain.gather(images, max_regions))
    assert not [t for t in threading.enumerate() if t.name.startswith(THREAD_NAME)]


@pytest.mark.parametrize("depth", [0, 2])
def test_the_kernel_is_asked_once_a_batch_and_without_threads_by_none(
    folder, rows, monkeypatch, depth
):
    store, batches, asked = FeatureStore(folder, asks_ahead=True), plan(rows), []
    monkeypatch.setattr(store, "_ask", lambda rows, counts: asked.append(len(rows)))
    for _ in gather_ahead(store, batches, depth=depth):
        threads = [t for t in threading.enumerate() if t.name.startswith(THREAD_NAME)]
        assert bool(threads) <= bool(depth)
    assert asked == [len(images) for images in batches]


@pytest.mark.parametrize("asks_ahead", [False, True])
def test_errors_come_in_the_place_of_their_batch(folder, rows, asks_ahead):
    store, batches = FeatureStore(folder, asks_ahead=asks_ahead), plan(rows)
    batches[5] = np.array([2, 9999])
    found = gather_ahead(store, batches, depth=3, threads=2)
    for images in batches[:5]:
        assert_equal(next(found), store.gather(images))
    with pytest.raises(ImageNotFound, match="holds no image 9999"):
        next(found)
    path = folder / "00002.arrow"
    fine, damaged = [image for image in rows if image < 160], sorted(rows)[-1]
    path.write_bytes(b"x" * path.stat().st_size)
    found = gather_ahead(FeatureStore(folder, asks_ahead=asks_ahead), [fine, fine, [damaged], fine])
    assert [len(next(found)), len(next(found))] == [len(fine)] * 2
    with pytest.raises(FormatError, match=r"00002.arrow: damaged"):
        next(found)
    assert not [t for t in threading.enumerate() if t.name.startswith(THREAD_NAME)]


def place(batch):
    return batch.features.__array_interface__["data"][0]


def test_memory_is_reused_as_soon_as_nobody_refers_to_it(folder, rows):
    store, batches = FeatureStore(folder), [sorted(rows)] * 40
    seen = {place(batch) for batch in gather_ahead(store, batches, depth=2, threads=2)}
    assert len(seen) <= 2 + 2 + 1


def test_what_is_kept_is_never_overwritten(folder, rows):
    """Whole batches, one of their arrays, a slice of one, or a tensor that shares its memory."""
    import torch

    store, batches = FeatureStore(folder), [b for b in plan(rows, 80) if len(b)]
    found = gather_ahead(store, batches, depth=3, threads=2)
    ways = {
        0: lambda batch: batch.features,
        1: lambda batch: batch.features[1:][:3].reshape(-1),
        2: lambda batch: batch.boxes[:, 2:],
        3: lambda batch: torch.from_numpy(batch.scores)[:4],
        4: lambda batch: memoryview(batch.labels),
    }
    kept = [ways[k](batch) if k < 5 else None for k, batch in enumerate(found) for k in [k % 6]]
    for k, (images, part) in enumerate(zip(batches, kept, strict=True)):
        if k % 6 < 5:
            expected = ways[k % 6](store.gather(images))
            np.testing.assert_array_equal(np.asarray(part), np.asarray(expected))


def test_a_pool_keeps_few_buffers_that_nobody_uses(folder, rows):
    store, pool = FeatureStore(folder), BufferPool(6, spare=2)
    many = [pool.gather(store, np.array(sorted(rows))) for _ in range(20)]
    assert len({place(batch) for batch in many}) == 20
    del many
    again = pool.gather(store, np.array([2]))
    assert len(pool._slots) == 1 + 2
    assert len(again) == 1


def test_a_failed_gather_frees_its_buffer(folder, rows):
    store, pool = FeatureStore(folder), BufferPool(6)
    for _ in range(5):
        with pytest.raises(ImageNotFound):
            pool.gather(store, np.array([9999]))
    assert len(pool._slots) == 1


def test_memory_may_come_from_elsewhere_and_device_copies_are_waited_for(folder, rows):
    made, waited = [], []

    def allocate(shape):
        made.append(np.full(shape, 7, np.float16))
        return made[-1]

    store = FeatureStore(folder)
    pool = BufferPool(6, allocate=allocate, before_reuse=lambda: waited.append(len(made)))
    for images in [[2, 9], sorted(rows), [2]]:
        batch = pool.gather(store, np.array(images))
        assert np.shares_memory(batch.features, made[-1]) or not batch.features.size
        assert_equal(batch, store.gather(images))
    assert 1 <= len(made) <= 3
    assert len(waited) == 3


# -- a store larger than memory --------------------------------------------------------------------

READER = """
import resource, sys
import numpy as np
from tonics.features import FeatureStore
from tonics.features.ring import gather_ahead

path, variant = sys.argv[1:]
store = FeatureStore(path, asks_ahead=variant == "asking")
with open("/proc/self/status") as file:
    base = next(int(line.split()[1]) for line in file if line.startswith("VmData")) << 10
limit = base + (100 << 20)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
order = np.random.default_rng(0).permutation(store.images)
batches = order.reshape(-1, 32)
total = 0
if variant == "allocating":
    kept = [store.gather(batch) for batch in batches]
else:
    for batch in gather_ahead(store, batches, depth=2, threads=2):
        total += int(batch.features[:, 0].view(np.uint16).astype(np.int64).sum())
print(total)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory, build, regions):
    """A store of 400 MB: 2,720 images of 36 regions."""
    one = regions(0, 36, attributes=False, dim=2048)
    rows = dict.fromkeys(range(2720), one)
    folder = build(
        tmp_path_factory.mktemp("large"), rows, shard_rows=680, batch_bytes=16 << 20, dim=2048
    )
    yield folder, 2720 * int(one.features[:, 0].view(np.uint16).astype(np.int64).sum())
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts maps on Linux only")
@pytest.mark.parametrize("variant", ["plain", "asking", "allocating"])
def test_a_store_of_four_times_the_memory_allowed_is_read(large, variant):
    """Private memory stays flat: 100 MB over what the imports take do for 400 MB of features."""
    folder, expected = large
    command = [sys.executable, "-c", READER, str(folder), variant]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if variant == "allocating":
        assert "MemoryError" in done.stderr
    else:
        assert done.stderr == ""
        assert int(done.stdout) == expected
