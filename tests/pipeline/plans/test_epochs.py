"""Epochs are passes; a pass uses one caption of every image, and a mix keeps its shares."""

from __future__ import annotations

import numpy as np
import pytest

from tonics.pipeline.config import Phase
from tonics.pipeline.plans import BUILDERS
from tonics.pipeline.plans.curricula import stretches
from tonics.pipeline.plans.epochs import assign_passes, divide, group_part
from tonics.pipeline.plans.pooled import pooled_images

from .made_up import build, config, make_eligible, rows_of


def test_a_pass_uses_one_caption_of_every_image() -> None:
    image = np.repeat(np.arange(20), 5)
    passes = assign_passes(image, np.random.default_rng(0))
    for number in range(5):
        assert sorted(image[passes == number]) == list(range(20))


def test_which_caption_a_pass_uses_is_random() -> None:
    image = np.tile(np.arange(500), 4)
    passes = assign_passes(image, np.random.default_rng(0)).reshape(4, 500)
    assert np.all(np.sort(passes, axis=0) == np.arange(4)[:, None])
    for caption in passes:
        assert np.bincount(caption).min() > 90  # of 125


def test_one_pass_an_epoch_uses_other_captions_each_time() -> None:
    eligible = make_eligible([5] * 40, 10**9)
    batches, _ = build(eligible, config(8, Phase(builder="random"), epochs=3, passes=1))
    assert len(batches.pairs) == 3 * 5
    first, second = (set(batches.pairs[batches.epoch == e].ravel().tolist()) for e in (0, 1))
    assert len(first) == 40
    assert first != second


def test_a_mix_goes_on_where_one_pass_has_too_few_images_for_each() -> None:
    """Each builder gets 30 of the 60 images of a pass, and fills batches of 40 from several."""
    eligible = make_eligible([5] * 60, 10**9)
    phase = Phase(mix={"random": 0.5, "ontology": 0.5})
    batches, remainder = build(eligible, config(40, phase))
    assert len(batches.pairs) >= 5
    assert remainder.num_rows == 300 - batches.pairs.size
    for rows in rows_of(eligible, batches):
        assert len(set(eligible.image[rows])) == 40


def test_a_mix_keeps_its_shares_and_shuffles_its_batches() -> None:
    eligible = make_eligible([1] * 4000, 10**9)
    phase = Phase(mix={"random": 0.7, "communities": 0.3})
    batches, _ = build(eligible, config(16, phase))
    of_groups = np.array([len(groups) > 0 for groups in batches.groups.to_pylist()])
    assert of_groups.mean() == pytest.approx(0.3, abs=0.04)
    assert 0.2 < of_groups[: len(of_groups) // 2].mean() < 0.4


def test_epochs_in_rotation_are_dealt_anew_from_the_same_groups() -> None:
    eligible = make_eligible([2] * 400, 10**9)
    phase = Phase(builder="communities", rotation=2)
    batches, _ = build(eligible, config(32, phase, epochs=4))
    by_epoch = [rows_of(eligible, batches)[batches.epoch == e] for e in range(4)]
    groups = [{frozenset(g) for g in rows.reshape(-1, 8).tolist()} for rows in by_epoch]
    assert len(groups[0] & groups[2]) > 0.9 * len(groups[0])
    assert len(groups[0] & groups[1]) < 0.1 * len(groups[0])
    whole = [{frozenset(batch) for batch in rows.tolist()} for rows in by_epoch]
    assert not whole[0] & whole[2]


# -- vectors of images -----------------------------------------------------------------------------


class Store:
    """Three images of two regions, one without any."""

    dim = 2

    def __init__(self, features: list[list[float]]) -> None:
        self.features = np.array(features, np.float16)

    def gather(self, images: np.ndarray, max_regions: int) -> object:
        class Regions:
            features = self.features
            cu_seqlens = np.array([0, 2, 2, 4, 6])

        return Regions


def test_an_image_is_the_mean_of_its_regions_from_the_mean_of_all() -> None:
    store = Store([[1, 2], [3, 4], [6, 6], [5, 7], [8, 8], [9, 7]])
    found = pooled_images(store, np.arange(4))  # means (2, 3), none, (5.5, 6.5), (8.5, 7.5)
    mean = np.array([16, 17]) / 3
    expected = [[2, 3] - mean, [0, 0], [5.5, 6.5] - mean, [8.5, 7.5] - mean]
    assert np.allclose(found, expected, atol=1e-5)


def test_one_image_that_is_not_finite_does_not_spoil_the_others() -> None:
    store = Store([[1, 2], [3, 4], [np.nan, 5], [5, 5], [8, 8], [8, 8]])
    finite = np.isfinite(pooled_images(store, np.arange(4))).all(axis=1)
    assert finite.tolist() == [True, True, False, True]


@pytest.mark.parametrize("name", [name for name, b in BUILDERS.items() if b.swaps])
@pytest.mark.parametrize("passes", [0, 2])
def test_a_pass_uses_one_caption_of_an_image_whichever_it_chooses(name: str, passes: int) -> None:
    eligible = make_eligible([4] * 120, 10**9)
    plan = config(16, Phase(builder=name), passes=passes)
    phase = stretches("p", plan)[0]
    offered, _ = divide(eligible, plan, phase, 0)
    rng = np.random.default_rng(0)
    grouped = group_part(eligible, plan, phase.parts[0], offered.copy(), rng)
    assert len(grouped.passes) == (passes or 4)
    used = []
    for groups in grouped.passes:
        image = eligible.image[groups.rows].ravel()
        assert len(np.unique(image)) == len(image) > 0.8 * 120
        used += groups.rows.ravel().tolist()
    assert len(set(used)) == len(used)
    chosen = offered[grouped.passes[0].rows.ravel()]
    assert chosen.min() >= 0
    assert np.count_nonzero(chosen != 0) > 10  # nearer captions than those that were offered
    assert passes == 0 or chosen.max() < passes  # of the passes there are
