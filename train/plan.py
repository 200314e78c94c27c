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

from ..artifact import hash_bytes, hash_json, write_json
from ..errors import FormatError, InputError, PlanMismatch, first_ten

PLAN_VERSION = 1

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
    """The plan's identity: a hash of the header, which holds the hash of the batches."""
    return hash_json({key: value for key, value in header.items() if key != "plan_id"})


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
    full = {
        "format": "tonics-plan",
        "version": PLAN_VERSION,
        **header,
        "batches_hash": batches.content_hash(),
    }
    full = {"plan_id": plan_id_of(full), **full}
    _write_arrow(folder / "batches.arrow", batches.table())
    _write_arrow(folder / "pairs.arrow", pairs.select(PAIRS_SCHEMA.names).cast(PAIRS_SCHEMA))
    _write_arrow(folder / "remainder.arrow", remainder.cast(REMAINDER_SCHEMA))
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
    """A plan on disk, memory-mapped: opening costs milliseconds, a batch microseconds.

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
        table = _map_arrow(self.path / "batches.arrow")
        if table.schema != batches_schema(self.batch_size):
            raise FormatError(
                self.path / "batches.arrow",
                f"columns are {table.schema.to_string()!r}",
                expected=f"those of version {PLAN_VERSION} with batches of {self.batch_size}",
                do="build the plan again with 'tonics plan'",
            )
        columns = [_one_array(table, name) for name in ("epoch", "phase", "node")]
        flat = table.column("pairs").combine_chunks().flatten().to_numpy(zero_copy_only=True)
        epoch, phase, node = (c.to_numpy(zero_copy_only=True) for c in columns)
        return Batches(epoch=epoch, phase=phase, node=node, pairs=flat.reshape(-1, self.batch_size))

    def __len__(self) -> int:
        return len(self.batches.pairs)

    def __repr__(self) -> str:
        return f"Plan({str(self.path)!r}, {len(self)} batches of {self.batch_size})"

    def batch(self, step: int) -> np.ndarray:
        """The (B,) int64 pair numbers of a global batch, in order."""
        return self.batches.pairs[step]

    def epoch_of(self, step: int) -> int:
        """The epoch a batch belongs to, from 0."""
        return int(self.batches.epoch[step])

    def phase_of(self, step: int) -> int:
        """The phase a batch belongs to, an index into ``phases``."""
        return int(self.batches.phase[step])

    def node_of(self, step: int) -> str:
        """The object all pairs of a batch share, as a synset name; empty where there is none."""
        node = int(self.batches.node[step])
        return self.nodes[node] if node >= 0 else ""

    @property
    def phases(self) -> list[Phase]:
        """The phases of the curriculum, in order."""
        return [Phase(**phase) for phase in self.header["phases"]]

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
            InputError: ``world`` does not divide the batch, or would cut a sub-block in two.
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
        return _map_arrow(self.path / "pairs.arrow")

    @cached_property
    def remainder(self) -> pa.Table:
        """What an epoch could not place, with the reason."""
        return _map_arrow(self.path / "remainder.arrow")

    @cached_property
    def quality(self) -> dict[str, Any]:
        """The similarity report made when the plan was built."""
        return json.loads((self.path / "quality.json").read_text(encoding="utf-8"))

    @cached_property
    def _pair_numbers(self) -> np.ndarray:
        return _one_array(self.pairs, "pair").to_numpy()

    def rows(self, pairs: np.ndarray) -> np.ndarray:
        """Where pair numbers stand in ``self.pairs``.

        Raises:
            PlanMismatch: a number is not one of the plan's pairs.
        """
        known = self._pair_numbers
        rows = np.searchsorted(known, pairs)
        found = known[np.minimum(rows, len(known) - 1)] == pairs
        if not np.all(found):
            missing = np.asarray(pairs)[~found].tolist()
            raise PlanMismatch(self.path, f"pairs {first_ten(missing)} are not in the plan")
        return rows

    def images_of(self, pairs: np.ndarray) -> np.ndarray:
        """(n,) int64 image numbers of pairs."""
        return self.pairs.column("image").take(pa.array(self.rows(pairs))).to_numpy()

    def captions_of(self, pairs: np.ndarray) -> list[str]:
        """The captions of pairs."""
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
        used = np.unique(self.batches.pairs)
        used_keys = self.pairs.column("pair_key").take(pa.array(self.rows(used))).to_pylist()
        missing = [key for key in used_keys if key not in row_of]
        if missing:
            raise PlanMismatch(
                self.path,
                f"{len(missing)} planned pairs have no row of yours: {first_ten(missing)}",
                expected="every planned pair_key ('image_id#k') among your keys",
                do="align the keys of the dataset the plan was built for",
            )
        rows = np.fromiter((row_of[key] for key in used_keys), np.int64, len(used_keys))
        return AlignedPlan(plan=self, pairs=used, rows=rows)

    def audit(self, step: int, pairs: Sequence[int] | np.ndarray) -> None:
        """Check that the ranks of a trainer together received exactly the planned batch.

        Collects what every rank passes when ``torch.distributed`` is initialised: all must call it.

        Raises:
            PlanMismatch: the batch of this step is not the planned one.
        """
        audit_batch(str(self.path), step, self.batch(step), pairs)

    def verify(self) -> list[str]:
        """Check the plan's hashes; return what is wrong, one line each."""
        problems = []
        if self.batches.content_hash() != self.header["batches_hash"]:
            problems.append(
                f"{self.path / 'batches.arrow'} does not hold the batches it was built with"
            )
        if plan_id_of(self.header) != self.plan_id:
            problems.append(
                f"{self.path / 'plan.json'} was altered: plan_id does not fit the header"
            )
        return problems


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignedPlan:
    """A plan in the row numbers of somebody's own dataset; see ``Plan.align``.

    Attributes:
        pairs: (n,) int64 the pair numbers the plan uses, increasing.
        rows: (n,) int64 the dataset row of each.
    """

    plan: Plan
    pairs: np.ndarray
    rows: np.ndarray

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
        return self.rows[np.searchsorted(self.pairs, pairs)]


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


def _map_arrow(path: Path) -> pa.Table:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        do = "build the plan again with 'tonics plan'"
        raise FormatError(path, f"cannot be read ({error})", do=do) from error


def _one_array(table: pa.Table, name: str) -> pa.Array:
    chunks = table.column(name).chunks
    return chunks[0] if chunks else pa.array([], table.schema.field(name).type)
