"""Where a model's weights come from, and what names their content."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...artifact import hash_file


class WeightSource:
    """Where a model's weights come from.

    Args:
        where: the file, or what stands for it in messages.
        read: gives a fresh dict of names to tensors or arrays.
        content_hash: names the content.
    """

    def __init__(
        self, where: object, read: Callable[[], dict[str, Any]], content_hash: Callable[[], str]
    ) -> None:
        self.where, self.read, self.content_hash = where, read, content_hash


def file_source(path: Path) -> WeightSource:
    def read() -> dict[str, Any]:
        from .checkpoint import read_checkpoint

        return read_checkpoint(path)

    def content_hash() -> str:
        stat = path.stat()
        return _file_hash(path, stat.st_size, stat.st_mtime_ns)

    return WeightSource(path, read, content_hash)


@functools.lru_cache(maxsize=8)
def _file_hash(path: Path, size: int, mtime_ns: int) -> str:
    """Hash a checkpoint once, as long as it looks the same: it has more than half a gigabyte."""
    return hash_file(path)
