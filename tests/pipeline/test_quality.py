"""The quality report against figures computed by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tonics.artifact import read_json
from tonics.errors import InputError
from tonics.features import FeatureStore
from tonics.ontology import Ontology
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.plans.eligible import Eligible, Objects
from tonics.pipeline.plans.pooled import pooled_images
from tonics.pipeline.plans.quality import measure, measured
from tonics.pipeline.plans.quality.measure import measure_quality
from tonics.pipeline.plans.similarity import Codes
from tonics.pipeline.vectors import Vectors
from tonics.train.plan import Plan
from tonics.train.plan_files import GROUPS, REMAINDER_SCHEMA, Batches

# Pairs 10..17 of four images, two captions each; directions in degrees, lengths to be normalised.
DEGREES = {10: 0, 11: 60, 12: 0, 13: 60, 14: 90, 15: 150, 16: 40, 17: 100}
LENGTH = {pair: 1 + pair % 3 for pair in DEGREES}
TREE = Objects(  # root, animal, dog, cat; the deepest objects of pairs 10..17
    names=["entity.n.01", "animal.n.01", "dog.n.01", "cat.n.01"],
    parent=np.array([-1, 0, 1, 1], np.int32),
    depth=np.array([0, 1, 2, 2], np.int32),
    starts=np.array([0, 1, 3, 3, 4, 5, 6, 7, 8]),
    members=np.array([2, 2, 3, 1, 2, 2, 2, 3], np.int32),
)


def vectors(pairs: np.ndarray) -> np.ndarray:
    angles = np.radians([DEGREES[int(p)] for p in pairs])
    lengths = np.array([LENGTH[int(p)] for p in pairs])[:, None]
    return (lengths * np.stack([np.cos(angles), np.sin(angles)], 1)).astype(np.float32)


def eligible(**more: Any) -> Eligible:
    pairs = sorted(DEGREES)
    image = [(p - 10) // 2 for p in pairs]
    columns = {"pair": pairs, "image": image, "caption": [f"caption {p}" for p in pairs]}
    return Eligible(table=pa.table(columns), image=np.array(image), **more)


def batches(*rows: list[int], phase: list[int] | None = None, **more: Any) -> Batches:
    zeros = np.zeros(len(rows), np.int32)
    phases = zeros if phase is None else np.array(phase)
    columns: dict[str, Any] = {"epoch": zeros, "node": zeros - 1, **more}
    return Batches(phase=phases.astype(np.int16), pairs=np.array(rows), **columns)


def part(figures: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: figures[key] for key in keys}


def test_against_a_hand_computation() -> None:
    # Batch one: 0, 0, 90 degrees. Cosines 1, 0, 0: mean 1/3; nearest 1, 1, 0.
    # Batch two: 60, 60, 40 degrees. Cosines 1, c, c with c = cos 20; nearest 1, 1, c.
    c = math.cos(math.radians(20))
    found = measure_quality(eligible(), batches([10, 12, 14], [11, 13, 16]), vectors)
    assert found["batches_measured"] == 2
    assert found["suspect_cosine"] == 0.5  # two captions of one image are 60 degrees apart
    mean = round((1 / 3 + (1 + 2 * c) / 3) / 2, 4)
    assert part(found["plan"], "mean", "mean_apart", "top1", "suspects") == {
        "mean": mean,
        "mean_apart": mean,
        "top1": round((2 / 3 + (2 + c) / 3) / 2, 4),
        "suspects": round((2 / 3 + 1) / 2, 4),  # a cosine of 1/2 or more to another caption
    }
    assert not {"image_top1", "objects", "depth"} & set(found["plan"])


def test_each_phase_has_its_own_figures_and_the_whole_weighs_them_by_batches() -> None:
    plan = batches([10, 12], [10, 14], [12, 14], [10, 12], phase=[0, 1, 1, 1])
    found = measure_quality(eligible(), plan, vectors, random_share={"easy": 0.0, "hard": 0.0})
    easy, hard = found["phases"]
    assert (easy["name"], hard["name"]) == ("easy", "hard")
    assert (easy["top1"], easy["batches"], easy["placed"]) == (1, 1, 2)
    assert (hard["top1"], hard["batches"], hard["placed"]) == (round(1 / 3, 4), 3, 6)
    assert found["plan"]["top1"] == 0.5
    assert part(easy, "seen_never", "seen_once", "seen_more") == dict(
        seen_never=6, seen_once=2, seen_more=0
    )
    assert part(hard, "seen_never", "seen_once", "seen_more") == dict(
        seen_never=5, seen_once=0, seen_more=3
    )


def test_a_sample_of_batches_weighs_phases_as_all_batches_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measure, "_PRODUCTS", 4 * 4)  # four batches of two
    rows = [[10, 12]] * 30 + [[10, 14]] * 10
    found = measure_quality(eligible(), batches(*rows, phase=[0] * 30 + [1] * 10), vectors)
    assert found["batches_measured"] == 5  # three of four, and never fewer than two of a phase
    assert found["plan"]["top1"] == 0.75
    assert [phase["top1"] for phase in found["phases"]] == [1, 0]


def test_groups_do_not_count_among_what_is_apart() -> None:
    # Two groups of two: 0, 0 and 90, 100 degrees; only the four cosines between them are apart.
    groups = pa.array([[2, -1]], GROUPS.type)
    plan = batches([10, 12, 14, 17], groups=groups)
    found = measure_quality(eligible(objects=TREE), plan, vectors)["plan"]
    ten, hundred = math.cos(math.radians(10)), math.cos(math.radians(100))
    assert found["mean_apart"] == pytest.approx(2 * hundred / 4, abs=1e-4)
    assert found["mean"] == pytest.approx((1 + ten + 2 * hundred) / 6, abs=1e-4)
    assert found["depth"] == {"groups": {"2": 0.5, "none": 0.5}}


def test_groups_are_shared_out_by_the_depth_of_their_object_in_each_phase() -> None:
    groups = pa.array([[2, -1], [0, 3], []], GROUPS.type)
    rows = [[10, 12, 14, 17]] * 3
    plan = batches(*rows, phase=[0, 1, 1], groups=groups, node=np.array([-1, -1, 1], np.int32))
    one, two = measure_quality(eligible(objects=TREE), plan)["phases"]
    assert one["depth"] == {"groups": {"2": 0.5, "none": 0.5}}
    assert two["depth"] == {"batches": {"1": 1}, "groups": {"0": 0.5, "2": 0.5}}


def test_objects_depths_and_what_was_left_out() -> None:
    left = {"epoch": [0, 0, 0], "phase": [0, 1, 1], "pair": [15, 15, 16]}
    reason = ["image repeated", "image repeated", "less than a batch left"]
    remainder = pa.table({**left, "reason": reason}, schema=REMAINDER_SCHEMA)
    plan = batches([10, 12], [11, 13], phase=[0, 1], node=np.array([0, 3], np.int32))
    found = measure_quality(eligible(objects=TREE), plan, vectors, remainder=remainder)
    # 10: dog; 12: none; 11: dog, cat; 13: animal
    assert [phase["objects"] for phase in found["phases"]] == [1, 3]
    assert found["plan"]["objects"] == 2
    assert [phase["depth"]["batches"] for phase in found["phases"]] == [{"0": 1}, {"2": 1}]
    assert found["plan"]["depth"] == {"batches": {"0": 0.5, "2": 0.5}}
    assert found["plan"]["left_out"] == {"image repeated": 2, "less than a batch left": 1}
    assert found["phases"][0]["left_out"] == {"image repeated": 1}


def test_hardest_and_easiest_batches_say_what_they_are_about() -> None:
    rows = [[10, 14], [10, 12], [10, 16]]
    plan = batches(*rows, phase=[0, 0, 1], node=np.array([-1, 2, -1], np.int32))
    shares = {"one": 0.0, "two": 0.0}
    found = measure_quality(eligible(objects=TREE), plan, vectors, random_share=shares)
    assert [batch["step"] for batch in found["hardest"]] == [1, 2, 0]
    assert [batch["step"] for batch in found["easiest"]] == [0, 2, 1]
    assert found["hardest"][0] == dict(
        step=1, epoch=0, phase="one", top1=1, mean=1, node="dog.n.01", groups=[]
    )
    assert found["easiest"][1]["phase"] == "two"


def test_random_batches_stand_beside_it_and_keep_the_rules() -> None:
    found = measure_quality(eligible(), batches([10, 12], [14, 16]), vectors)
    pairs = [(a, b) for a in DEGREES for b in DEGREES if (a - 10) // 2 < (b - 10) // 2]
    cosines = [math.cos(math.radians(DEGREES[a] - DEGREES[b])) for a, b in pairs]
    random = found["random"]
    assert min(cosines) <= random["mean"] <= max(cosines)
    assert random["mean"] == random["top1"]  # in batches of two they are one
    assert (random["epochs"], random["placed"], random["seen_once"]) == (1, 8, 8)
    assert measure_quality(eligible(), batches([10, 12], [14, 16]), vectors) == found


def test_a_random_plan_of_fewer_epochs_does_not_say_how_often_pairs_are_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = batches([10, 12], [14, 16], epoch=np.array([0, 1], np.int32))
    assert measure_quality(eligible(), plan, vectors)["random"]["seen_more"] == 8
    monkeypatch.setattr(measure, "_RANDOM_PAIRS", 8)
    random = measure_quality(eligible(), plan, vectors)["random"]
    assert random["epochs"] == 1
    assert "seen_more" not in random


def test_one_caption_an_image_has_no_twins_to_learn_from() -> None:
    whole = eligible()
    single = Eligible(table=whole.table.take([0, 2, 4, 6]), image=whole.image[[0, 2, 4, 6]])
    assert measure_quality(single, batches([10, 12], [14, 16]), vectors)["suspect_cosine"] == 0.9


def test_a_phase_without_batches_is_counted_and_not_judged() -> None:
    shares = {"some": 0.0, "none": 0.0}
    found = measure_quality(eligible(), batches([10, 14]), vectors, random_share=shares)
    assert part(found["phases"][1], "batches", "seen_never") == dict(batches=0, seen_never=8)
    assert "top1" not in found["phases"][1]
    assert not any("none" in warning for warning in found["warnings"])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_named(value: float) -> None:
    def broken(pairs: np.ndarray) -> np.ndarray:
        return np.where((pairs == 14)[:, None], value, vectors(pairs)).astype(np.float16)

    with pytest.raises(InputError, match=r"caption vectors, by pair: 1 are not finite .*: 14,"):
        measure_quality(eligible(), batches([10, 12], [14, 16]), broken)


def test_without_captions_there_are_counts_alone() -> None:
    found = measure_quality(eligible(), batches([10, 12], [14, 16]))
    assert not {"top1", "mean", "suspects"} & set(found["plan"])
    assert not {"suspect_cosine", "hardest", "easiest"} & set(found)
    assert found["plan"]["seen_once"] == 4


def test_image_vectors_that_builders_loaded_are_used_and_others_are_read_once() -> None:
    directions = np.array([[4000, 0], [0, 4000], [4000, 0], [2400, 3200]], np.int16)
    loaded = eligible(vectors={"image": Codes(codes=directions, index=np.arange(8) // 2)})
    asked: list[list[int]] = []

    def images(numbers: np.ndarray) -> np.ndarray:
        asked.append(numbers.tolist())
        return directions[numbers].astype(np.float32)

    plan = batches([10, 14, 16], [12, 14, 16])  # images 0, 2, 3 and 1, 2, 3
    one = measure_quality(loaded, plan)["plan"]
    other = measure_quality(eligible(), plan, images=images)["plan"]
    assert asked == [[0, 1, 2, 3]]
    assert one == other
    assert one["image_top1"] == pytest.approx((1 + 1 + 0.6 + 0.8 + 0.6 + 0.8) / 6, abs=1e-4)
    assert one["image_mean"] == pytest.approx((1 + 0.6 + 0.6 + 0 + 0.8 + 0.6) / 6, abs=1e-4)


def test_only_some_images_are_read_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "_IMAGES", 3)
    asked: list[int] = []

    def images(numbers: np.ndarray) -> np.ndarray:
        asked.append(len(numbers))
        return np.ones((len(numbers), 2), np.float32)

    found = measure_quality(eligible(), batches(*[[10, 12]] * 9), images=images)
    assert found["images_measured"] == 2
    assert asked[0] == 2
    assert found["plan"]["image_top1"] == 1


@pytest.mark.parametrize("name", ["tonics", "mixed"])
def test_the_built_report_equals_the_plain_computation(planned: Path, name: str) -> None:
    dataset, plan = Dataset.open(planned), Plan(planned / "plans" / name)
    read = Vectors(dataset, "captions")
    store = FeatureStore(planned / "features" / "grid")
    images = np.unique(plan.pairs.column("image").to_numpy())
    pooled = dict(zip(images.tolist(), pooled_images(store, images), strict=True))
    names = named_by_pair(planned)
    rows = []
    for step in range(len(plan)):
        pairs = plan.batch(step)
        shown = np.array([pooled[image] for image in plan.images_of(pairs).tolist()])
        met = {name for pair in pairs.tolist() for name in names.get(pair, [])}
        rows.append([*plain(read(pairs)), *plain(shown), len(met)])
    figures = np.array(rows)
    report = read_json(plan.path / "quality.json")
    assert report["batches_measured"] == report["images_measured"] == len(plan)
    keys = ["mean", "top1", "image_mean", "image_top1"]
    for number, found in [(None, report["plan"]), *enumerate(report["phases"])]:
        which = slice(None) if number is None else plan.batches.phase == number
        wanted = figures[which].mean(axis=0)
        assert [found[key] for key in keys] == pytest.approx(wanted[:4].tolist(), abs=2e-4)
        assert found["objects"] == pytest.approx(wanted[4], abs=0.051)
    assert report["phases"][-1]["top1"] > report["random"]["top1"]  # made to be alike


def plain(vectors: np.ndarray) -> tuple[float, float]:
    """Mean and top-1 cosine of one batch."""
    wide = vectors.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    cosine = wide @ wide.T
    others = ~np.eye(len(wide), dtype=bool)
    return cosine[others].mean(), np.where(others, cosine, -1).max(axis=1).mean()


def named_by_pair(folder: Path) -> dict[int, list[int]]:
    names: dict[int, list[int]] = {}
    with Ontology(folder / "ontology.duckdb") as ontology:
        for row in ontology.deepest_objects().to_pylist():
            names.setdefault(row["pair"], []).append(row["object"])
    return names
