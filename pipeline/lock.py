"""One coordinator a stage, one maker a shard: lock files that a dead process does not hold."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import LockedError, writing_to
from .dataset import Dataset

_PATIENCE_S = 60.0  # how long one waits for the maker of a shard, which may be about to die
_LOOK_EVERY_S = 0.2
_GLANCES_S = 0.5  # 'tonics status' looks at a lock by sharing it for an instant
_PARTS: dict[str, str | int] = {"parts": "a machine each"}


def lock_file(dataset: Dataset, key: str) -> Path:
    """The lock of a stage."""
    return dataset.state / "locks" / f"{key.replace('/', '-')}.lock"


def shard_lock(dataset: Dataset, key: str, shard: str) -> Path:
    """The lock of a shard."""
    return dataset.state / "locks" / key.replace("/", "-") / f"{shard}.lock"


@contextlib.contextmanager
def locked(path: Path, what: str, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock while the block runs: alone, or shared with others that make parts.

    The kernel drops the lock of a process that died, so a killed run is taken over at once. The
    file says who holds it alone (host, pid, boot id, since when), or that parts are being made.

    Raises:
        LockedError: somebody alive holds it.
    """
    deadline = time.monotonic() + _GLANCES_S
    while (handle := _take(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)) is None:
        if time.monotonic() < deadline:
            time.sleep(_GLANCES_S / 10)
            continue
        raise LockedError(
            what,
            f"another run is at work on it ({_holder(path)})",
            do="wait for it to end, or stop it; then run the same command again",
        )
    try:
        _sign(handle, _PARTS if shared else _myself())
        yield
    finally:
        if not shared:
            os.ftruncate(handle, 0)
        os.close(handle)


@contextlib.contextmanager
def claimed(path: Path, what: str, patience_s: float = _PATIENCE_S) -> Iterator[bool]:
    """Hold a lock that lasts no longer than the block; yields whether it had to be waited for.

    Raises:
        LockedError: somebody alive held it all the while.
    """
    deadline, waited = time.monotonic() + patience_s, False
    while (handle := _take(path)) is None:
        if time.monotonic() > deadline:
            found = f"a worker of another run is still making it ({_holder(path)})"
            raise LockedError(what, found, do="end that process; then run the same command again")
        waited = True
        time.sleep(_LOOK_EVERY_S)
    try:
        _sign(handle, _myself())
        yield waited
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """A file that only one run can have made, for other machines to find.

    Attributes:
        name: of the file among the locks. text: what it says.
    """

    name: str
    text: str

    def seen_in(self, dataset: Dataset) -> bool:
        """Whether this machine finds it where it sees the dataset."""
        path = dataset.state / "locks" / self.name
        return path.is_file() and path.read_text() == self.text


@contextlib.contextmanager
def presence(dataset: Dataset) -> Iterator[Presence]:
    """Leave such a file in a dataset while the block runs; a killed run's are cleared away."""
    folder = dataset.state / "locks"
    for old in folder.glob("driver-*.lock"):
        if not is_locked(old):
            old.unlink(missing_ok=True)
    path = folder / f"driver-{uuid.uuid4().hex}.lock"
    with claimed(path, str(path)):
        yield Presence(name=path.name, text=path.read_text())


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


def _take(path: Path, kind: int = fcntl.LOCK_EX) -> int | None:
    """Lock the file that is at ``path`` now; None when somebody holds it."""
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(handle, kind | fcntl.LOCK_NB)
                if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                    return handle
            except BlockingIOError:
                os.close(handle)
                return None
            except FileNotFoundError:
                pass
            os.close(handle)  # its holder removed it before we had it: take the next one


def _sign(handle: int, who: dict[str, str | int]) -> None:
    text = json.dumps(who).encode()
    os.pwrite(handle, text, 0)  # those who share write the same: it is readable all the while
    os.ftruncate(handle, len(text))


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
        if who == _PARTS:
            return "parts of it are being made, with --shards"
        return f"pid {who['pid']} on {who['host']} since {who['since']}"
    except (ValueError, KeyError, OSError):
        return "it has not said who it is"
