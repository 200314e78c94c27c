"""``pools``: batches of every object, for a trainer that decides as it goes which to draw from.

The pool of an object holds batches of pairs that name it or anything below it, so that a pair is in
the pools of all objects above its own. Objects that hardly narrow the one above them (entity,
physical entity, object ...) have none: opening them would teach nothing and cost time. The header's
``schedule`` says how a trainer opens objects: ``tonics.train.adaptive``.
"""

from __future__ import annotations

import itertools
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from ...train.plan_files import Batches
from ..config import Section
from .builder import Builder, Groups, Offered, join_groups, make_groups
from .eligible import Eligible, Objects
from .fill import fill


class Params(Section):
    """Which objects have pools, and when a trainer opens what is below one."""

    narrows: Annotated[float, Field(gt=0, le=1)] = 0.9  # at most this share of what is above it
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5  # accuracy within batches that opens
    block: Annotated[int, Field(gt=0)] = 50  # steps between decisions
    root_share: Annotated[float, Field(ge=0, le=1)] = 0.3  # of steps that stay with any objects


def build(eligible: Eligible, offered: Offered, params: Params, rng: np.random.Generator) -> Groups:
    """Fill batches for every object from the rows of its subtree; the root has all rows."""
    rows, size = offered.rows, offered.batch_size
    objects = eligible.objects
    assert objects is not None, "pools need Eligible.objects"
    above = narrowing(objects, params.narrows)
    parts = [make_groups(fill(eligible, rng.permutation(rows), size)[0], rows[:0], node=0)]
    for node, members in _subtrees(objects, rows, above):
        batches, left = fill(eligible, rng.permutation(members), size)
        parts.append(make_groups(batches, left, node=node, place=node))
    return join_groups(parts, size, rows[:0])


def narrowing(objects: Objects, share: float) -> np.ndarray:
    """For each object the nearest one above it that has a pool: (n,) int32.

    -1 for the root; -2 for an object without a pool, which hardly narrows the one above it.
    """
    above = np.full(len(objects.names), -1, np.int32)
    for node in range(1, len(objects.names)):
        over = _kept(objects, above, int(objects.parent[node]))
        narrow = objects.named[node] <= share * objects.named[over]
        above[node] = over if narrow else -2
    return above


def _kept(objects: Objects, above: np.ndarray, node: int) -> int:
    """The node itself or the nearest one above it that has a pool."""
    while above[node] == -2:
        node = int(objects.parent[node])
    return node


def _subtrees(
    objects: Objects, rows: np.ndarray, above: np.ndarray
) -> itertools.chain[tuple[int, np.ndarray]]:
    """Objects below the root that have a pool, each with the rows that name it or one below it."""
    kept = np.array([_kept(objects, above, n) for n in range(len(above))])
    at, named = objects.mentions(rows)
    node, row = kept[named], rows[at]
    found = [np.empty(0, np.int64)]
    while len(node):
        below_root = node > 0
        node, row = node[below_root], row[below_root]
        found.append(node.astype(np.int64) * (1 << 32) + row)
        node = above[node]
    keys = np.unique(np.concatenate(found))
    nodes, starts = np.unique(keys >> 32, return_index=True)
    members = np.split(keys & ((1 << 32) - 1), starts[1:])
    return itertools.chain(zip(nodes.tolist(), members, strict=False))


def schedule(objects: Objects, batches: Batches, params: Section, steps: int) -> dict[str, Any]:
    """The header's ``schedule``: the opening rule, and which pool lies above which.

    Args:
        steps: how long a run is meant to be.
    """
    assert isinstance(params, Params), "the settings of pools"
    above = narrowing(objects, params.narrows)
    filled = set(np.unique(batches.node).tolist())
    nodes = sorted(filled)
    parents = []
    for node in nodes:
        parent = int(above[node])
        while parent > 0 and parent not in filled:
            parent = int(above[parent])
        parents.append(parent)
    rule = params.model_dump(mode="json", exclude={"narrows"})
    return {"kind": "adaptive", "steps": steps, **rule, "pools": nodes, "parents": parents}


BUILDER = Builder(
    name="pools",
    build=build,
    params=Params,
    needs=lambda params: frozenset({"objects"}),
    repeats=True,
    pools=True,
)
