"""Where a model's weights come from, and what names their content."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...artifact import hash_file
from ...errors import InputError, MissingAsset
from .config import DOWNLOAD


class WeightSource:
    """Where a model's weights come from.

    Once its content was named it must not change: what was made so far carries that name.

    Args:
        where: the file, or what stands for it in messages.
        read: gives a fresh dict of names to tensors or arrays.
        hash_now: names the content as it is.
    """

    def __init__(
        self, where: object, read: Callable[[], dict[str, Any]], hash_now: Callable[[], str]
    ) -> None:
        self.where, self.read, self._hash_now = where, read, hash_now
        self._hash: str | None = None

    def content_hash(self) -> str:
        """Name the content as it was when this was first asked."""
        if self._hash is None:
            self._hash = self._hash_now()
        return self._hash

    def check_unchanged(self) -> None:
        """Make sure, before and after reading, that what is read is what was named.

        Raises:
            InputError: the content is another by now.
        """
        if self.content_hash() != self._hash_now():
            found = "was replaced while it was in use"
            raise InputError(self.where, found, do="run the same command again")


def file_source(path: Path) -> WeightSource:
    def read() -> dict[str, Any]:
        from .checkpoint import read_checkpoint

        return read_checkpoint(path)

    def hash_now() -> str:
        no_folder(path)
        try:
            stat = path.stat()
            return _file_hash(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)
        except FileNotFoundError as error:
            raise MissingAsset(path, "no such file", do=DOWNLOAD) from error
        except OSError as error:
            raise InputError(path, f"cannot be read: {error.strerror}") from error

    return WeightSource(path, read, hash_now)


def no_folder(path: Path) -> None:
    """Refuse a folder where a file belongs.

    Raises:
        InputError: it is a folder.
    """
    if path.is_dir():
        raise InputError(path, "is a folder", expected="the path of a file", do=DOWNLOAD)


@functools.lru_cache(maxsize=8)
def _file_hash(path: Path, size: int, mtime_ns: int, inode: int) -> str:
    """Hash a checkpoint once, as long as it looks the same: it has more than half a gigabyte."""
    return hash_file(path)
