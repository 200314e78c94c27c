"""An open pack: its manifest, its tars, and members that are what was written, or named errors."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...artifact import hash_bytes
from ...errors import FormatError, InputError, PlanMismatch
from ..plan import Plan
from .pack_files import (
    DTYPES,
    MEMBERS,
    PACK_NAME,
    REPACK,
    MemberEntry,
    TarEntry,
    parse_index,
    parse_manifest,
    parse_npy,
)
from .pack_places import Place, Span, place_of

_REGIONS = ("geometry.npy", "features.npy")


class Pack:
    """A packed plan: its manifest, read and checked.

    Args:
        path: its folder or URL.

    Attributes:
        where: the same as text. plan_id: the plan's. features: the feature store's content hash.
        batch_size: B. ranks: 1, or for how many ranks its rows are cut. dim: D.

    Raises:
        InputError: there is no pack. FormatError: its manifest is damaged or of another version.
    """

    def __init__(self, path: str | Path) -> None:
        self.place: Place = place_of(path)
        self.where = str(path)
        found = parse_manifest(self.place.where(PACK_NAME), self.place.read(PACK_NAME))
        self.plan_id: str = found["plan_id"]
        self.features: str = found["features"]
        self.batch_size: int = found["batch_size"]
        self.batches: int = found["batches"]
        self.ranks: int = found["ranks"]
        self.dim: int = found["dim"]
        self._tars: list[TarEntry] = found["tars"]

    def __len__(self) -> int:
        return self.batches

    def __repr__(self) -> str:
        return f"Pack({self.where!r}, {len(self)} batches of {self.batch_size})"

    def tars(self, rank: int = 0) -> list[TarEntry]:
        """The tars of a rank, in order."""
        return [tar for tar in self._tars if tar.rank == rank]

    def require(self, plan: Plan) -> None:
        """Refuse a pack of another plan.

        Raises:
            PlanMismatch: it is; both are given.
        """
        if self.plan_id != plan.plan_id:
            found, expected = f"packed plan {self.plan_id[:8]}", f"{plan.plan_id[:8]}, {plan.path}"
            do = "pack the plan again with 'tonics pack'"
            raise PlanMismatch(self.where, found, expected=expected, do=do)

    def rows(self, rank: int, world: int) -> slice:
        """Which rows of a sample a rank takes.

        Raises:
            InputError: the pack's batches cannot be read by so many ranks.
        """
        if not 0 <= rank < world:
            raise InputError(self.where, f"rank {rank} of {world}", expected=f"0 to {world - 1}")
        if self.ranks == world:
            return slice(0, self.batch_size // world)
        if self.ranks != 1 or self.batch_size % world:
            found = f"batches of {self.batch_size}, packed for {self.ranks} ranks, read by {world}"
            do = f"pack them with 'tonics pack --ranks {world}'"
            raise InputError(self.where, found, expected="as many ranks", do=do)
        per_rank = self.batch_size // world
        return slice(rank * per_rank, (rank + 1) * per_rank)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """The regions a sample brings: features (n, D) float16 and geometry (n, 6) float32."""

    features: np.ndarray
    geometry: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """Rows of a batch.

    Attributes:
        pairs: (n,) pair numbers. counts: (n,) regions of their images. source: (n, 2), which sample
            of the tar brings them, and the first row there. captions: n of them.
    """

    pairs: np.ndarray
    counts: np.ndarray
    source: np.ndarray
    captions: list[str]


class Tar:
    """One tar of a pack: its index, and the samples that were read. Threads may share it.

    Raises:
        FormatError: the index is not what was written. InputError: a file is not there.
    """

    def __init__(self, pack: Pack, entry: TarEntry) -> None:
        self.pack, self.entry, self.where = pack, entry, pack.place.where(entry.name)
        index, where = pack.place.read(entry.index_name), pack.place.where(entry.index_name)
        if hash_bytes(index) != entry.index_xxh3:
            found = f"has hash {hash_bytes(index)}"
            raise FormatError(where, found, expected=entry.index_xxh3, do=REPACK)
        self.members = parse_index(where, index, entry)
        self.span: Span = pack.place.open(entry.name)
        self._parts: list[Part | None] = [None] * entry.batches
        self._locks = [threading.Lock() for _ in self._parts]

    def sample(self, number: int, rows: slice) -> Sample:
        """Read a sample, its regions among it, and take some rows of it.

        Raises:
            FormatError: a member is cut short or altered; it is named.
        """
        with self._locks[number]:
            files = self._files(number)
            self._parts[number] = self._part(number, files)
        arrays = {k: self._array(number, k, files[k]) for k in DTYPES if k not in _REGIONS}
        pairs, source = arrays["pairs.npy"], arrays["source.npy"]
        counts = np.diff(arrays["cu_seqlens.npy"]).astype(np.int64)
        captions = self._captions(number, files["captions.json"])
        size = self.pack.batch_size // self.pack.ranks
        whole = pairs.shape == counts.shape == (size,) and source.shape == (size, 2)
        if not whole or len(captions) != size or (counts < 0).any() or (source < 0).any():
            raise self._error(number, "source.npy", f"a sample that is not of {size} rows")
        if (source[:, 0] > number).any():
            raise self._error(number, "source.npy", "regions of a later sample")
        return Sample(
            pairs=pairs[rows], counts=counts[rows], source=source[rows], captions=captions[rows]
        )

    def part(self, number: int) -> Part:
        """The regions a sample brings; read when they are first wanted."""
        with self._locks[number]:
            part = self._parts[number]
            if part is None:
                files = self._files(number, _REGIONS)
                part = self._parts[number] = self._part(number, files)
        return part

    def _part(self, number: int, files: dict[str, memoryview]) -> Part:
        geometry, features = (self._array(number, kind, files[kind]) for kind in _REGIONS)
        if features.ndim != 2 or features.shape[1] != self.pack.dim:
            found = f"shape {features.shape}, where D is {self.pack.dim}"
            raise self._error(number, "features.npy", found)
        if geometry.shape != (len(features), 6):
            raise self._error(number, "geometry.npy", f"shape {geometry.shape}")
        return Part(features=features, geometry=geometry)

    def _files(self, number: int, kinds: tuple[str, ...] = MEMBERS) -> dict[str, memoryview]:
        """Read members that follow one another, in one span, and compare them with their hashes."""
        first = len(MEMBERS) * number + MEMBERS.index(kinds[0])
        members = self.members[first : first + len(kinds)]
        start = members[0].offset
        span = self.span(start, members[-1].offset + members[-1].size)
        files = {}
        for kind, member in zip(kinds, members, strict=True):
            at = member.offset - start
            data = span[at : at + member.size]
            self._check(member, data)
            files[kind] = data
        return files

    def _check(self, member: MemberEntry, data: memoryview) -> None:
        where = f"{self.where}: member {member.name}"
        if len(data) != member.size:
            found, expected = f"{len(data)} bytes, then the tar ends", f"{member.size}"
            raise FormatError(where, found, expected=expected, do=REPACK)
        if (found := hash_bytes(data)) != member.xxh3:
            raise FormatError(where, f"has hash {found}", expected=member.xxh3, do=REPACK)

    def _array(self, number: int, kind: str, data: memoryview) -> np.ndarray:
        try:
            return parse_npy(kind, data)
        except ValueError as error:
            raise self._error(number, kind, str(error)) from error

    def _captions(self, number: int, data: memoryview) -> list[str]:
        try:
            found: list[str] = json.loads(bytes(data))
            if not isinstance(found, list) or not all(isinstance(c, str) for c in found):
                raise ValueError("no list of strings")
        except ValueError as error:
            raise self._error(number, "captions.json", str(error)) from error
        return found

    def _error(self, number: int, kind: str, found: str) -> FormatError:
        member = self.members[len(MEMBERS) * number + MEMBERS.index(kind)]
        return FormatError(f"{self.where}: member {member.name}", found, do=REPACK)
