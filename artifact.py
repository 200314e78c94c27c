"""How anything reaches the disk: whole or not at all, hashed, and with a manifest beside it.

``atomic_file`` and ``atomic_folder`` are the only ways this package writes: into ``*.tmp``, flushed
to the disk, renamed, and the folder flushed too, so that a crash at any moment leaves either the
old artefact or the new one. A ``Manifest`` records what an artefact was made from (``identity``)
and what it holds.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from .errors import FormatError, writing_to

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST_VERSION = 1
_CHUNK = 1 << 22
# What the functions below name their temporary files: NAME.<pid>.tmp, NAME.<pid>.old.tmp; DuckDB
# adds endings of its own.
_LEFTOVER = re.compile(r"\d+(\.old)?\.tmp(\.wal|\.tmp)?")
_NAMED_LEFTOVER = re.compile(r".+\.\d+(\.old)?\.tmp(\.wal|\.tmp)?")


def hash_bytes(data: bytes | memoryview) -> str:
    """Hash bytes with xxh3-128, as 32 hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(data)


def hash_file(path: Path) -> str:
    """Hash a file's content with xxh3-128, reading 4 MiB at a time."""
    state = xxhash.xxh3_128()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()


def hash_json(value: Any) -> str:
    """Hash a JSON value in its canonical form (sorted keys, no spaces).

    >>> hash_json({"a": 1, "b": 2}) == hash_json({"b": 2, "a": 1})
    True
    """
    return hash_bytes(canonical_json(value).encode())


def hash_strings(strings: Iterable[str]) -> str:
    """Hash a sequence of strings; the borders between them count.

    >>> hash_strings(["ab", "c"]) == hash_strings(["a", "bc"])
    False
    """
    state = xxhash.xxh3_128()
    for text in strings:
        data = text.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def hash_rows(table: pa.Table, columns: Sequence[str]) -> str:
    """Hash some columns of an Arrow table row by row, however it is chunked.

    Strings are hashed through their lengths and bytes, numbers through their bytes.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    parts: list[bytes] = []
    for name in columns:
        column = table.column(name).combine_chunks()
        if pa.types.is_string(column.type):
            lengths = pc.binary_length(column).to_numpy(zero_copy_only=False).astype("<i8")
            parts += [lengths.tobytes(), "".join(column.to_pylist()).encode("utf-8")]
        else:
            parts.append(np.ascontiguousarray(column.to_numpy(zero_copy_only=False)).tobytes())
    return hash_bytes(b"".join(len(p).to_bytes(8, "little") + p for p in parts))


def canonical_json(value: Any) -> str:
    """Write a JSON value in the one form that is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        FormatError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(
            path, f"not valid JSON ({error})", do="delete it and run 'tonics run' again"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value for people to read, atomically."""
    with atomic_file(path) as tmp:
        tmp.write_text(
            json.dumps(value, indent=1, sort_keys=False, ensure_ascii=False) + "\n",
            encoding="utf-8",
        )


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes ``path`` at the end, and vanishes on failure."""
    tmp = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield tmp
            flush(tmp)
            share(tmp)
            os.replace(tmp, path)
            flush(path.parent)
        finally:
            tmp.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces ``path`` as a whole when the block ends.

    An older folder of that name is moved aside for the instant of the exchange and then deleted.
    """
    tmp = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    old = path.with_name(f"{path.name}.{os.getpid()}.old.tmp")
    with writing_to(path):
        shutil.rmtree(tmp, ignore_errors=True)
        tmp.mkdir(parents=True)
        try:
            yield tmp
            for file in sorted(tmp.rglob("*")):
                flush(file)
                if file.is_file():
                    share(file)
            flush(tmp)
            if path.exists():
                os.replace(path, old)
            os.replace(tmp, path)
            flush(path.parent)
        finally:
            if old.exists() and not path.exists():
                os.replace(old, path)
            shutil.rmtree(tmp, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def drop(path: Path) -> None:
    """Delete a file, if it is there, and make sure that it stays deleted."""
    if path.exists():
        path.unlink(missing_ok=True)  # another process may drop it too
        flush(path.parent)


def share(path: Path) -> None:
    """Give a file the mode any new file has: some writers make theirs readable to nobody else."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def flush(path: Path) -> None:
    """Force a file or a folder entry to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(path: Path) -> int:
    """Delete what a killed run left half-written of a file or folder; return how many entries.

    That is what lies below the folder, and what was to become the file or folder itself. An older
    folder that was moved aside, and whose successor never came, is put back.
    """
    siblings = path.parent.iterdir() if path.parent.is_dir() else ()
    leftovers = [p for p in siblings if _LEFTOVER.fullmatch(p.name.removeprefix(f"{path.name}."))]
    leftovers = [p for p in leftovers if p.name.startswith(f"{path.name}.")]
    if path.is_dir():
        leftovers += [p for p in path.rglob("*.tmp*") if _NAMED_LEFTOVER.fullmatch(p.name)]
    for leftover in leftovers:
        if leftover.name.endswith(".old.tmp") and not path.exists():
            os.replace(leftover, path)
        elif leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    return len(leftovers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One file of an artefact: path relative to the dataset folder, size in bytes, xxh3-128."""

    path: str
    bytes: int
    xxh3: str

    @classmethod
    def of(cls, root: Path, path: Path) -> Output:
        """Describe a finished file below ``root``."""
        relative = path.relative_to(root).as_posix()
        return cls(path=relative, bytes=path.stat().st_size, xxh3=hash_file(path))

    def missing(self, root: Path) -> str:
        """Say what is wrong with the file at a glance (presence and size), or nothing."""
        try:
            size = (root / self.path).stat().st_size
        except FileNotFoundError:
            return f"{self.path} is gone"
        return "" if size == self.bytes else f"{self.path} has {size} bytes, not {self.bytes}"

    def damaged(self, root: Path) -> str:
        """Say what is wrong with the file after reading all of it, or nothing."""
        if problem := self.missing(root):
            return problem
        return "" if hash_file(root / self.path) == self.xxh3 else f"{self.path} was altered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a shard (or a whole stage) was made from, and what it holds.

    Attributes:
        identity: everything that decides the content, by name; compared key by key to tell why a
            shard is stale.
        outputs: the files, with sizes and hashes.
        counts: rows in and out; ``rejected`` and ``ignored`` map a reason to a number.
        cost: wall and CPU seconds and the date; the only part that may differ between equal builds.
    """

    stage: str
    shard: str
    identity: Mapping[str, Any]
    outputs: tuple[Output, ...] = ()
    counts: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    version: int = MANIFEST_VERSION

    def write(self, path: Path) -> None:
        """Write the manifest atomically: from here on the shard counts as finished."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Manifest | None:
        """Read a manifest; None when there is none that can be read.

        Raises:
            FormatError: it is of another version: what it speaks of must not be thrown away.
        """
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            if raw["version"] != MANIFEST_VERSION:
                raise FormatError(
                    path,
                    f"a manifest of version {raw['version']}",
                    expected=f"version {MANIFEST_VERSION}",
                    do="use the tonics that made this dataset, or build it in a new folder",
                )
            raw["outputs"] = tuple(Output(**o) for o in raw["outputs"])
            return cls(**raw)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def content(self) -> str:
        """Hash what the shard holds, for the identity of whatever is made from it.

        A database says so itself (``content_hash``): the bytes of its file may differ.
        """
        if "content_hash" in self.counts:
            return str(self.counts["content_hash"])
        return hash_json([[o.path, o.xxh3] for o in self.outputs])
