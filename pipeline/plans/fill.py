"""Rows in some order become batches of exactly B in which no two rows conflict.

Rows conflict when they show the same image or say the same caption. A row that conflicts is put off
to the next batch, so the order is kept as far as the rules allow; what does not make a full batch
is left over. Near-linear: batches without conflicts are checked with one sort each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np

from .eligible import Eligible, count_distinct


def fill(eligible: Eligible, order: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut rows into batches.

    Args:
        order: (n,) int64 rows of ``eligible``, each at most once.

    Returns:
        Batches (k, size) int64, and the rows left over, in order.
    """
    if _few_images(eligible, order, size):
        return np.empty((0, size), np.int64), order
    filler = _Filler(eligible, order, size)
    batches = list(filler)
    rows = np.array(batches, np.int64).reshape(-1, size)
    return rows, filler.left()


def _few_images(eligible: Eligible, order: np.ndarray, size: int) -> bool:
    return len(order) < size or count_distinct(eligible.image[order]) < size


class _Filler:
    """The state of one pass over an order: where it stands, and what was put off, by conflict."""

    def __init__(self, eligible: Eligible, order: np.ndarray, size: int) -> None:
        self.order, self.size, self.at = order, size, 0
        self.images, self.captions = eligible.image[order], eligible.caption[order]
        self.put_off: dict[tuple[str, int], deque[int]] = {}
        self.unfinished: list[int] = []

    def __iter__(self) -> Iterator[np.ndarray]:
        while self.at + self.size <= len(self.order) or self.put_off:
            if not self.put_off and self._chunk_is_free():
                yield self.order[self.at : self.at + self.size]
                self.at += self.size
                continue
            batch = self._pick()
            if len(batch) < self.size:
                self.unfinished = batch
                return
            yield self.order[batch]

    def left(self) -> np.ndarray:
        """Everything no batch took, in the order it came."""
        waiting = [i for queue in self.put_off.values() for i in queue]
        rest = sorted([*self.unfinished, *waiting, *range(self.at, len(self.order))])
        return self.order[np.array(rest, np.int64)]

    def _chunk_is_free(self) -> bool:
        part = slice(self.at, self.at + self.size)
        return all(
            count_distinct(groups[part]) == self.size for groups in (self.images, self.captions)
        )

    def _pick(self) -> list[int]:
        """Fill one batch: first what was put off, one a conflict, then on along the order."""
        images: set[int] = set()
        captions: set[int] = set()
        batch: list[int] = []

        def place(i: int) -> tuple[str, int] | None:
            image, caption = int(self.images[i]), int(self.captions[i])
            if image in images:
                return ("image", image)
            if caption in captions:
                return ("caption", caption)
            images.add(image)
            captions.add(caption)
            batch.append(i)
            return None

        for key in list(self.put_off):
            if len(batch) == self.size:
                break
            queue = self.put_off[key]
            if place(queue[0]) is None:
                queue.popleft()
                if not queue:
                    del self.put_off[key]
        while len(batch) < self.size and self.at < len(self.order):
            conflict = place(self.at)
            if conflict is not None:
                self.put_off.setdefault(conflict, deque()).append(self.at)
            self.at += 1
        return batch
