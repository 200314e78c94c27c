"""Groups of like pairs the usual way: one global neighbour graph, then greedy grouping or METIS.

The graph is faiss's: an inverted file over all vectors (inner product), of which each query looks
at ``probes`` lists. From the neighbours of some ranks, groups of K are made either greedily, as
mined negatives are usually batched, or by METIS (arXiv 2505.11293), whose parts are then brought to
exactly K. Neither heeds what must not meet in a batch, which is less than a plan does.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import numpy as np

_QUERIES = 1 << 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """How the neighbours are looked for: the vectors' lists, and how many of them are read."""

    lists: int
    probes: int

    def __str__(self) -> str:
        return f"IVF {self.lists:,}, {self.probes} probed"


def has_metis() -> bool:
    """Whether pymetis is installed, which TOnICS does not need."""
    return importlib.util.find_spec("pymetis") is not None


def train(vectors: np.ndarray, lists: int) -> object:
    """An index of all vectors (n, d) float32, read with as many threads as faiss is given."""
    import faiss

    index = faiss.IndexIVFFlat(
        faiss.IndexFlatIP(vectors.shape[1]), vectors.shape[1], lists, faiss.METRIC_INNER_PRODUCT
    )
    index.cp.max_points_per_centroid = 64  # a quarter of faiss's own: trained faster
    index.train(vectors)
    index.add(vectors)
    return index


def neighbours(
    index: object, vectors: np.ndarray, probes: int, skip: int, reach: int
) -> np.ndarray:
    """The neighbours of ranks ``skip`` to ``reach``, the nearest first: (n, reach - skip) int32.

    -1 where the lists read hold no more.
    """
    index.nprobe = probes  # type: ignore[attr-defined]
    found = np.empty((len(vectors), reach - skip), np.int32)
    for at in range(0, len(vectors), _QUERIES):
        _, rows = index.search(vectors[at : at + _QUERIES], reach + 1)  # type: ignore[attr-defined]
        found[at : at + _QUERIES] = rows[:, skip + 1 :]  # the first is the query itself
    return found


def group_greedily(near: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Seeds in random order take their nearest unused neighbours: (n // size, size) int64.

    A seed that lacks neighbours keeps those it has; such short groups are joined as they come.
    """
    used = np.zeros(len(near) + 1, bool)
    used[-1] = True  # where a row of neighbours ends
    groups, short = [], []
    for seed in rng.permutation(len(near)).tolist():
        if used[seed]:
            continue
        row = near[seed]
        group = np.concatenate([[seed], row[~used[row]][: size - 1]])
        used[group] = True
        (groups if len(group) == size else short).append(group)
    return _joined(groups, short, size)


def group_by_metis(near: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Cut the graph into parts of about ``size``, and those into groups of exactly that size."""
    import pymetis

    starts, targets = _symmetric(near)
    adjacency = pymetis.CSRAdjacency(adj_starts=starts, adjacent=targets)
    options = pymetis.Options(seed=int(rng.integers(1 << 30)))
    _, part = pymetis.part_graph(len(near) // size, adjacency, options=options)
    order = np.argsort(part, kind="stable")
    cuts = np.flatnonzero(np.diff(np.asarray(part)[order])) + 1
    groups, short = [], []
    for members in np.split(order, cuts):
        whole = len(members) // size * size
        groups += list(members[:whole].reshape(-1, size))
        short.append(members[whole:])
    return _joined(groups, short, size)


def _symmetric(near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each edge in both directions, once: starts (n + 1,) and targets."""
    count, width = near.shape
    source, target = np.repeat(np.arange(count), width), near.reshape(-1).astype(np.int64)
    source, target = source[target >= 0], target[target >= 0]
    keys = np.concatenate([source * count + target, target * count + source])
    keys.sort()
    keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
    return np.searchsorted(keys, np.arange(count + 1) * count), keys % count


def _joined(groups: list[np.ndarray], short: list[np.ndarray], size: int) -> np.ndarray:
    rest = np.concatenate([*short, np.empty(0, np.int64)]).astype(np.int64)
    joined = rest[: len(rest) // size * size].reshape(-1, size)
    return np.concatenate([np.array(groups, np.int64).reshape(-1, size), joined])
