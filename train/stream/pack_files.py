"""What a packed plan looks like on disk, for the writer and the reader.

    pack.json          what was packed, which tars there are; ``pack_id`` is a hash of it
    00000.tar          samples of webdataset, one a batch, in training order
    00000.json         where in the tar each member lies, and its hash

A pack for W ranks has W such series, ``0-of-W/00000.tar`` and so on, each of the rows of one rank,
with the same batches in the tars of one number.

A sample's key is its step, its members are ``MEMBERS``. ``features.npy`` and ``geometry.npy`` hold
the regions of images that no earlier sample of the tar has brought; ``source.npy`` says for every
image of the batch which sample of the tar did, and the first row there. So a tar holds each image
once, and stands alone.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...artifact import canonical_json, hash_json
from ...errors import FormatError

PACK_NAME, PACK_FORMAT, PACK_VERSION = "pack.json", "tonics-pack", 1
MEMBERS = (
    "batch.json",  # step, in_tar (the sample's number in its tar), epoch, phase, node
    "captions.json",  # B strings
    "pair_keys.json",  # B strings, "image_id#k"
    "pairs.npy",  # (B,) int64 pair numbers
    "images.npy",  # (B,) int64 image numbers
    "cu_seqlens.npy",  # (B + 1,) int32; image k of the batch has cu_seqlens[k + 1] - cu_seqlens[k]
    "source.npy",  # (B, 2) int64: in_tar of the sample that has image k, and its first row there
    "geometry.npy",  # (n, 6) float32, of the images this sample brings
    "features.npy",  # (n, D) float16
)
DTYPES: dict[str, np.dtype[Any]] = {
    "pairs.npy": np.dtype("<i8"),
    "images.npy": np.dtype("<i8"),
    "cu_seqlens.npy": np.dtype("<i4"),
    "source.npy": np.dtype("<i8"),
    "geometry.npy": np.dtype("<f4"),
    "features.npy": np.dtype("<f2"),
}
REPACK = "copy the pack again, or make it anew with 'tonics pack'"
_BLOCK = 512
_END = 2 * _BLOCK
_TAR_NAME = re.compile(r"(\d+-of-\d+/)?\d{5,}\.tar")


@dataclass(frozen=True, slots=True, kw_only=True)
class TarEntry:
    """A tar of a pack.

    Attributes:
        name: relative to the pack. rank: whose rows it holds; 0 in a pack of whole batches.
        first: its first step. batches: how many samples it has. bytes: its size.
        index_xxh3: hash of its index file.
    """

    name: str
    rank: int
    first: int
    batches: int
    bytes: int
    index_xxh3: str

    @property
    def index_name(self) -> str:
        """The file that says where its members lie."""
        return self.name.removesuffix(".tar") + ".json"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberEntry:
    """Where in its tar a member lies: offset and size in bytes, xxh3-128 of its content."""

    name: str
    offset: int
    size: int
    xxh3: str


def tar_name(number: int, rank: int, ranks: int) -> str:
    """The name of a tar in its pack.

    >>> tar_name(3, 0, 1), tar_name(3, 0, 2)
    ('00003.tar', '0-of-2/00003.tar')
    """
    return f"{number:05d}.tar" if ranks == 1 else f"{rank}-of-{ranks}/{number:05d}.tar"


def member_name(step: int, kind: str) -> str:
    """The name of a member in its tar.

    >>> member_name(7, "pairs.npy")
    '00000007.pairs.npy'
    """
    return f"{step:08d}.{kind}"


# -- bytes -----------------------------------------------------------------------------------------


def tar_header(name: str, size: int) -> bytes:
    """The header of a plain file, the same whoever writes it, and when."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.GNU_FORMAT)


def padding(size: int) -> int:
    """Zeros that follow a member."""
    return -size % _BLOCK


def tar_bytes(member_sizes: Sequence[int]) -> int:
    """The size of a tar, or of samples in it, without its end."""
    return sum(_BLOCK + size + padding(size) for size in member_sizes)


def tar_end() -> bytes:
    """What a tar ends with."""
    return bytes(_END)


def npy_header(kind: str, shape: tuple[int, ...]) -> bytes:
    """What precedes the numbers of an array of a kind; they begin at a whole cache line."""
    out = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(DTYPES[kind])
    described = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, described)
    return out.getvalue()


def npy_bytes(kind: str, array: np.ndarray) -> bytes:
    """An array of a kind as a file."""
    return npy_header(kind, array.shape) + np.ascontiguousarray(array, DTYPES[kind]).tobytes()


