"""Telling the kernel which bytes of a mapped store are wanted next, so that disks work in parallel.

A page of a map that is not in memory is read when it is touched, one image at a time, together with
a neighbourhood that random reading has no use for (of up to megabytes, as the disk is set). Asked
beforehand (``madvise``), the kernel reads exactly what is wanted, all of it at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import os
from collections.abc import Callable, Generator, Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .ahead import work_ahead

if TYPE_CHECKING:
    from .store import FeatureStore

Item = TypeVar("Item")
AHEAD = 4  # batches
# The kernel reads no more than this at one request, whatever is asked: the smallest usual limit.
_REQUEST_BYTES = 128 << 10
_SHARE_OF_MEMORY = 0.5
_OWN_GROUPS, _ALL_GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def ask_ahead(
    store: FeatureStore,
    items: Iterable[Item],
    *,
    images_of: Callable[[Item], Any] = lambda item: item,
    max_regions: int | None = None,
    batches: int = AHEAD,
) -> Generator[Item, None, None]:
    """Pass items on, the images of each asked for some items before; nothing else where no need is.

    Args:
        images_of: the image numbers of an item.
        batches: how many items ahead; 0 for no thread.
    """
    if not store.asks_ahead:
        yield from items
        return

    def ask(item: Item) -> Item:
        store.will_need(images_of(item), max_regions)
        return item

    yield from work_ahead(items, ask, depth=batches)


def merge_ranges(starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Widen byte ranges to whole pages, and join those that touch.

    Args:
        starts, stops: (n,) int64 addresses, in any order; empty ranges are dropped.

    Returns:
        (m,) starts and (m,) stops, rising.

    >>> merge_ranges(np.array([8192, 100, 4000]), np.array([8200, 200, 4100]))
    (array([0]), array([12288]))
    """
    wanted = stops > starts
    page = mmap.PAGESIZE
    starts, stops = starts[wanted] // page * page, -(-stops[wanted] // page) * page
    order = np.argsort(starts, kind="stable")
    starts, stops = starts[order], np.maximum.accumulate(stops[order]) if len(order) else stops
    first = np.ones(len(starts), bool)
    first[1:] = starts[1:] > stops[:-1]
    last = np.append(first[1:], True) if len(starts) else first
    return starts[first], stops[last]


def will_need(starts: np.ndarray, stops: np.ndarray) -> None:
    """Ask the kernel to read mapped addresses into memory; returns before it has."""
    for start, stop in zip(*merge_ranges(starts, stops), strict=True):
        for at in range(int(start), int(stop), _REQUEST_BYTES):
            _advise(at, min(_REQUEST_BYTES, int(stop) - at), "MADV_WILLNEED")


def read_at_random(address: int, size: int) -> None:
    """Tell the kernel that a map is read at random: a touched page brings no neighbours along."""
    _advise(address, size, "MADV_RANDOM")


def let_go(address: int, size: int) -> None:
    """Drop whole pages of a map from this process; they are read again when they are touched."""
    first, last = -(-address // mmap.PAGESIZE), (address + size) // mmap.PAGESIZE
    if last > first:
        _advise(first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE, "MADV_DONTNEED")


def _advise(address: int, size: int, advice: str) -> None:
    """Call madvise; advice that a system does not know, or refuses, is only advice."""
    call, number = _madvise(), getattr(mmap, advice, None)
    if call is not None and number is not None:
        call(address, size, number)


@functools.cache
def _madvise() -> Callable[[int, int, int], int] | None:
    try:
        call = ctypes.CDLL(None).madvise
    except (OSError, AttributeError, TypeError):  # not a Unix
        return None
    call.argtypes, call.restype = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int], ctypes.c_int
    found: Callable[[int, int, int], int] = call
    return found


def exceeds_memory(size: int) -> bool:
    """Tell whether so many bytes will not stay in this machine's memory once they are read."""
    return size > _SHARE_OF_MEMORY * memory_bytes()


def memory_bytes(groups: Path = _OWN_GROUPS, root: Path = _ALL_GROUPS) -> int:
    """The memory of this machine, or what the groups this process is in may use of it.

    Args:
        groups: lists them: ``0::/a/b`` (cgroup v2), ``5:memory:/a/b`` (v1).
        root: where groups are folders; a limit holds for all below it.
    """
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    lines = []
    with contextlib.suppress(OSError):
        lines = [line.split(":", 2) for line in groups.read_text().splitlines()]
    for _, kinds, path in (line for line in lines if len(line) == 3):
        if kinds and "memory" not in kinds.split(","):
            continue
        name = "memory.limit_in_bytes" if kinds else "memory.max"
        place = PurePosixPath(path.lstrip("/"))
        for folder in (place, *place.parents):
            with contextlib.suppress(OSError, ValueError):  # not seen from here, or "max"
                found.append(int((root / ("memory" if kinds else "") / folder / name).read_text()))
    return min(found)
