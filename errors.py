"""Every error a user can cause, one clear line each: where, what was found, what to do.

Code inside the package raises these; the command line prints them and exits with ``exit_code``
(1: the work failed, 2: the user's input was wrong). Anything else that escapes is our own bug.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence


class TonicsError(Exception):
    """Work that failed for a reason the user can act on.

    Args:
        where: the file, key or command the trouble is in.
        found: what is there (values through ``repr``).
        expected: what would have been right; omitted when it says nothing new.
        do: the next step, usually a command.
    """

    exit_code = 1

    def __init__(self, where: object, found: str, *, expected: str = "", do: str = "") -> None:
        self.where, self.found, self.expected, self.do = str(where), found, expected, do
        parts = [f"{self.where}: {found}"]
        if expected:
            parts.append(f"expected {expected}")
        text = ", ".join(parts) + (f"; {do}" if do else "")
        super().__init__(plain(text))

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[object, ...]:  # errors cross process borders
        return (_rebuild, (type(self), self.where, self.found, self.expected, self.do))


class InputError(TonicsError):
    """What the user gave (a file, a key, an argument) cannot be used."""

    exit_code = 2


class ConfigError(InputError):
    """A key of ``tonics.toml`` is missing, unknown or has a value that is not allowed."""


class MissingAsset(InputError):
    """WordNet, a model or the demo's photographs are not on this machine."""


class ImageNotFound(InputError):
    """An image number that the feature store does not hold."""


class PlanMismatch(InputError):
    """A plan was built for other pairs, other keys or another store than the ones at hand."""


class FormatError(TonicsError):
    """A file we wrote, or were told to read, does not hold what its format promises."""


class StaleInput(TonicsError):
    """A stage was asked to run before the stages it reads from."""

    exit_code = 2


class WouldDiscard(InputError):
    """Finished work would be thrown away, and nobody asked for that."""


class LockedError(TonicsError):
    """Another run is building the same thing."""


class TooManyRejects(TonicsError):
    """A stage rejected a larger share of its inputs than the configuration allows."""


class DiskFull(TonicsError):
    """There is no room left for what is being written."""


class NotWritable(TonicsError):
    """The folder cannot be written to."""

    exit_code = 2


def _rebuild(
    kind: type[TonicsError], where: str, found: str, expected: str, do: str
) -> TonicsError:
    return kind(where, found, expected=expected, do=do)


def plain(text: str, limit: int = 2000) -> str:
    r"""Make hostile text safe for one terminal line: no control characters, no newlines.

    >>> plain("a\x1b[31mred\nb")
    'a\\x1b[31mred b'
    """
    spaced = " ".join(text.split())
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in spaced)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def first_ten(values: Sequence[object]) -> str:
    """List at most ten values for an error message, and how many more there are.

    >>> first_ten([1, 2])
    '1, 2'
    """
    shown = ", ".join(repr(v) for v in values[:10])
    return shown if len(values) <= 10 else f"{shown} and {len(values) - 10} more"


@contextlib.contextmanager
def writing_to(path: object) -> Iterator[None]:
    """Turn the operating system's refusals to write into errors that say what to do."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            do = "free some space and run the same command again: finished shards are kept"
            raise DiskFull(where, os.strerror(error.errno), do=do) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            do = "make the folder writable, or choose another one with -C"
            raise NotWritable(
                where, os.strerror(error.errno), expected="a writable folder", do=do
            ) from error
        raise
