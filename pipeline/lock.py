"""One coordinator a stage: a lock file that a dead run does not hold."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import LockedError, writing_to


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold an exclusive lock while the block runs.

    The kernel drops the lock of a process that died, so a killed run is taken over at once. The
    file says who holds it: host, pid, boot id, since when.

    Raises:
        LockedError: somebody alive holds it.
    """
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(
                what,
                f"another run is at work on it ({_holder(path)})",
                do="wait for it to end, or stop it; then run the same command again",
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(_myself()).encode(), 0)
        yield
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def is_locked(path: Path) -> bool:
    """Whether somebody alive holds a lock."""
    if not path.exists():
        return False
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _myself() -> dict[str, str | int]:
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "boot_id": boot.read_text().strip() if boot.exists() else "",
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _holder(path: Path) -> str:
    try:
        who = json.loads(path.read_text())
        return f"pid {who['pid']} on {who['host']} since {who['since']}"
    except (ValueError, KeyError, OSError):
        return "it has not said who it is"
