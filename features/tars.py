"""Tar files read in place: their members are listed once, and read by their offsets.

Only what a web dataset needs: plain files in an uncompressed tar (ustar, GNU or pax). A member that
is a link or a device, that leaves its folder, or that is too large to be meant, is listed with its
problem and never read; where a tar is cut short or damaged, the list ends with a problem that says
so. ``FOLDER/00000.tar/000000017.jpg`` is how a member is written as a path.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

CUT_SHORT, DAMAGED = "tar is cut short", "tar is damaged"
MEMBER_BYTES = 1 << 29  # the most that a member may have: an image of the largest kind
_BLOCK = 512
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"(\xb5": "zstd"}
_LONG_NAME_BYTES = 1 << 16
_DIGITS = 20  # more than any size has
_OPEN_TARS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One entry of a tar.

    Attributes:
        name: as the tar spells it, without a leading ``./``; bytes that are not UTF-8 are
            surrogates.
        offset, size: where its bytes lie in the tar file.
        problem: why it must not be read, or what ended the list; else "".
    """

    name: str
    offset: int
    size: int
    problem: str = ""


class Tar:
    """A tar file that is open for reading; safe to share between threads.

    Args:
        path: the tar. It is closed when the object is collected.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._handle = os.open(self.path, os.O_RDONLY)
        self.bytes = os.fstat(self._handle).st_size

    def __del__(self) -> None:
        if (handle := getattr(self, "_handle", -1)) >= 0:
            os.close(handle)

    def read(self, member: Member) -> bytes:
        """The bytes of a member."""
        return self._read(member.offset, member.size)

    @functools.cached_property
    def members(self) -> dict[str, Member]:
        """The members that may be read, by name; of two of one name the first."""
        found: dict[str, Member] = {}
        for member in self.walk():
            if not member.problem:
                found.setdefault(member.name, member)
        return found

    def walk(self) -> Iterator[Member]:
        """List the members in order, reading nothing but their headers.

        Raises:
            InputError: the tar is compressed.
        """
        at, name, size = 0, "", -1  # what a long-name or pax header said of the next member
        while True:
            header = self._read(at, _BLOCK) if at < self.bytes else b""
            if at == 0:
                self._refuse_compressed(header)
            if len(header) < _BLOCK:
                yield Member(name="", offset=at, size=0, problem=CUT_SHORT)
                return
            if not header.strip(b"\0"):
                return
            try:
                entry = _entry(header)
            except ValueError:
                yield Member(name="", offset=at, size=0, problem=DAMAGED)
                return
            kind, at = entry.kind, at + _BLOCK
            length = entry.size if size < 0 or kind in b"LKxg" else size
            after = at + -(-length // _BLOCK) * _BLOCK
            if kind in b"Lx" and length <= _LONG_NAME_BYTES:
                more, more_size = _extended(kind, self._read(at, length))
                name, size = more or name, more_size if more_size >= 0 else size
            elif kind not in b"LKxg5":
                member = _judged(name or entry.name, kind, at, length, self.bytes)
                yield member
                if member.problem == CUT_SHORT:
                    return
                name, size = "", -1
            at = after

    def _read(self, offset: int, size: int) -> bytes:
        return os.pread(self._handle, size, offset)

    def _refuse_compressed(self, start: bytes) -> None:
        method = _COMPRESSED.get(start[:2])
        if method:
            do = "unpack it to a plain .tar: members of a compressed one cannot be found"
            raise InputError(self.path, f"compressed with {method}", expected="a plain tar", do=do)


def split_member(path: str | Path) -> tuple[str, str] | None:
    """Cut the path of a tar's member into the tar's path and the member's name.

    >>> split_member("a/00000.tar/x/1.jpg")
    ('a/00000.tar', 'x/1.jpg')
    >>> split_member("a/1.jpg")
    """
    text, at = str(path), -1
    while (at := text.find(".tar/", at + 1)) >= 0:
        tar, member = text[: at + 4], text[at + 5 :]
        if not os.path.isdir(tar):  # a folder may be called so
            return tar, member
    return None


def open_tar(path: str) -> Tar:
    """Open a tar, or take the one this process has open, unless the file changed since.

    Raises:
        OSError: it cannot be opened.
    """
    stat = os.stat(path)
    return _open_tar(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=_OPEN_TARS)
def _open_tar(path: str, size: int, mtime_ns: int) -> Tar:
    return Tar(path)


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    kind: bytes
    size: int


def _entry(header: bytes) -> _Entry:
    """Read a header; ValueError where its checksum or a number of it is wrong."""
    said = _octal(header[148:156].strip(b" \0") or b"x")
    if sum(header) - sum(header[148:156]) + 8 * ord(" ") != said:
        raise ValueError("checksum")
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    kind = header[156:157].replace(b"\0", b"0").replace(b"7", b"0")
    return _Entry(_decode(name), kind, _number(header[124:136]))


def _number(field: bytes) -> int:
    """Octal digits, or, for sizes beyond 8 GB, big-endian bytes behind a set first bit."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    return _octal(field.strip(b" \0") or b"0")


def _octal(digits: bytes) -> int:
    """Read octal digits and nothing else: ``int`` takes signs, and a size must not be negative."""
    if digits.strip(b"01234567"):
        raise ValueError("not octal")
    return int(digits, 8)


def _extended(kind: bytes, data: bytes) -> tuple[str, int]:
    """What a GNU long name or a pax header says of the next member: its name, its size or -1."""
    if kind == b"L":
        return _decode(data.rstrip(b"\0")), -1
    name, size = "", -1
    while data:
        length, _, _ = data.partition(b" ")
        if not _is_number(length) or not 0 < int(length) <= len(data):
            break
        key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        if key == b"path":
            name = _decode(value)
        elif key == b"size" and _is_number(value):
            size = int(value)
        data = data[int(length) :]
    return name, size


def _is_number(text: bytes) -> bool:
    return text.isdigit() and len(text) <= _DIGITS


def _judged(name: str, kind: bytes, offset: int, size: int, tar_bytes: int) -> Member:
    name = name.removeprefix("./")
    problem = ""
    if kind != b"0":
        problem = "member is a link" if kind in b"12" else "member is no plain file"
    elif name.startswith("/") or ".." in name.split("/"):
        problem = "member leaves its folder"
    elif size > MEMBER_BYTES:
        problem = f"member larger than {MEMBER_BYTES >> 20} MiB"
    elif offset + size > tar_bytes:
        problem = CUT_SHORT
    return Member(name=name, offset=offset, size=size, problem=problem)


def _decode(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
