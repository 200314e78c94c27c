"""What was asked: ``.tonics/sql_history``, one JSON string a line, for the user's eyes only."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from ...artifact import atomic_file

KEPT = 1000  # statements
_LONGEST = 10_000  # characters; longer ones come from programs


def remember(file: Path, statement: str) -> None:
    """Append a statement; a dataset that cannot be written to is asked all the same."""
    if len(statement) > _LONGEST:
        return
    with contextlib.suppress(OSError):
        handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "wb") as history:  # one write: two sessions may be open
            history.write(json.dumps(statement).encode() + b"\n")
    if len(recall(file, 2 * KEPT)) == 2 * KEPT:
        _shorten(file)


def recall(file: Path, count: int = KEPT) -> list[str]:
    """The last statements, the latest last; lines that are none are passed over."""
    try:
        lines = file.read_bytes().splitlines()[-count:]
    except OSError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            if isinstance(statement := json.loads(line), str):
                found.append(statement)
    return found


def _shorten(file: Path) -> None:
    mask = os.umask(0o077)
    try:
        with contextlib.suppress(OSError), atomic_file(file) as tmp:
            tmp.write_bytes(b"".join(json.dumps(s).encode() + b"\n" for s in recall(file)))
    finally:
        os.umask(mask)
