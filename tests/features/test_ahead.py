"""Work done ahead: the same as a plain loop, whatever the threads, and nothing left running."""

from __future__ import annotations

import gc
import random
import threading
import time

import pytest

from tonics.features.ahead import THREAD_NAME, work_ahead

SHAPES = [(0, 1), (1, 1), (2, 1), (3, 2), (50, 4)]


def workers():
    return [t for t in threading.enumerate() if t.name.startswith(THREAD_NAME)]


@pytest.mark.parametrize(("depth", "threads"), SHAPES)
@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_results_come_in_order(depth, threads, count):
    def slow(k):
        time.sleep(random.random() / 1000)
        return k * k

    found = list(work_ahead(iter(range(count)), slow, depth=depth, threads=threads))
    assert found == [k * k for k in range(count)]
    assert workers() == []


@pytest.mark.parametrize(("depth", "threads"), SHAPES)
@pytest.mark.parametrize("where", ["the items", "the work"])
def test_an_error_comes_where_its_result_would_have(depth, threads, where):
    def items():
        yield from range(5)
        if where == "the items":
            raise ValueError("broken")
        yield from range(5, 100)

    def work(k):
        if k == 5:
            raise ValueError("broken")
        return k

    results = work_ahead(items(), work, depth=depth, threads=threads)
    assert [next(results) for _ in range(5)] == list(range(5))
    with pytest.raises(ValueError, match="broken"):
        next(results)
    assert workers() == []
    assert list(results) == []


@pytest.mark.parametrize(("depth", "threads"), SHAPES)
@pytest.mark.parametrize("taken", [0, 1, 7])
@pytest.mark.parametrize("end", ["closed", "dropped"])
def test_no_thread_is_left_and_no_more_items_taken_when_the_consumer_stops(
    depth, threads, taken, end
):
    made = []

    def items():
        for k in range(10_000):
            made.append(k)
            yield k

    results = work_ahead(items(), lambda k: k, depth=depth, threads=threads)
    assert [next(results) for _ in range(taken)] == list(range(taken))
    if end == "closed":
        results.close()
    del results
    gc.collect()
    assert workers() == []
    assert len(made) <= taken + depth


def test_threads_work_at_once_and_ahead():
    together = threading.Barrier(3)  # two workers and the consumer, or nobody gets on

    def work(k):
        if k in (1, 2):
            together.wait(timeout=60)
        return k

    results = work_ahead(range(4), work, depth=3, threads=2)
    assert next(results) == 0
    together.wait(timeout=60)
    assert list(results) == [1, 2, 3]


def test_no_more_is_made_than_there_is_room_for():
    made = []
    results = work_ahead(range(100), made.append, depth=3, threads=2)
    next(results)
    while len(made) < 4:
        time.sleep(0.001)
    time.sleep(0.02)
    assert len(made) == 4
    results.close()


def test_a_result_is_held_no_longer_than_the_next_is_asked_for():
    import weakref

    class Result:
        pass

    results = work_ahead(range(3), lambda k: Result(), depth=1)
    first = weakref.ref(next(results))
    next(results)
    assert first() is None
    results.close()
