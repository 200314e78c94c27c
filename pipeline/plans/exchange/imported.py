"""Batches that somebody else decided, put to the same rules as those of our builders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ....errors import InputError, first_ten
from ....train.plan_files import REMAINDER_SCHEMA, Batches
from ...stage import Reject
from ..eligible import Eligible
from .listed import Listed

# Raised when the same table would give another plan.
IMPORT_VERSION = 1
_BLOCK = 1 << 22  # pairs looked at at once
_UNUSED, _LEFT_OUT = "not in the imported batches", "in a batch that was left out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A table's batches as a plan's, the pairs it never uses, and the batches left out of it."""

    batches: Batches
    remainder: pa.Table
    left_out: list[Reject]


def place_batches(
    where: object,
    listed: Listed,
    eligible: Eligible,
    pairs: pa.Table,
    split: str,
    *,
    drop_conflicts: bool,
) -> Placed:
    """Turn a table's batches into those of a plan.

    Args:
        where: the file, as messages name it. pairs: all of the dataset, of which ``eligible`` may
            be used. drop_conflicts: leave out batches in which pairs conflict.

    Raises:
        InputError: a pair is not of this dataset, not eligible, of another image, or twice in a
            batch; pairs of a batch conflict; no batch is left.
    """
    of_key = _eligible_rows(where, listed, eligible, pairs, split)
    _check_image_ids(where, listed, eligible, of_key)
    _check_repeats(where, listed)
    conflicts = _conflicts(listed, eligible, of_key)
    if conflicts and not drop_conflicts:
        raise _refusal(where, listed, conflicts)
    kept = np.setdiff1d(np.arange(len(listed)), list(conflicts))
    if not len(kept):
        found = f"all {len(listed):,} batches hold an image or a caption twice"
        raise InputError(where, found, expected="batches without equal images or captions")
    rows = of_key[listed.key[kept]]
    epoch = np.zeros(len(listed), np.int32) if listed.epoch is None else listed.epoch
    batches = Batches(
        epoch=epoch[kept],
        phase=np.zeros(len(kept), np.int16),
        node=np.full(len(kept), -1, np.int32),
        pairs=eligible.pair[rows],
    )
    return Placed(
        batches=batches,
        remainder=_remainder(eligible, rows, of_key),
        left_out=[
            Reject(where=f"batch {listed.batch[i]}", reason=c.reason, detail=c.detail)
            for i, c in conflicts.items()
        ],
    )


def _eligible_rows(
    where: object, listed: Listed, eligible: Eligible, pairs: pa.Table, split: str
) -> np.ndarray:
    """(k,) int32 row of ``eligible`` of each key.

    Raises:
        InputError: a key is not of this dataset, or its pair not eligible.
    """
    rows = pc.index_in(listed.keys, value_set=eligible.table.column("pair_key"))
    if rows.null_count:
        missing = listed.keys.filter(pc.is_null(rows))
        raise _not_eligible(where, missing, pairs, split)
    return rows.to_numpy()


def _not_eligible(where: object, keys: pa.Array, pairs: pa.Table, split: str) -> InputError:
    """Say why pairs may not be used: unknown ones first, then held-out ones."""
    at = pc.index_in(keys, value_set=pairs.column("pair_key"))
    unknown = keys.filter(pc.is_null(at)).to_pylist()
    if unknown:
        example = repr(pairs.column("pair_key")[0].as_py()) if pairs.num_rows else "none: no pairs"
        return InputError(
            where,
            f"{len(unknown):,} pair_keys that this dataset has not: {first_ten(unknown)}",
            expected=f"its own, such as {example}",
            do="import batches of this dataset's pairs",
        )
    splits = pairs.column("split").take(at).to_pylist()
    other = [f"{k} ({s or 'withdrawn'})" for k, s in zip(keys.to_pylist(), splits, strict=True)]
    other = [text for text, s in zip(other, splits, strict=True) if s != split]
    if other:
        found = f"{len(other):,} pairs that are not of split {split!r}: {first_ten(other)}"
        do = "take them out: a held-out pair may not be trained on"
        return InputError(where, found, expected=f"pairs of split {split!r}", do=do)
    found = f"{len(keys):,} pairs whose image has no features: {first_ten(keys.to_pylist())}"
    do = "take them out, or see 'tonics show rejected extract'"
    return InputError(where, found, expected="images of the plan's feature store", do=do)


