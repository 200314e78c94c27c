"""``ontology``: every batch from one object's subtree, so that its pairs differ in context only.

In each pass a pair goes to a random one of its deepest objects. A node that cannot fill a batch
gives its pairs to its parent, up to the root; what the root cannot place is joined by the pairs
that name no object, in batches without a node. Where there are caption vectors, a node of many
batches is first split into parts that are alike.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ..config import Section
from .builder import Builder, Groups, Offered, join_groups, make_groups
from .eligible import Eligible
from .fill import fill
from .nodes import Pools, draw_objects, find_top, lift, lift_to_middle
from .split import split


class Params(Section):
    """Where in the tree batches are drawn.

    ``leaves``, no deeper than a number of levels, or ``middle``: the highest objects that at most a
    third of the mentions name. Pairs that name nothing ``under`` come in batches of any objects.
    """

    depth: Annotated[int, Field(ge=0)] | Literal["leaves", "middle"] = "leaves"
    under: str = ""  # only objects at or below this one: animal.n.01, or animal
    split: Annotated[int, Field(ge=0)] = (
        16  # batches of a pass a node has before it is split; 0: never
    )


def build(eligible: Eligible, offered: Offered, params: Params, rng: np.random.Generator) -> Groups:
    """Draw an object for every row, then fill batches from the deepest nodes upward."""
    objects = eligible.objects
    assert objects is not None, "the ontology builder needs Eligible.objects"
    size = offered.batch_size
    order = rng.permutation(offered.rows)
    top = find_top(objects, params.under)
    node = draw_objects(objects, order, rng, top)
    if params.depth == "middle":
        node = lift_to_middle(objects, node)
    elif params.depth != "leaves":
        node = lift(objects, node, params.depth)
    pools, parts = Pools(objects, order, node, top), []
    for number in pools.upward():
        found, left = [], []
        for part in _split(eligible, pools.take(number), params.split * size, size, rng):
            batches, rest = fill(eligible, rng.permutation(part), size)
            found.append(batches)
            left.append(rest)
        parts.append(make_groups(np.concatenate(found), left[0][:0], node=number, place=number))
        pools.pass_up(number, np.concatenate(left))
    batches, rest = fill(eligible, rng.permutation(pools.nowhere()), size)
    parts.append(make_groups(batches, rest))
    return join_groups(parts, size, rest)


def _split(
    eligible: Eligible, pool: np.ndarray, most: int, size: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Split a head node by caption similarity, where there are caption vectors."""
    if not most or len(pool) <= most or "text" not in eligible.vectors:
        return [pool]
    return split(eligible.similarity("text"), pool, most, rng, unit=size)


BUILDER = Builder(
    name="ontology",
    build=build,
    params=Params,
    needs=lambda params: frozenset({"objects"}),
    likes=frozenset({"text"}),
    version=2,
)