def parse_npy(kind: str, data: memoryview) -> np.ndarray:
    """View the array of a member; nothing but plain numbers of its kind is read.

    Raises:
        ValueError: it is another array than the kind's, or none.
    """
    head = io.BytesIO(data[:4096])
    if np.lib.format.read_magic(head) != (1, 0):
        raise ValueError("npy of another version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
    if dtype != DTYPES[kind] or fortran:
        raise ValueError(f"an array of {dtype}, expected {DTYPES[kind]}")
    count, start = int(np.prod(shape, dtype=np.int64)), head.tell()
    if len(data) != start + count * dtype.itemsize:
        raise ValueError(f"{len(data) - start} bytes of numbers for shape {shape}")
    return np.frombuffer(data, dtype, count, start).reshape(shape)


def json_bytes(value: Any) -> bytes:
    """A JSON value as a file."""
    return (canonical_json(value) + "\n").encode("utf-8", "backslashreplace")


# -- the manifest and the indexes ------------------------------------------------------------------


def manifest_bytes(about: Mapping[str, Any], tars: Sequence[TarEntry]) -> bytes:
    """The content of ``pack.json``."""
    body = {
        "format": PACK_FORMAT,
        "version": PACK_VERSION,
        **about,
        "tars": [asdict(tar) for tar in tars],
    }
    full = {"pack_id": pack_id_of(body), **body}
    return (json.dumps(full, indent=1, ensure_ascii=False) + "\n").encode()


def pack_id_of(manifest: Mapping[str, Any]) -> str:
    """The hash of what a pack holds; the release that wrote it is no part of it."""
    outside = ("pack_id", "created_by")
    return hash_json({key: value for key, value in manifest.items() if key not in outside})


def parse_manifest(where: str, data: bytes) -> dict[str, Any]:
    """Read ``pack.json``; its ``tars`` become ``TarEntry``.

    Raises:
        FormatError: it is no manifest, of another version, or was altered.
    """
    try:
        found = json.loads(data)
        kind, version = found["format"], found["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(where, f"not a pack's manifest ({error!r})", do=REPACK) from error
    if kind != PACK_FORMAT or version != PACK_VERSION:
        expected = f"{PACK_FORMAT!r} version {PACK_VERSION}"
        raise FormatError(where, f"format {kind!r} version {version!r}", expected=expected)
    if pack_id_of(found) != found.get("pack_id"):
        raise FormatError(where, "was altered: pack_id does not fit the rest", do=REPACK)
    try:
        tars = [TarEntry(**tar) for tar in found["tars"]]
        complete = {"plan_id", "features", "batch_size", "batches", "ranks", "dim"} <= set(found)
        if not complete or not all(_TAR_NAME.fullmatch(tar.name) for tar in tars):
            raise ValueError("a key is missing, or a tar's name leaves the pack")
        _check_counts(found)
        for rank in range(found["ranks"]):
            _check_series([tar for tar in tars if tar.rank == rank], found["batches"])
    except (ValueError, TypeError) as error:
        raise FormatError(where, f"not a pack's manifest ({error})", do=REPACK) from error
    return {**found, "tars": tars}


def _check_counts(manifest: Mapping[str, Any]) -> None:
    """Refuse counts that are none, or that its tars cannot bear out."""
    size, ranks, batches, dim = (manifest[k] for k in ("batch_size", "ranks", "batches", "dim"))
    fine = all(type(n) is int for n in (size, ranks, batches, dim))
    if not fine or min(size, ranks, dim) < 1 or batches < 0 or size % ranks or ranks > size:
        raise ValueError(f"batches of {size} for {ranks} ranks, of {dim} numbers a region")


def _check_series(tars: Sequence[TarEntry], batches: int) -> None:
    """Refuse tars that do not hold every batch once, in order."""
    ends = [0, *(tar.first + tar.batches for tar in tars)]
    if [*(tar.first for tar in tars), batches] != ends:
        raise ValueError("its tars do not hold every batch once")


def index_bytes(tar: str, members: Sequence[MemberEntry]) -> bytes:
    """The content of a tar's index: a member a line."""
    rows = ",\n".join(json.dumps(asdict(member)) for member in members)
    return f'{{"tar": {json.dumps(tar)}, "members": [\n{rows}\n]}}\n'.encode()


def parse_index(where: str, data: bytes, tar: TarEntry) -> list[MemberEntry]:
    """Read a tar's index: the members of its batches, in order.

    Raises:
        FormatError: it does not list just those.
    """
    try:
        members = [MemberEntry(**row) for row in json.loads(data)["members"]]
        plain = all(m.offset >= 0 and m.size >= 0 for m in members)
        plain = plain and len(members) == tar.batches * len(MEMBERS)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(where, f"not a tar's index ({error!r})", do=REPACK) from error
    steps = range(tar.first, tar.first + tar.batches)
    names = (member_name(step, kind) for step in steps for kind in MEMBERS)
    if not plain or any(m.name != name for m, name in zip(members, names, strict=False)):
        expected = f"the members of steps {steps.start} to {steps.stop - 1}"
        raise FormatError(where, "lists other members", expected=expected, do=REPACK)
    return members
