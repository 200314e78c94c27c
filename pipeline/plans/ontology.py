"""``ontology``: every batch from one object's subtree, so that its pairs differ in context only.

In each pass a pair goes to a random one of its deepest objects, never to the rarest: the
rarest-object rule starves the frequent ones. A node that cannot fill a batch gives its pairs to its
parent, up to the root; what the root cannot place is joined by the pairs that name no object, in
batches without a node.
"""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ..config import Section
from .builder import Batched, Builder, join, shuffle
from .eligible import Eligible, Objects
from .fill import fill


class Params(Section):
    """Where in the tree batches are drawn: its leaves, or no deeper than a number of levels."""

    depth: Annotated[int, Field(ge=0)] | Literal["leaves"] = "leaves"


def build(
    eligible: Eligible, rows: np.ndarray, size: int, params: Params, rng: np.random.Generator
) -> Batched:
    """Draw an object for every row, then fill batches from the deepest nodes upward."""
    objects = eligible.objects
    assert objects is not None, "the ontology builder needs Eligible.objects"
    order = rng.permutation(rows)
    node = draw_objects(objects, order, rng)
    if params.depth != "leaves":
        node = lift(objects, node, params.depth)
    return shuffle(_fill_upward(eligible, objects, order, node, size, rng), rng)


def draw_objects(objects: Objects, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose one of each row's deepest objects: (n,) int32, -1 for a row that has none."""
    first, count = objects.starts[rows], np.diff(objects.starts)[rows]
    pick = first + np.floor(rng.random(len(rows)) * count).astype(np.int64)
    has = count > 0
    node = np.full(len(rows), -1, np.int32)
    node[has] = objects.members[pick[has]]
    return node


def lift(objects: Objects, node: np.ndarray, depth: int) -> np.ndarray:
    """Replace objects deeper than ``depth`` by their ancestor at that depth; -1 stays."""
    node = node.copy()
    while np.any(deep := (node >= 0) & (objects.depth[node] > depth)):
        node[deep] = objects.parent[node[deep]]
    return node


def _fill_upward(
    eligible: Eligible,
    objects: Objects,
    order: np.ndarray,
    node: np.ndarray,
    size: int,
    rng: np.random.Generator,
) -> Batched:
    by_node = np.argsort(node, kind="stable")
    bounds = np.searchsorted(node[by_node], np.arange(-1, len(objects.names) + 1))
    pools = [[order[by_node[a:b]]] for a, b in itertools.pairwise(bounds)]
    nowhere, pools = pools[0], pools[1:]
    parts = []
    for n in np.argsort(-objects.depth, kind="stable"):
        pool = np.concatenate(pools[n])
        batches, left = fill(eligible, rng.permutation(pool), size)
        parts.append(Batched(rows=batches, node=np.full(len(batches), n, np.int32), left=left[:0]))
        (pools[objects.parent[n]] if objects.parent[n] >= 0 else nowhere).append(left)
    batches, left = fill(eligible, rng.permutation(np.concatenate(nowhere)), size)
    parts.append(Batched(rows=batches, node=np.full(len(batches), -1, np.int32), left=left))
    return join(parts, size)


BUILDER = Builder(name="ontology", build=build, params=Params, needs=frozenset({"objects"}))
