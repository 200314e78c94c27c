"""The plan: a list of global minibatches decided beforehand, in a folder any trainer can read.

Reading needs numpy and pyarrow; what lies in the folder: ``plan_files``. The whole state of a run
is one integer, the next batch.

    plan = Plan("my-dataset/plans/tonics")
    for step in range(start, len(plan)):
        pairs = plan.rank_rows(step, rank, world)  # this rank's rows of the global batch
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..artifact import hash_rows
from ..errors import FormatError, InputError, PlanMismatch, TonicsError, first_ten
from .alignment import AlignedPlan, audit_batch
from .plan_files import (
    GROUPS,
    PAIRS_SCHEMA,
    REMAINDER_SCHEMA,
    Batches,
    batches_schema,
    map_arrow,
    one_array,
    plan_id_of,
    read_header,
)

_BLOCK = 1 << 20  # pair numbers looked up at once


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
        self.header = read_header(self.path)
        self.plan_id: str = self.header["plan_id"]
        self.batch_size: int = self.header["batch_size"]
        self.sub_block: int = self.header["sub_block"]
        self.inputs: dict[str, str] = self.header["inputs"]
        self.nodes: list[str] = self.header["nodes"]
        self.batches = self._read_batches()

    def _read_batches(self) -> Batches:
        path = self.path / "batches.arrow"
        table = map_arrow(path, batches_schema(self.batch_size), optional=(GROUPS,))
        try:
            groups = one_array(table, GROUPS.name) if GROUPS.name in table.column_names else None
            if groups is not None and (groups.null_count or groups.flatten().null_count):
                raise ValueError("a null among the groups")
            names = ("epoch", "phase", "node")
            columns = {n: one_array(table, n).to_numpy(zero_copy_only=True) for n in names}
            flat = one_array(table, "pairs").flatten().to_numpy(zero_copy_only=True)
            pairs = flat.reshape(-1, self.batch_size)
            return Batches(pairs=pairs, groups=groups, **columns)
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

    def groups_of(self, step: int) -> list[str]:
        """The object of each group of a batch, as synset names, empty where there is none.

        A batch with g groups consists of g equally long runs of pairs that belong together; an
        empty list where it is no set of groups.
        """
        step = self._checked(step)
        nodes = self.batches.groups[step].as_py() if self.batches.groups is not None else []
        return [self.nodes[node] if node >= 0 else "" for node in nodes]

    @property
    def phases(self) -> list[Phase]:
        """The phases of the curriculum, in order."""
        return [Phase(**{k: p[k] for k in Phase._fields}) for p in self.header["phases"]]

    @property
    def schedule(self) -> Mapping[str, Any] | None:
        """The rule of an adaptive plan, whose batches are pools; None for a list of batches."""
        found: Mapping[str, Any] | None = self.header.get("schedule")
        return found

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
        return map_arrow(self.path / "pairs.arrow", PAIRS_SCHEMA)

    @cached_property
    def remainder(self) -> pa.Table:
        """What an epoch could not place, with the reason."""
        return map_arrow(self.path / "remainder.arrow", REMAINDER_SCHEMA)

    @cached_property
    def quality(self) -> dict[str, Any]:
        """The similarity report made when the plan was built."""
        return json.loads((self.path / "quality.json").read_text(encoding="utf-8"))

    @cached_property
    def _places(self) -> np.ndarray:
        """(largest pair number + 1,) int32: 1 + the row of each pair number, 0 for none.

        Zeros are not touched until written, so that gaps in the numbers cost little memory.
        """
        known = one_array(self.pairs, "pair").to_numpy()
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
    def used_rows(self) -> np.ndarray:
        """Rows of ``self.pairs`` that some batch uses, increasing.

        Marked in a table: to sort all batches of a long plan would take minutes.
        """
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
        used = pa.array(self.used_rows)
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

    def require(self, *, features: str = "", pairs: str = "") -> None:
        """Refuse the plan where it was built for other data.

        Args:
            features: ``content_hash`` of the feature store at hand. pairs: hash of the eligible
                pairs. What is empty, or not in the plan's ``inputs``, is not compared.

        Raises:
            PlanMismatch: the plan's own hash is another; both are given.
        """
        data = {"features": ("another feature store", features), "pairs": ("other pairs", pairs)}
        for key, (other, found) in data.items():
            planned = self.inputs.get(key, "")
            if found and planned and found != planned:
                raise PlanMismatch(
                    self.path,
                    f"plan {self.plan_id[:8]} was built for {other}: {key} {planned[:8]}",
                    expected=f"{found[:8]}, the {key} at hand",
                    do="build it anew with 'tonics plan', or open what it was built for",
                )

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
            "batches.arrow": ("batches_hash", self._hash_of_batches),
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

    def _hash_of_batches(self) -> str:
        """The batches' hash; another where their groups are not those of the header."""
        batches = self._read_batches()
        same_groups = batches.groups_hash() == self.header.get("groups_hash", "")
        return batches.content_hash() if same_groups else "other groups"

    def _hash_of(self, name: str, schema: pa.Schema) -> str:
        return hash_rows(map_arrow(self.path / name, schema), schema.names)

    def _verify_header(self) -> list[str]:
        try:
            header = read_header(self.path)
        except TonicsError as error:
            return [str(error)]
        if plan_id_of(header) == header.get("plan_id") == self.plan_id:
            return []
        return [f"{self.path / 'plan.json'} was altered: plan_id does not fit the header"]
