"""Batches of ``kmeans`` are of one cluster; rows go to the nearest centre, ties to the lowest."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from tonics.errors import ConfigError, MissingAsset
from tonics.pipeline.config import Phase
from tonics.pipeline.plans import kmeans
from tonics.pipeline.plans.curricula import stretches
from tonics.pipeline.plans.eligible import Eligible
from tonics.pipeline.plans.kmeans import Params, assign, find_centres
from tonics.pipeline.plans.similarity import SCALE, Similarity

from .made_up import codes_of, config, make_eligible, offer

TOPICS = 6


def of_topics(count: int = 1800) -> tuple[Eligible, np.ndarray]:
    """Pairs whose caption vectors are of well-separated topics, and the topic of each."""
    rng = np.random.default_rng(0)
    topic = rng.integers(0, TOPICS, count)
    vectors = 4 * np.eye(TOPICS, 16)[topic] + rng.standard_normal((count, 16)) / 2
    eligible = replace(make_eligible([1] * count, 10**9), vectors={"text": codes_of(vectors)})
    return eligible, topic


def test_batches_are_of_one_cluster_and_only_the_last_are_mixed() -> None:
    eligible, topic = of_topics()
    made = kmeans.build(
        eligible, offer(np.arange(1800), 20), Params(clusters=12), np.random.default_rng(0)
    )
    pure = [len(set(topic[batch])) == 1 for batch in made.rows]
    whole = made.place < 12
    assert np.mean(np.array(pure)[whole]) > 0.95
    assert np.count_nonzero(~whole) <= 12  # less than a batch a cluster is left
    assert len(made) == 90
    assert np.all(np.diff(made.rows[whole][:, :2].astype(int)) != 1)  # shuffled inside


def test_the_number_of_clusters_follows_from_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    eligible, _ = of_topics()
    asked: list[int] = []
    find = find_centres
    monkeypatch.setattr(kmeans, "find_centres", lambda s, o, k: asked.append(k) or find(s, o, k))
    for size, clusters in ((20, 0), (6, 0), (20, 5), (20, 9999)):
        params = Params(clusters=clusters)
        kmeans.build(eligible, offer(np.arange(1800), size), params, np.random.default_rng(0))
    assert asked == [4, 15, 5, 1800]


def test_rows_go_to_the_nearest_centre_and_ties_to_the_lowest() -> None:
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], (5000, 32))  # many products are equal
    similarity = Similarity((codes_of(signs),))
    rows = rng.permutation(5000)
    centres = similarity.take(np.array([7, 7, 1, 2, 3, 7, 4]))
    found = assign(similarity, rows, centres)
    products = similarity.take(rows).astype(np.int64) @ centres.astype(np.int64).T
    assert np.array_equal(found, products.argmax(axis=1))
    best = np.sort(products, axis=1)
    assert np.count_nonzero(best[:, -1] == best[:, -2]) > 500


def test_centres_are_whole_means_of_their_rows() -> None:
    eligible, topic = of_topics()
    similarity = eligible.similarity("text")
    order = np.random.default_rng(4).permutation(1800)
    centres = find_centres(similarity, order, 30)
    assert np.array_equal(centres, np.rint(centres))
    assert np.allclose(np.linalg.norm(centres, axis=1), SCALE, rtol=1e-3)
    cluster = assign(similarity, np.arange(1800), centres)
    assert np.mean([len(set(topic[cluster == c])) == 1 for c in set(cluster)]) > 0.9
    first = assign(similarity, np.arange(1800), similarity.take(order[:30]))

    def compactness(centres: np.ndarray, cluster: np.ndarray) -> float:
        return float((similarity.take(np.arange(1800)) * centres[cluster]).sum(axis=1).mean())

    start = compactness(similarity.take(order[:30]), first)
    assert compactness(centres, cluster) > start + 0.04 * SCALE**2


def test_equal_vectors_leave_centres_without_rows() -> None:
    similarity = Similarity((codes_of(np.ones((50, 4))),))
    centres = find_centres(similarity, np.arange(50), 8)
    assert set(assign(similarity, np.arange(50), centres)) == {0}


def test_the_threads_of_faiss_stay_as_they_were() -> None:
    faiss = pytest.importorskip("faiss")
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)
    eligible, _ = of_topics(100)
    kmeans.build(eligible, offer(np.arange(100), 10), Params(), np.random.default_rng(0))
    assert faiss.omp_get_max_threads() == 3
    faiss.omp_set_num_threads(before)


def test_without_faiss_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    eligible, _ = of_topics(100)
    with pytest.raises(
        MissingAsset, match=r"package faiss is not installed; pip install 'tonics\[c"
    ):
        kmeans.build(eligible, offer(np.arange(100), 10), Params(), np.random.default_rng(0))


@pytest.mark.parametrize(
    "phases",
    [
        [Phase(builder="kmeans")],
        [Phase(builder="random", share=0.5), Phase(mix={"kmeans": 0.5, "random": 0.5}, share=0.5)],
        [Phase(builder="kmeans", share=0.5), Phase(builder="ontology", share=0.5)],
    ],
)
def test_training_must_not_end_in_its_batches(phases: list[Phase]) -> None:
    plan = config(8, *phases, epochs=2)
    with pytest.raises(ConfigError, match=r"\(kmeans\) has no random phase after it"):
        stretches("plans.p", plan)
    after = [p.model_copy(update={"share": p.share / 2}) for p in phases]
    stretches("plans.p", config(8, *after, Phase(builder="random", share=0.5), epochs=4))
