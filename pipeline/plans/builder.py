"""What a builder is: it puts the rows of one pass into groups of pairs that belong together.

A group is a whole batch for most builders; several small groups make one for others. Whatever its
size, ``deal`` puts groups into batches, anew in every epoch, so that more epochs cost a shuffle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..config import Section
from .eligible import Eligible


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Groups of one pass, all of K pairs, without two equal images or captions in one.

    Attributes:
        rows: (g, K) int64 rows of ``Eligible``. node: (g,) int32 object of each group, -1: none.
        place: (g,) int64 number of what is alike: groups of one place go to different batches.
        left: rows that found no group, to be tried in the next pass.
    """

    rows: np.ndarray
    node: np.ndarray
    place: np.ndarray
    left: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, order: np.ndarray) -> Groups:
        """The same with some of the groups, in another order."""
        return Groups(
            rows=self.rows[order], node=self.node[order], place=self.place[order], left=self.left
        )


NO_ROWS = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """What a pass offers to a builder.

    Attributes:
        rows: (n,) int64 rows of ``Eligible``: one of every image, and what earlier passes left.
        batch_size: B.
        later: rows of later passes of the same images, any of which one that ``swaps`` may take in
            place of the row of its image; empty for others.
    """

    rows: np.ndarray
    batch_size: int
    later: np.ndarray = field(default_factory=lambda: NO_ROWS)


Build = Callable[[Eligible, Offered, Any, np.random.Generator], Groups]


def nothing_needed(params: Any) -> frozenset[str]:
    """The needs of a builder that looks at no more than images and captions."""
    return frozenset()


def whole_batch(params: Any, batch_size: int) -> int:
    """The group size of a builder whose groups are batches."""
    return batch_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """A row of the registry.

    Attributes:
        build: ``(eligible, offered, params, rng)``; rows are used at most once, but where
            ``repeats`` says otherwise.
        params: the settings it takes in ``tonics.toml``, checked before anything is built.
        needs: what must be loaded into ``Eligible`` for some settings: ``objects``, ``text``,
            ``image``.
        likes: what is used where the plan has it, such as ``text``.
        group_size: pairs in a group, for some settings and a batch size.
        rotation: how many different passes are built before epochs take them in turn, where the
            phase does not say; 0: every epoch gets its own.
        repeats: whether a pass may use a pair several times and leave others out.
        pools: whether the batches are pools for a trainer that decides, built once for all epochs.
        swaps: whether a pass may use another caption of an image than the one it is offered, of
            ``Offered.later``. No image is used twice in a pass.
        version: raised when the same inputs would give other groups.
    """

    name: str
    build: Build
    params: type[Section]
    needs: Callable[[Any], frozenset[str]] = nothing_needed
    likes: frozenset[str] = frozenset()
    group_size: Callable[[Any, int], int] = whole_batch
    rotation: int = 0
    repeats: bool = False
    pools: bool = False
    swaps: bool = False
    version: int = 1


def make_groups(rows: np.ndarray, left: np.ndarray, *, node: int = -1, place: int = 0) -> Groups:
    """Groups that are all of one object and place."""
    count = len(rows)
    return Groups(
        rows=rows,
        node=np.full(count, node, np.int32),
        place=np.full(count, place, np.int64),
        left=left,
    )


def join_groups(parts: Sequence[Groups], size: int, left: np.ndarray) -> Groups:
    """Put the groups of several calls together.

    Args:
        size: pairs in a group. left: what the whole leaves; that of the parts is dropped.
    """
    if not parts:
        return make_groups(np.empty((0, size), np.int64), left)
    return Groups(
        rows=np.concatenate([p.rows for p in parts]),
        node=np.concatenate([p.node for p in parts]),
        place=np.concatenate([p.place for p in parts]),
        left=left,
    )
