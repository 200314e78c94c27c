"""The files of a plan, as they are written and read: one header, three Arrow files, one report.

``plan.json`` is the header, ``batches.arrow`` holds integers only, ``pairs.arrow`` names the pairs,
``remainder.arrow`` says what was left out and why, ``quality.json`` holds similarities and is no
part of the plan's identity. Needs numpy and pyarrow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..artifact import hash_bytes, hash_json, hash_rows, write_json
from ..errors import FormatError, InputError

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


GROUPS = pa.field("groups", pa.list_(pa.int32()))  # absent in plans of before 1.0


def batches_schema(batch_size: int) -> pa.Schema:
    """Columns of ``batches.arrow`` that every plan has; the ``GROUPS`` come after them.

    ``node`` and ``groups`` index the header's ``nodes``, -1 for none. A batch with g groups
    consists of g equally long runs of pairs that belong together, one after the other.
    """
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
        groups: n lists of int32, the node of each group, -1 where it has none; empty where a batch
            is no set of groups. None: no batch is.
    """

    epoch: np.ndarray
    phase: np.ndarray
    node: np.ndarray
    pairs: np.ndarray
    groups: pa.ListArray | None = None

    @classmethod
    def join(cls, parts: Sequence[Batches]) -> Batches:
        """The batches of all parts, in their order."""
        names = ("epoch", "phase", "node", "pairs")
        arrays = {name: np.concatenate([getattr(p, name) for p in parts]) for name in names}
        groups = pa.concat_arrays([p._lists() for p in parts])
        return cls(**arrays, groups=groups)

    def take(self, order: np.ndarray) -> Batches:
        """Some of the batches, in another order."""
        return Batches(
            epoch=self.epoch[order],
            phase=self.phase[order],
            node=self.node[order],
            pairs=self.pairs[order],
            groups=self._lists().take(pa.array(order)),
        )

    def _lists(self) -> pa.ListArray:
        if self.groups is not None:
            return self.groups
        return pa.array([[]] * len(self.pairs), GROUPS.type)

    def table(self) -> pa.Table:
        """The rows of ``batches.arrow``."""
        count, size = self.pairs.shape
        flat = pa.array(np.ascontiguousarray(self.pairs, np.int64).reshape(-1))
        columns = [np.arange(count), self.epoch, self.phase, self.node]
        schema = batches_schema(size)
        arrays = [pa.array(c, field.type) for c, field in zip(columns, schema, strict=False)]
        arrays += [pa.FixedSizeListArray.from_arrays(flat, size), self._lists()]
        return pa.table(arrays, schema=schema.append(GROUPS))

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

    def groups_hash(self) -> str:
        """Hash the nodes of the groups; empty when no batch has groups."""
        if self.groups is None or not len(self.groups.values):
            return ""
        counts = self.groups.value_lengths().to_numpy(zero_copy_only=False)
        nodes = self.groups.flatten().to_numpy()
        parts = [np.ascontiguousarray(c, "<i4").data.cast("B") for c in (counts, nodes)]
        return hash_json([hash_bytes(part) for part in parts])


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
        "groups_hash": batches.groups_hash(),
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


def read_header(path: Path) -> dict[str, Any]:
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


def map_arrow(path: Path, schema: pa.Schema, optional: Sequence[pa.Field] = ()) -> pa.Table:
    """Map the columns of ``schema``, and the ``optional`` ones it has; others are ignored."""
    do = "build the plan again with 'tonics plan'"
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowException, OSError) as error:
        raise FormatError(path, f"cannot be read ({error})", do=do) from error
    fields = [*schema, *(f for f in optional if f.name in table.column_names)]
    for field in fields:
        if table.column_names.count(field.name) != 1:
            raise FormatError(path, f"no one column {field.name!r}", expected=str(field), do=do)
        kind = table.schema.field(field.name).type
        if kind != field.type:
            found = f"column {field.name!r} is {kind}"
            raise FormatError(path, found, expected=str(field.type), do=do)
    return table.select([field.name for field in fields])


def one_array(table: pa.Table, name: str) -> pa.Array:
    """A column as one array, without a copy where it lies in one piece."""
    chunks = table.column(name).chunks
    return chunks[0] if len(chunks) == 1 else table.column(name).combine_chunks()