def _check_image_ids(where: object, listed: Listed, eligible: Eligible, of_key: np.ndarray) -> None:
    if listed.image_id is None:
        return
    ours = eligible.table.column("image_id").take(pa.array(of_key)).combine_chunks()
    other = np.flatnonzero(pc.not_equal(ours, listed.image_id))
    if len(other):
        shown = [f"{listed.keys[i]} with {listed.image_id[i]}" for i in other.tolist()]
        found = f"{len(other):,} pair_keys with the image_id of another image: {first_ten(shown)}"
        i = int(other[0])
        expected = f"{ours[i].as_py()!r} with {listed.keys[i].as_py()!r}"
        do = "the file is of another dataset, or its columns were mixed up"
        raise InputError(where, found, expected=expected, do=do)


def _check_repeats(where: object, listed: Listed) -> None:
    again = np.flatnonzero(_repeats(listed.key))
    if len(again):
        shown = [f"batch {listed.batch[i]}: {_twins(listed, listed.key[i], i)}" for i in again[:10]]
        found = f"{len(again):,} batches with a pair twice ({'; '.join(shown)})"
        raise InputError(where, found, expected="a pair once a batch", do="take one of the two out")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Conflict:
    """Why a batch may not be: two of its pairs are each other's false negatives."""

    reason: str
    detail: str


def _conflicts(listed: Listed, eligible: Eligible, of_key: np.ndarray) -> dict[int, _Conflict]:
    """The batches with two pairs of one image, or two equal captions."""
    found: dict[int, _Conflict] = {}
    for reason, groups in (
        ("batch with an image twice", eligible.image[of_key]),
        ("batch with a caption twice", eligible.caption[of_key]),
    ):
        for i in np.flatnonzero(_repeats(listed.key, groups)).tolist():
            detail = _twins(listed, groups[listed.key[i]], i)
            found.setdefault(i, _Conflict(reason=reason, detail=detail))
    return dict(sorted(found.items()))


def _repeats(key: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """(n,) whether a row of ``key`` holds a number, or two of one group, twice."""
    return np.concatenate([_repeat(part, groups) for part in _blocks(key)])


def _repeat(key: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    ordered = np.sort(key if groups is None else groups[key], axis=1)
    return np.any(ordered[:, 1:] == ordered[:, :-1], axis=1)


def _blocks(key: np.ndarray) -> Iterator[np.ndarray]:
    step = max(1, _BLOCK // key.shape[1])
    return (key[start : start + step] for start in range(0, len(key), step))


def _twins(listed: Listed, values: np.ndarray, number: int) -> str:
    """The first two pairs of a batch with equal values."""
    order = np.argsort(values, kind="stable")
    same = np.flatnonzero(values[order][1:] == values[order][:-1])
    first = same[np.argmin(order[same])]
    keys = listed.keys.take(pa.array(listed.key[number][order[first : first + 2]]))
    return " and ".join(keys.to_pylist())


def _refusal(where: object, listed: Listed, conflicts: dict[int, _Conflict]) -> InputError:
    images = sum("image" in c.reason for c in conflicts.values())
    shown = [f"{listed.batch[i]}: {c.detail}" for i, c in list(conflicts.items())[:10]]
    more = f"; and {len(conflicts) - 10:,} more" if len(conflicts) > 10 else ""
    return InputError(
        where,
        f"{len(conflicts):,} of {len(listed):,} batches hold an image ({images:,}) or a caption "
        f"({len(conflicts) - images:,}) twice: batch {'; '.join(shown)}{more}",
        expected="batches without trivial false negatives",
        do="mend them, or leave those batches out with --drop-conflicts",
    )


def _remainder(eligible: Eligible, rows: np.ndarray, of_key: np.ndarray) -> pa.Table:
    """The pairs that no batch uses."""
    unused, listed = np.ones(len(eligible), bool), np.zeros(len(eligible), bool)
    unused[rows] = False
    listed[of_key] = True
    left = np.flatnonzero(unused)
    columns = {
        "epoch": np.zeros(len(left), np.int32),
        "phase": np.zeros(len(left), np.int16),
        "pair": eligible.pair[left],
        "reason": np.where(listed[left], _LEFT_OUT, _UNUSED).tolist(),
    }
    return pa.table(columns, schema=REMAINDER_SCHEMA)
