"""The plan: a list of global minibatches decided beforehand, in a folder any trainer can read.

``plan.json`` is the header, ``batches.arrow`` holds integers only, ``pairs.arrow`` names the
pairs, ``remainder.arrow`` says what was left out and why, ``quality.json`` holds similarities and
is not part of the plan's identity. Reading needs numpy and pyarrow. The whole state of a run is one
integer, the next batch.

    plan = Plan("my-dataset/plans/tonics")
    for step in range(start, len(plan)):
        pairs = plan.rank_rows(step, rank, world)  # this rank's rows of the global batch
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..artifact import hash_bytes, hash_json, hash_rows, write_json
from ..errors import FormatError, InputError, PlanMismatch, TonicsError, first_ten

PLAN_VERSION = 1
_BLOCK = 1 << 20  # pair numbers looked up at once

PAIRS_SCHEMA = pa.schema(
    [
        ("pair", pa.int64()),  # dense number in the dataset, increasing
        ("pair_key", pa.string()),  # "image_id#k": the name that outlives any numbering
        ("image", pa.int64()),
        ("image_id", pa.string()),
        ("caption", pa.string()),
        ("split", pa.string()),
        ("caption_hash", pa.uint64()),  # xxh3-64 of the caption's UTF-8 bytes
    ]
)
REMAINDER_SCHEMA = pa.schema(
    [("epoch", pa.int32()), ("phase", pa.int16()), ("pair", pa.int64()), ("reason", pa.string())]
)


def batches_schema(batch_size: int) -> pa.Schema:
    """Columns of ``batches.arrow``; ``node`` indexes the header's ``nodes``, -1 for none."""
    return pa.schema(
        [
            ("batch", pa.int64()),
            ("epoch", pa.int32()),
            ("phase", pa.int16()),
            ("node", pa.int32()),
            ("pairs", pa.list_(pa.int64(), batch_size)),
        ]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Planned batches as arrays, in training order.

    Attributes:
        epoch: (n,) int32. phase: (n,) int16. node: (n,) int32, -1 where a batch has no node.
        pairs: (n, B) int64 pair numbers.
    """

    epoch: np.ndarray
    phase: np.ndarray
    node: np.ndarray
    pairs: np.ndarray

    def table(self) -> pa.Table:
        """The rows of ``batches.arrow``."""
        count, size = self.pairs.shape
        flat = pa.array(np.ascontiguousarray(self.pairs, np.int64).reshape(-1))
        columns = [np.arange(count), self.epoch, self.phase, self.node]
        schema = batches_schema(size)
        arrays = [pa.array(c, field.type) for c, field in zip(columns, schema, strict=False)]
        return pa.table([*arrays, pa.FixedSizeListArray.from_arrays(flat, size)], schema=schema)

    def content_hash(self) -> str:
        """Hash the numbers themselves, whatever file they lie in."""
        columns = [
            (self.epoch, "<i4"),
            (self.phase, "<i2"),
            (self.node, "<i4"),
            (self.pairs, "<i8"),
        ]
        parts = [hash_bytes(np.ascontiguousarray(c, kind).data.cast("B")) for c, kind in columns]
        return hash_json([list(self.pairs.shape), *parts])


def plan_id_of(header: Mapping[str, Any]) -> str:
    """The plan's identity: a hash of the header, which holds the hashes of the tables.

    The release that wrote the plan is no part of it.
    """
    outside = ("plan_id", "created_by")
    return hash_json({key: value for key, value in header.items() if key not in outside})


def write_plan(
    folder: Path,
    header: Mapping[str, Any],
    batches: Batches,
    pairs: pa.Table,
    remainder: pa.Table,
    quality: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the five files of a plan into an empty folder; return the finished header.

    The caller makes the folder atomic (``artifact.atomic_folder``).
    """
    pairs = pairs.select(PAIRS_SCHEMA.names).cast(PAIRS_SCHEMA)
    remainder = remainder.select(REMAINDER_SCHEMA.names).cast(REMAINDER_SCHEMA)
    full = {
        "format": "tonics-plan",
        "version": PLAN_VERSION,
        **header,
        "batches_hash": batches.content_hash(),
        "pairs_hash": hash_rows(pairs, PAIRS_SCHEMA.names),
        "remainder_hash": hash_rows(remainder, REMAINDER_SCHEMA.names),
    }
    full = {"plan_id": plan_id_of(full), **full}
    _write_arrow(folder / "batches.arrow", batches.table())
    _write_arrow(folder / "pairs.arrow", pairs)
    _write_arrow(folder / "remainder.arrow", remainder)
    write_json(folder / "plan.json", full)
    write_json(folder / "quality.json", dict(quality))
    return full


class Phase(NamedTuple):
    """One phase of a curriculum, as the header describes it."""

    name: str
    builder: str
    params: Mapping[str, Any]
    first_epoch: int
    epochs: int


class Plan:
    """A plan on disk, memory-mapped: opening costs milliseconds.

    ``batch`` and ``rank_rows`` are views and cost a microsecond. What the numbers mean costs more:
    the first of ``rows``, ``images_of`` and ``captions_of`` maps pairs.arrow and builds a table of
    4 bytes a pair; from then on a batch of 1,000 takes about 0.03 ms for images and, once its
    pages are in memory, 0.1 ms for captions, which become Python strings.

    Columns and header keys that this release does not know are ignored.

    Args:
        path: the plan's folder (``plans/NAME``).

    Raises:
        FormatError: the folder is not a plan, or of a version this release cannot read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.header = _read_header(self.path)
        self.plan_id: str = self.header["plan_id"]
        self.batch_size: int = self.header["batch_size"]
        self.sub_block: int = self.header["sub_block"]
        self.inputs: dict[str, str] = self.header["inputs"]
        self.nodes: list[str] = self.header["nodes"]
        self.batches = self._read_batches()

    def _read_batches(self) -> Batches:
        path = self.path / "batches.arrow"
        table = _map_arrow(path, batches_schema(self.batch_size))
        try:
            names = ("epoch", "phase", "node")
            columns = {n: _one_array(table, n).to_numpy(zero_copy_only=True) for n in names}
            flat = _one_array(table, "pairs").flatten().to_numpy(zero_copy_only=True)
            return Batches(pairs=flat.reshape(-1, self.batch_size), **columns)
        except ValueError as error:  # ArrowInvalid is one: a null among the numbers
            do = "build the plan again with 'tonics plan'"
            raise FormatError(path, f"cannot be read ({error})", do=do) from error

    def __len__(self) -> int:
        return len(self.batches.pairs)

    def __repr__(self) -> str:
        return f"Plan({str(self.path)!r}, {len(self)} batches of {self.batch_size})"

    def batch(self, step: int) -> np.ndarray:
        """The (B,) int64 pair numbers of a global batch, in order.

        Raises:
            InputError: the plan has no such batch.
        """
        return self.batches.pairs[self._checked(step)]

    def _checked(self, step: int) -> int:
        if not 0 <= step < len(self):
            expected = f"0 to {len(self) - 1}" if len(self) else "none: the plan is empty"
            raise InputError(self.path, f"batch {step}", expected=expected)
        return step

    def epoch_of(self, step: int) -> int:
        """The epoch a batch belongs to, from 0."""
        return int(self.batches.epoch[self._checked(step)])

    def phase_of(self, step: int) -> int:
        """The phase a batch belongs to, an index into ``phases``."""
        return int(self.batches.phase[self._checked(step)])

    def node_of(self, step: int) -> str:
        """The object all pairs of a batch share, as a synset name; empty where there is none."""
        node = int(self.batches.node[self._checked(step)])
        return self.nodes[node] if node >= 0 else ""

    @property
    def phases(self) -> list[Phase]:
        """The phases of the curriculum, in order."""
        return [Phase(**{k: p[k] for k in Phase._fields}) for p in self.header["phases"]]

    @property
    def epochs(self) -> int:
        """How many epochs the plan has."""
        return int(self.header["counts"]["epochs"])

    def epoch_range(self, epoch: int) -> range:
        """The steps of one epoch (they are contiguous)."""
        bounds = np.searchsorted(self.batches.epoch, [epoch, epoch + 1])
        return range(int(bounds[0]), int(bounds[1]))

    def rank_rows(self, step: int, rank: int, world: int) -> np.ndarray:
        """This rank's slice of a global batch: rows ``[rank * B / world, (rank + 1) * B / world)``.

        Raises:
            InputError: the plan has no such batch, or ``world`` does not divide the batch, or would
                cut a sub-block in two.
        """
        per_rank = self.rows_per_rank(world)
        if not 0 <= rank < world:
            raise InputError(self.path, f"rank {rank} of {world}", expected=f"0 to {world - 1}")
        return self.batch(step)[rank * per_rank : (rank + 1) * per_rank]

    def rows_per_rank(self, world: int) -> int:
        """How many rows of each batch one of ``world`` ranks takes."""
        per_rank, rest = divmod(self.batch_size, world) if world > 0 else (0, 1)
        if rest or per_rank % self.sub_block:
            raise InputError(
                self.path,
                f"batches of {self.batch_size} (groups of {self.sub_block}) for {world} ranks",
                expected="a world size that divides the batch into whole groups",
                do="choose another world size, or build the plan with another batch_size",
            )
        return per_rank

    def iterate(self, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[np.ndarray]:
        """Yield this rank's rows of every batch from ``start`` on."""
        for step in range(start, len(self)):
            yield self.rank_rows(step, rank, world)

    # -- what the pair numbers mean ------------------------------------------------------------

    @cached_property
    def pairs(self) -> pa.Table:
        """The eligible pairs (``PAIRS_SCHEMA``), by increasing pair number, memory-mapped."""
        return _map_arrow(self.path / "pairs.arrow", PAIRS_SCHEMA)

    @cached_property
    def remainder(self) -> pa.Table:
        """What an epoch could not place, with the reason."""
        return _map_arrow(self.path / "remainder.arrow", REMAINDER_SCHEMA)

    @cached_property
    def quality(self) -> dict[str, Any]:
        """The similarity report made when the plan was built."""
        return json.loads((self.path / "quality.json").read_text(encoding="utf-8"))

    @cached_property
    def _places(self) -> np.ndarray:
        """(largest pair number + 1,) int32: 1 + the row of each pair number, 0 for none.

        Zeros are not touched until written, so that gaps in the numbers cost little memory.
        """
        known = _one_array(self.pairs, "pair").to_numpy()
        if len(known) and int(known.min()) < 0:
            raise FormatError(
                self.path / "pairs.arrow", f"pair {known.min()}", expected="0 or more"
            )
        places = np.zeros(int(known.max(initial=0)) + 1, np.int32)
        places[known] = np.arange(1, len(known) + 1, dtype=np.int32)
        return places

    def rows(self, pairs: np.ndarray) -> np.ndarray:
        """Where pair numbers stand in ``self.pairs``: (n,) int32.

        Raises:
            PlanMismatch: a number is not one of the plan's pairs.
        """
        wanted, places = np.asarray(pairs), self._places
        if not wanted.size:
            return np.zeros(0, np.int32)
        rows = places.take(wanted, mode="clip") - 1
        found = (rows >= 0) & (wanted >= 0) & (wanted < len(places))
        if not np.all(found):
            missing = wanted[~found].tolist()
            raise PlanMismatch(self.path, f"pairs {first_ten(missing)} are not in the plan")
        return rows

    @cached_property
    def _used_rows(self) -> np.ndarray:
        """Rows of ``self.pairs`` that some batch uses, increasing."""
        flat, used = self.batches.pairs.reshape(-1), np.zeros(self.pairs.num_rows, bool)
        for start in range(0, len(flat), _BLOCK):
            used[self.rows(flat[start : start + _BLOCK])] = True
        return np.flatnonzero(used)

    def images_of(self, pairs: np.ndarray) -> np.ndarray:
        """(n,) int64 image numbers of pairs."""
        return self.pairs.column("image").take(pa.array(self.rows(pairs))).to_numpy()

    def captions_of(self, pairs: np.ndarray) -> list[str]:
        """The captions of pairs, in their order."""
        return self.pairs.column("caption").take(pa.array(self.rows(pairs))).to_pylist()

    # -- in somebody else's trainer ------------------------------------------------------------

    def align(self, keys: Sequence[str]) -> AlignedPlan:
        """Turn the plan into row numbers of somebody's own dataset.

        Args:
            keys: the ``pair_key`` of every row of that dataset, in its order. Rows that the plan
                does not use are fine.

        Raises:
            PlanMismatch: a key occurs twice, or a planned pair has no row; the first ten are given.
        """
        row_of: dict[str, int] = {key: row for row, key in enumerate(keys)}
        if len(row_of) != len(keys):
            seen: set[str] = set()
            twice = [k for k in keys if k in seen or seen.add(k)]  # type: ignore[func-returns-value]
            raise PlanMismatch(
                self.path,
                f"{len(keys) - len(row_of)} of your keys occur twice: {first_ten(list(twice))}",
                expected="one row a key",
            )
        used = pa.array(self._used_rows)
        used_keys = self.pairs.column("pair_key").take(used).to_pylist()
        missing = [key for key in used_keys if key not in row_of]
        if missing:
            raise PlanMismatch(
                self.path,
                f"{len(missing)} planned pairs have no row of yours: {first_ten(missing)}",
                expected="every planned pair_key ('image_id#k') among your keys",
                do="align the keys of the dataset the plan was built for",
            )
        rows = np.fromiter((row_of[key] for key in used_keys), np.int64, len(used_keys))
        table = np.zeros(len(self._places), np.int64)
        table[self.pairs.column("pair").take(used).to_numpy()] = rows
        return AlignedPlan(plan=self, table=table)

    def audit(self, step: int, pairs: Sequence[int] | np.ndarray) -> None:
        """Check that the ranks of a trainer together received exactly the planned batch.

        Where ``torch.distributed`` is initialised, every rank passes its own slice and all must
        call it: the slices are gathered in rank order. Where it is not, ``pairs`` is compared with
        the whole batch, so a lone process that received only a slice is told that rows are missing.

        Raises:
            PlanMismatch: the batch of this step is not the planned one.
        """
        audit_batch(str(self.path), step, self.batch(step), pairs)

    def verify(self) -> list[str]:
        """Read the plan's files again and check their hashes.

        Returns:
            What is wrong, one line each, missing files too; empty when all is well.
        """
        checks = {
            "batches.arrow": ("batches_hash", lambda: self._read_batches().content_hash()),
            "pairs.arrow": ("pairs_hash", lambda: self._hash_of("pairs.arrow", PAIRS_SCHEMA)),
            "remainder.arrow": (
                "remainder_hash",
                lambda: self._hash_of("remainder.arrow", REMAINDER_SCHEMA),
            ),
        }
        problems = self._verify_header()
        for name, (key, hash_now) in checks.items():
            try:
                if hash_now() != self.header.get(key):
                    problems.append(f"{self.path / name} does not hold what it was built with")
            except FormatError as error:
                problems.append(str(error))
        return problems

    def _hash_of(self, name: str, schema: pa.Schema) -> str:
        return hash_rows(_map_arrow(self.path / name, schema), schema.names)

    def _verify_header(self) -> list[str]:
        try:
            header = _read_header(self.path)
        except TonicsError as error:
            return [str(error)]
        if plan_id_of(header) == header.get("plan_id") == self.plan_id:
            return []
        return [f"{self.path / 'plan.json'} was altered: plan_id does not fit the header"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignedPlan:
    """A plan in the row numbers of somebody's own dataset; see ``Plan.align``.

    Attributes:
        table: (largest pair number + 1,) int64 the dataset row of each pair number; 0 where the
            plan does not use a number.
    """

    plan: Plan
    table: np.ndarray

    def __len__(self) -> int:
        return len(self.plan)

    @property
    def batch_size(self) -> int:
        """Rows in a global batch."""
        return self.plan.batch_size

    def batch(self, step: int) -> np.ndarray:
        """The (B,) int64 dataset rows of a global batch."""
        return self._translate(self.plan.batch(step))

    def rank_rows(self, step: int, rank: int, world: int) -> np.ndarray:
        """This rank's dataset rows of a global batch."""
        return self._translate(self.plan.rank_rows(step, rank, world))

    def iterate(self, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[np.ndarray]:
        """Yield this rank's dataset rows of every batch from ``start`` on."""
        for step in range(start, len(self)):
            yield self.rank_rows(step, rank, world)

    def audit(self, step: int, rows: Sequence[int] | np.ndarray) -> None:
        """As ``Plan.audit``, with dataset rows instead of pair numbers."""
        audit_batch(str(self.plan.path), step, self.batch(step), rows)

    def _translate(self, pairs: np.ndarray) -> np.ndarray:
        return self.table[pairs]


def audit_batch(
    where: str, step: int, planned: np.ndarray, received: Sequence[int] | np.ndarray
) -> None:
    """Compare what all ranks received, in rank order, with a planned batch."""
    got = _gather_ranks(np.asarray(received, dtype=np.int64).reshape(-1))
    if len(got) == len(planned) and np.array_equal(got, planned):
        return
    absent = np.setdiff1d(planned, got).tolist()
    foreign = np.setdiff1d(got, planned).tolist()
    if absent or foreign:
        missing, extra = first_ten(absent) or "none", first_ten(foreign) or "none"
        found = f"{len(got)} rows; missing {missing}; not planned {extra}"
    else:
        found = f"the {len(planned)} planned rows in another order or repeated ({len(got)} rows)"
    raise PlanMismatch(
        f"{where}, batch {step}",
        found,
        expected=f"exactly the {len(planned)} planned rows, in order",
        do="check for a sampler that your framework replaced or re-sharded",
    )


def _gather_ranks(rows: np.ndarray) -> np.ndarray:
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return rows
    everyone: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyone, rows)
    return np.concatenate(everyone)


def _read_header(path: Path) -> dict[str, Any]:
    file = path / "plan.json"
    try:
        header = json.loads(file.read_text(encoding="utf-8"))
        kind, version = header["format"], header["version"]
    except FileNotFoundError as error:
        raise InputError(
            path, "no plan.json in this folder", expected="a plan made by 'tonics plan'"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(
            file, f"not a plan header ({error!r})", do="build the plan again"
        ) from error
    if kind != "tonics-plan" or version != PLAN_VERSION:
        newer = isinstance(version, int) and version > PLAN_VERSION
        raise FormatError(
            file,
            f"format {kind!r} version {version!r}",
            expected=f"'tonics-plan' version {PLAN_VERSION}",
            do="install a newer tonics" if newer else "build the plan again with 'tonics plan'",
        )
    return header


def _write_arrow(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=max(1, table.num_rows))


def _map_arrow(path: Path, schema: pa.Schema) -> pa.Table:
    """Map the columns of ``schema``; others are ignored."""
    do = "build the plan again with 'tonics plan'"
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowException, OSError) as error:
        raise FormatError(path, f"cannot be read ({error})", do=do) from error
    for field in schema:
        if table.column_names.count(field.name) != 1:
            raise FormatError(path, f"no one column {field.name!r}", expected=str(field), do=do)
        kind = table.schema.field(field.name).type
        if kind != field.type:
            found = f"column {field.name!r} is {kind}"
            raise FormatError(path, found, expected=str(field.type), do=do)
    return table.select(schema.names)


def _one_array(table: pa.Table, name: str) -> pa.Array:
    """A column as one array, without a copy where it lies in one piece."""
    chunks = table.column(name).chunks
    return chunks[0] if len(chunks) == 1 else table.column(name).combine_chunks()
