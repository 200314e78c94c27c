"""Groups of ``communities``: nearer than random ones, not the nearest, of one object."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tonics.errors import ConfigError
from tonics.pipeline.config import Phase
from tonics.pipeline.plans import communities
from tonics.pipeline.plans.communities import Params
from tonics.pipeline.plans.curricula import stretches
from tonics.pipeline.plans.eligible import Eligible

from .made_up import build_phase, codes_of, config, make_eligible, offer, rows_of

SEED = np.random.default_rng


def crowded(count: int = 1200) -> Eligible:
    """Pairs of six topics, within which all distances differ."""
    eligible = make_eligible([1] * count, 10**9)
    rng = SEED(3)
    vectors = rng.standard_normal((6, 24))[rng.integers(0, 6, count)]
    vectors = vectors + 0.4 * rng.standard_normal((count, 24))
    return replace(eligible, vectors={"text": codes_of(vectors)})


def above(eligible: Eligible, row: int) -> set[int]:
    """The objects of a row, and all above them."""
    objects, found = eligible.objects, set()
    for node in objects.members[objects.starts[row] : objects.starts[row + 1]].tolist():
        while node >= 0:
            found.add(node)
            node = int(objects.parent[node])
    return found


def ranks_within(eligible: Eligible, rows: np.ndarray) -> np.ndarray:
    """(g, K - 1) at which rank from the first of each group the others are, among all rows."""
    vectors = eligible.similarity("text").take(np.arange(len(eligible)))
    order = np.argsort(-(vectors[rows[:, 0]] @ vectors.T), axis=1, kind="stable")
    rank = np.argsort(order, axis=1)
    return np.take_along_axis(rank, rows[:, 1:], axis=1) - 1


def test_groups_share_their_object() -> None:
    eligible = make_eligible([3] * 200, 10**9)
    batches, _ = build_phase(eligible, Phase(builder="communities"), 32)
    groups = rows_of(eligible, batches).reshape(len(batches.pairs), -1, 8)
    named = 0
    for rows, nodes in zip(groups, batches.groups.to_pylist(), strict=True):
        assert len(nodes) == 4
        for group, node in zip(rows, nodes, strict=True):
            assert node == -1 or all(node in above(eligible, row) for row in group)
            named += node >= 0
    assert named > 0.5 * len(batches.pairs) * 4
    assert set(batches.node.tolist()) == {-1}  # a batch is of no one object


def test_groups_are_nearer_than_random_ones() -> None:
    eligible = crowded()
    made = communities.build(
        eligible,
        offer(np.arange(1200), 32),
        Params(objects=False, skip=0),
        SEED(0),
    )
    assert np.median(ranks_within(eligible, made.rows)) < 0.2 * len(eligible)
    assert np.median(ranks_within(eligible, SEED(0).permutation(1200).reshape(-1, 8))) > 500


def test_the_nearest_are_passed_over_where_others_are_to_be_had() -> None:
    eligible = crowded()
    for skip in (0, 40):
        params = Params(objects=False, skip=skip)
        made = communities.build(eligible, offer(np.arange(1200), 32), params, SEED(0))
        ranks = ranks_within(eligible, made.rows)
        first = ranks[: len(ranks) // 3]  # later seeds find few unused neighbours
        assert first.min() >= skip
        assert first.min() < skip + 5


def test_a_pass_of_a_share_of_the_pairs_passes_over_that_share() -> None:
    eligible = crowded()
    rows = np.sort(SEED(0).permutation(1200)[:300])
    params = Params(objects=False, skip=40)
    offered = offer(rows, 32)
    made = communities.build(eligible, offered, params, SEED(0))
    part = replace(
        eligible,
        table=eligible.table.take(rows),
        vectors={
            "text": replace(eligible.vectors["text"], codes=eligible.vectors["text"].codes[rows])
        },
    )
    ranks = ranks_within(part, np.searchsorted(rows, made.rows))
    first = ranks[: len(ranks) // 3]
    assert 10 <= first.min() < 14


def test_equal_captions_never_share_a_group() -> None:
    eligible = make_eligible([1] * 600, 40)
    made = communities.build(eligible, offer(np.arange(600), 16), Params(objects=False), SEED(0))
    assert len(made) > 0
    for group in eligible.caption[made.rows]:
        assert len(set(group)) == 8


@pytest.mark.parametrize(("size", "group"), [(100, 30), (7, 0), (16, 1)])
def test_groups_must_divide_the_batch(size: int, group: int) -> None:
    phase = Phase(builder="communities", params={"group": group})
    with pytest.raises(
        ConfigError, match=f"batch_size: {size}, which builder 'communities' cannot"
    ):
        stretches("plans.p", config(size, phase))
