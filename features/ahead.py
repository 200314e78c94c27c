"""Work done ahead of whoever asks for it, by threads, in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
THREAD_NAME = "tonics-ahead"


def work_ahead(
    items: Iterable[Item], work: Callable[[Item], Result], *, depth: int, threads: int = 1
) -> Generator[Result, None, None]:
    """Map ``work`` over items, in threads, while earlier results are being used.

    Results come in the order of the items, and an error, of the items or of the work, is raised
    where its result would have come. The threads end when the consumer stops, wherever that is;
    items are taken one at a time, so a generator will do.

    Args:
        depth: how many results may be made, or be under way, before they are asked for; 0 for no
            threads.
        threads: how many work at once (never more than ``depth``).
    """
    if not depth:
        yield from map(work, items)
        return
    line = _Line(iter(items), work, depth)
    workers = [
        threading.Thread(target=line.serve, name=f"{THREAD_NAME}-{k}", daemon=True)
        for k in range(min(depth, threads))
    ]
    for worker in workers:
        worker.start()
    try:
        yield from line.results()
    finally:
        line.close(len(workers))
        for worker in workers:
            if worker is not threading.current_thread():  # a collected iterator may end anywhere
                worker.join()


@dataclass(slots=True, eq=False)
class _Cell(Generic[Result]):
    """The place of a result that may not be there yet; ``ended`` is the place after the last."""

    value: Any = None
    error: BaseException | None = None
    ended: bool = False
    ready: threading.Event = field(default_factory=threading.Event)


class _Line(Generic[Item, Result]):
    """Items being worked on, in order: cells are queued as items are taken, filled as they come."""

    def __init__(self, items: Iterator[Item], work: Callable[[Item], Result], depth: int) -> None:
        self._items, self._work = items, work
        self._room = threading.Semaphore(depth)
        self._taking = threading.Lock()
        self._cells: queue.SimpleQueue[_Cell[Result]] = queue.SimpleQueue()
        self._over = False

    def results(self) -> Iterator[Result]:
        """Yield what was made, as its turn comes."""
        while True:
            cell = self._cells.get()
            cell.ready.wait()
            if cell.error is not None:
                raise cell.error
            if cell.ended:
                return
            value, cell.value = cell.value, None
            self._room.release()
            yield value
            del value  # or it would be held until the next one is there

    def serve(self) -> None:
        """Take and work on items until there are no more, or the consumer has stopped."""
        while True:
            self._room.acquire()
            cell: _Cell[Result] = _Cell()
            with self._taking:
                if self._over:
                    return
                item = self._take(cell)
                self._cells.put(cell)
            if cell.ready.is_set():  # there was none
                return
            try:
                cell.value = self._work(item)
            except BaseException as error:  # whatever it is, it belongs to the consumer
                cell.error = error
            del item
            cell.ready.set()

    def _take(self, cell: _Cell[Result]) -> Any:
        """Take the next item; where there is none, the cell says why."""
        try:
            return next(self._items)
        except StopIteration:
            cell.ended = True
        except BaseException as error:
            cell.error = error
        self._over = True
        cell.ready.set()
        return None

    def close(self, workers: int) -> None:
        """Let the workers end after what they are doing."""
        self._over = True
        self._room.release(workers)
