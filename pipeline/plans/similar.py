"""``similar``: batches along a walk from each pair to its nearest unused neighbour.

Pairs of a pass are shuffled into windows of some batches, and a walk goes through each (the idea of
GRIT-VLP, ECCV 2022). The very nearest are passed over: they are likely to be true of the
other image too. Only one window is compared at a time, so memory is that of one window, and time
grows with the pairs.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from ..config import Section
from .builder import Builder, Groups, Offered, make_groups
from .eligible import Eligible
from .fill import fill
from .similarity import SCALE, Kind, kinds_of, nearest, seeds_at_once

_MOST = 16_384  # pairs in a window, however many batches: 1 GB of products
_USED, _SKIPPED = -16 * SCALE * SCALE, -4 * SCALE * SCALE  # below any product


class Params(Section):
    """How the walk goes.

    Ranks are counted among all eligible pairs. A window holds a share of those, and passes over
    that share of the nearest.
    """

    similarity: Kind = "text"
    skip: Annotated[int, Field(ge=0)] = 30  # the nearest that are passed over
    window: Annotated[int, Field(ge=1)] = 15  # batches in a window


def needs(params: Params) -> frozenset[str]:
    """What must be loaded."""
    return frozenset(kinds_of(params.similarity))


def build(eligible: Eligible, offered: Offered, params: Params, rng: np.random.Generator) -> Groups:
    """Walk through every window, and cut the walks, one after the other, into batches."""
    similarity, order = eligible.similarity(params.similarity), rng.permutation(offered.rows)
    most = max(offered.batch_size, min(params.window * offered.batch_size, _MOST))
    walks = []
    for window in np.array_split(order, -(-len(order) // most)):
        skip = round(params.skip * len(window) / len(eligible))
        walks.append(window[walk(similarity.take(window), skip)])
    return make_groups(*fill(eligible, np.concatenate(walks), offered.batch_size))


def walk(vectors: np.ndarray, skip: int) -> np.ndarray:
    """Go from the first to the nearest unused one but for the ``skip`` nearest, and so on.

    Args:
        vectors: (n, d) float32 whole numbers.

    Returns:
        (n,) int64 positions, each once. Ties go by position; where only skipped ones are left, all
        are tied.
    """
    products = vectors @ vectors.T
    if skip:
        _pass_over(products, skip)
    path, used = np.zeros(len(vectors), np.int64), np.zeros(len(vectors), np.float32)
    room = np.empty_like(used)
    for step in range(1, len(vectors)):
        here = path[step - 1]
        used[here] = _USED
        path[step] = np.add(products[here], used, out=room).argmax()
    return path


def _pass_over(products: np.ndarray, skip: int) -> None:
    """Mark the ``skip`` nearest of each vector."""
    at_once = seeds_at_once(len(products))
    for at in range(0, len(products), at_once):
        seeds = np.arange(at, min(at + at_once, len(products)))
        products[seeds[:, None], nearest(products[seeds], seeds, 0, skip)] = _SKIPPED


BUILDER = Builder(name="similar", build=build, params=Params, needs=needs, rotation=3)
