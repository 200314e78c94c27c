"""Where packs are read from: a folder, whose tars are mapped, or a URL, by fsspec with retry."""

from __future__ import annotations

import logging
import mmap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from ...errors import InputError, TonicsError

log = logging.getLogger(__name__)

ATTEMPTS = 5
FIRST_WAIT_S = 0.5  # twice as long each time


class Place(Protocol):
    """Files below one root."""

    def where(self, name: str) -> str:
        """What a file is called in messages."""

    def read(self, name: str) -> bytes:
        """All of a small file."""

    def open(self, name: str) -> Span:
        """Prepare to read spans of a large one."""


Span = Callable[[int, int], memoryview]  # (start, stop) -> bytes, fewer where the file ends


def place_of(path: str | Path) -> Place:
    """Tell a folder from a URL.

    Raises:
        InputError: there is no such folder, or a URL that runs a command (``pipe:``).
    """
    text = str(path)
    if text.startswith("pipe:"):
        do = "name a folder, or a URL that fsspec reads"
        raise InputError(text, "runs a command", expected="a place to read from", do=do)
    return Remote(text) if "://" in text else Folder(Path(path))


class Folder:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        if not root.is_dir():
            raise InputError(root, "no such folder", expected="a pack made by 'tonics pack'")

    def where(self, name: str) -> str:
        return str(self.root / name)

    def read(self, name: str) -> bytes:
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError as error:
            raise _missing(self.where(name)) from error

    def open(self, name: str) -> Span:
        """Map a file; what is changed in a span stays in this process."""
        try:
            with (self.root / name).open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except FileNotFoundError as error:
            raise _missing(self.where(name)) from error
        except ValueError:  # an empty file cannot be mapped
            return lambda start, stop: memoryview(b"")
        whole = memoryview(mapped)
        return lambda start, stop: whole[start:stop]


class Remote:
    """A folder that fsspec reaches, such as ``s3://bucket/pack`` or ``https://host/pack``."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url.rstrip("/")
        try:
            self.files, self.root = fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError) as error:  # an unknown protocol, or its package
            raise InputError(url, str(error), expected="a URL that fsspec reads") from error

    def where(self, name: str) -> str:
        return f"{self.url}/{name}"

    def read(self, name: str) -> bytes:
        path = self._path(name)

        def enough(found: bytes) -> bool:
            return self.files.size(path) in (None, len(found))

        found: bytes = self._again(name, lambda: self.files.cat_file(path), enough)
        return found

    def open(self, name: str) -> Span:
        """Fetch spans when they are asked for; one that comes short is asked for again."""
        path = self._path(name)

        def span(start: int, stop: int) -> memoryview:
            def fetch() -> memoryview:  # of memory that tensors may be views of
                return memoryview(bytearray(self.files.cat_file(path, start=start, end=stop)))

            return self._again(name, fetch, lambda found: len(found) == stop - start)

        return span

    def _path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def _again(
        self, name: str, fetch: Callable[[], Any], enough: Callable[[Any], bool] = lambda _: True
    ) -> Any:
        """Fetch until it works and is enough, a few times; what came last, when it is too little.

        Every protocol has errors of its own, which derive from nothing but ``Exception``.
        """
        wait_s = FIRST_WAIT_S
        for attempt in range(1, ATTEMPTS + 1):
            try:
                found = fetch()
                if enough(found) or attempt == ATTEMPTS:
                    return found
                trouble: object = "too few bytes came"
            except FileNotFoundError as error:
                raise _missing(self.where(name)) from error
            except Exception as error:
                if attempt == ATTEMPTS:
                    said = f"cannot be read, {ATTEMPTS} times ({error!r})"
                    raise TonicsError(self.where(name), said, do="try again later") from error
                trouble = error
            log.warning("%s: %r, trying again in %.1f s", self.where(name), trouble, wait_s)
            time.sleep(wait_s)
            wait_s *= 2
        raise AssertionError("unreachable")


def _missing(where: str) -> InputError:
    return InputError(where, "is not there", expected="a whole pack made by 'tonics pack'")
