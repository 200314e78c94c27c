"""What a builder is: it cuts the rows of one pass into batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..config import Section
from .eligible import Eligible


@dataclass(frozen=True, slots=True, kw_only=True)
class Batched:
    """Batches of one pass.

    Attributes:
        rows: (k, B) int64 rows of ``Eligible``. node: (k,) int32 object of each batch, -1 for none.
        left: rows that found no place, to be tried in the next pass.
    """

    rows: np.ndarray
    node: np.ndarray
    left: np.ndarray


Build = Callable[[Eligible, np.ndarray, int, Any, np.random.Generator], Batched]


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """A row of the registry.

    Attributes:
        build: ``(eligible, rows, batch_size, params, rng)``; every row is used at most once.
        params: the settings it takes in ``tonics.toml``, checked before anything is built.
        needs: what must be loaded into ``Eligible``: ``objects``.
        version: raised when the same inputs would give other batches.
    """

    name: str
    build: Build
    params: type[Section]
    needs: frozenset[str] = frozenset()
    version: int = 1


def join(parts: list[Batched], size: int) -> Batched:
    """Put the batches of several calls together; what is left is what the last one left."""
    left = parts[-1].left if parts else np.empty(0, np.int64)
    if not parts:
        return Batched(rows=np.empty((0, size), np.int64), node=np.empty(0, np.int32), left=left)
    return Batched(
        rows=np.concatenate([p.rows for p in parts]),
        node=np.concatenate([p.node for p in parts]),
        left=left,
    )


def shuffle(batched: Batched, rng: np.random.Generator) -> Batched:
    """Bring batches into random order."""
    order = rng.permutation(len(batched.rows))
    return Batched(rows=batched.rows[order], node=batched.node[order], left=batched.left)
