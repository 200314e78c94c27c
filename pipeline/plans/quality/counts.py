"""What batches hold, counted: how often each pair, how many objects, and how deep in the tree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ....train.plan_files import Batches
from ..eligible import Objects

NO_OBJECT = "none"
_BATCHES = 1024  # looked at at once


def seen(known: np.ndarray, pairs: np.ndarray) -> dict[str, int]:
    """Count the pairs that batches hold never, once and more than once.

    Args:
        known: (n,) eligible pair numbers, increasing. pairs: those of batches, any shape.
    """
    times = np.bincount(pairs.reshape(-1), minlength=int(known[-1]) + 1)[known]
    never, once = np.count_nonzero(times == 0), np.count_nonzero(times == 1)
    return {
        "seen_never": int(never),
        "seen_once": int(once),
        "seen_more": int(len(known) - never - once),
    }


def reasons(remainder: pa.Table) -> dict[str, int]:
    """Count what epochs left out, by reason."""
    found = pc.value_counts(remainder.column("reason")).to_pylist()
    return {r["values"]: r["counts"] for r in sorted(found, key=lambda r: r["values"])}


def objects_met(objects: Objects, rows: np.ndarray) -> np.ndarray:
    """Count the different objects that the pairs of each batch name, the deepest only.

    Args:
        rows: (k, B) rows of ``Eligible``.

    Returns:
        (k,) int64.
    """
    size, found = rows.shape[1], np.zeros(len(rows), np.int64)
    for at in range(0, len(rows), _BATCHES):
        flat = rows[at : at + _BATCHES].reshape(-1)
        place, named = objects.mentions(flat)
        met = np.zeros((len(flat) // size, len(objects.names)), bool)
        met[place // size, named] = True
        found[at : at + len(met)] = met.sum(axis=1)
    return found


def depths(objects: Objects, batches: Batches, which: np.ndarray) -> dict[str, dict[str, Any]]:
    """Share out batches, and groups, by the depth of their object; the root's is 0.

    Args:
        which: (n,) bool, the batches that count.

    Returns:
        ``batches`` and ``groups``, each share by depth, ``none`` where there is no object. Batches
        that consist of groups count there alone; what there is none of is left out.
    """
    lengths, nodes = group_nodes(batches)
    parts = {
        "batches": batches.node[which & (lengths == 0)],
        "groups": nodes[np.repeat(which, lengths)],
    }
    return {kind: _shares(objects, node) for kind, node in parts.items() if len(node)}


def group_nodes(batches: Batches) -> tuple[np.ndarray, np.ndarray]:
    """How many groups each batch has (n,) int64, and the node of every group, one after another."""
    if batches.groups is None:
        return np.zeros(len(batches.pairs), np.int64), np.empty(0, np.int32)
    lengths = batches.groups.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    return lengths, batches.groups.flatten().to_numpy(zero_copy_only=False)


def _shares(objects: Objects, node: np.ndarray) -> dict[str, float]:
    depth = np.where(node >= 0, objects.depth[node], -1)
    values, counts = np.unique(depth, return_counts=True)
    order = np.argsort(np.where(values < 0, np.iinfo(np.int32).max, values))
    return {
        str(values[i]) if values[i] >= 0 else NO_OBJECT: round(float(counts[i]) / len(node), 4)
        for i in order
    }
