"""``kmeans``: every batch from one coarse cluster, shuffled inside.

The cheapest batches of like pairs, and the most monotonous: a model that ends its training in them
forgets how to tell topics apart. Clusters of about 20 batches are found by spherical k-means over a
sample; faiss compares, on a GPU where it has one. Vectors and centres are whole numbers throughout,
so that clusters are the same on any number of threads, on a CPU or a GPU, which faiss's own k-means
does not promise. What clusters leave is batched together.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from ...errors import MissingAsset
from ..config import Section
from .builder import Builder, Groups, Offered, join_groups, make_groups
from .eligible import Eligible
from .fill import fill
from .similarity import Kind, Similarity, kinds_of, whole

_BATCHES = 20  # in a cluster, where the number of clusters is not given
_SAMPLE = 256  # rows a centre is found from, at most
_MOST_SAMPLED = 1 << 18
_ROUNDS = 12
_BLOCK = 1 << 15  # rows assigned at once
_ALONE = 1 << 18  # numbers below which more threads cost more than they save


class Params(Section):
    """How many clusters a pass is cut into, and by what."""

    clusters: Annotated[int, Field(ge=0)] = 0  # 0 = one for every 20 batches of an epoch
    similarity: Kind = "text"


def needs(params: Params) -> frozenset[str]:
    """What must be loaded."""
    return frozenset(kinds_of(params.similarity))


def build(eligible: Eligible, offered: Offered, params: Params, rng: np.random.Generator) -> Groups:
    """Fill batches from each cluster, then from what they all leave.

    Raises:
        MissingAsset: faiss is not installed.
    """
    similarity, order = eligible.similarity(params.similarity), rng.permutation(offered.rows)
    count = params.clusters or max(2, len(eligible) // (_BATCHES * offered.batch_size))
    centres = find_centres(similarity, order, min(count, len(order)))
    cluster = assign(similarity, order, centres)
    parts = []
    for number in range(len(centres)):
        batches, left = fill(eligible, order[cluster == number], offered.batch_size)
        parts.append(make_groups(batches, left, place=number))
    left = np.concatenate([part.left for part in parts])
    batches, left = fill(eligible, rng.permutation(left), offered.batch_size)
    parts.append(make_groups(batches, left, place=len(centres)))
    return join_groups(parts, offered.batch_size, left)


def find_centres(similarity: Similarity, order: np.ndarray, count: int) -> np.ndarray:
    """Spherical k-means over the first of some shuffled rows.

    Returns:
        (count, d) float32 whole numbers of length ``SCALE``. A centre without rows stays.
    """
    vectors = similarity.take(order[: min(_SAMPLE * count, _MOST_SAMPLED)])
    centres = vectors[:count].copy()
    before = np.empty(0, np.int64)
    for _ in range(_ROUNDS):
        cluster = _nearest(vectors, centres)
        if np.array_equal(cluster, before):
            break
        by_cluster = np.argsort(cluster, kind="stable")
        found, starts = np.unique(cluster[by_cluster], return_index=True)
        sums = np.add.reduceat(vectors[by_cluster], starts, axis=0, dtype=np.float64)
        centres[found], before = whole(sums), cluster
    return centres


def assign(similarity: Similarity, rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The nearest centre of each row, ties to the lowest: (n,) int64."""
    blocks = (rows[at : at + _BLOCK] for at in range(0, len(rows), _BLOCK))
    return np.concatenate([_nearest(similarity.take(block), centres) for block in blocks])


def _nearest(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The centre with the largest product, ties to the lowest: (n,) int64.

    How faiss breaks ties depends on the device; products of whole numbers do not.
    """
    products, found = _search(vectors, centres, min(2, len(centres)))
    nearest = found[:, 0].astype(np.int64)
    tied = np.flatnonzero(products[:, 0] == products[:, -1])
    nearest[tied] = np.argmax(vectors[tied] @ centres.T, axis=1)
    return nearest


def _search(vectors: np.ndarray, centres: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest products with centres, and whose they are; on a GPU where faiss has one."""
    faiss = _faiss()
    index = faiss.IndexFlatIP(vectors.shape[1])
    if faiss.get_num_gpus():
        index = faiss.index_cpu_to_gpu(_gpu(), 0, index)
    index.add(np.ascontiguousarray(centres))
    threads = faiss.omp_get_max_threads()
    if vectors.size < _ALONE:
        faiss.omp_set_num_threads(1)
    try:
        return index.search(vectors, count)
    finally:
        faiss.omp_set_num_threads(threads)


@cache
def _gpu() -> Any:
    """The memory faiss works in on a GPU, taken once."""
    return _faiss().StandardGpuResources()


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingAsset(
            "builder 'kmeans'",
            "package faiss is not installed",
            do="pip install 'tonics[cpu]', or 'tonics[gpu]' for NVIDIA GPUs",
        ) from error
    return faiss


BUILDER = Builder(name="kmeans", build=build, params=Params, needs=needs, version=2)
