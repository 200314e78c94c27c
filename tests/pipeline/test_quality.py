"""The quality report against figures computed by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tonics.artifact import read_json
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.plans.eligible import Eligible
from tonics.pipeline.plans.quality import measure_quality
from tonics.pipeline.vectors import Vectors
from tonics.train.plan import Plan
from tonics.train.plan_files import Batches

# Pairs 10..17 of four images, two captions each; directions in degrees, lengths to be normalised.
DEGREES = {10: 0, 11: 60, 12: 0, 13: 60, 14: 90, 15: 150, 16: 40, 17: 100}
LENGTH = {pair: 1 + pair % 3 for pair in DEGREES}


def vectors(pairs: np.ndarray) -> np.ndarray:
    angles = np.radians([DEGREES[int(p)] for p in pairs])
    lengths = np.array([LENGTH[int(p)] for p in pairs])[:, None]
    return (lengths * np.stack([np.cos(angles), np.sin(angles)], 1)).astype(np.float32)


def eligible() -> Eligible:
    pairs = sorted(DEGREES)
    image = [(p - 10) // 2 for p in pairs]
    columns = {"pair": pairs, "image": image, "caption": [f"caption {p}" for p in pairs]}
    return Eligible(table=pa.table(columns), image=np.array(image))


def batches(*rows: list[int]) -> Batches:
    zeros = np.zeros(len(rows), np.int32)
    return Batches(epoch=zeros, phase=zeros.astype(np.int16), node=zeros - 1, pairs=np.array(rows))


def test_against_a_hand_computation() -> None:
    # Batch one: 0, 0, 90 degrees. Cosines 1, 0, 0: mean 1/3; nearest 1, 1, 0.
    # Batch two: 60, 60, 40 degrees. Cosines 1, c, c with c = cos 20; nearest 1, 1, c.
    c = math.cos(math.radians(20))
    found = measure_quality(eligible(), batches([10, 12, 14], [11, 13, 16]), vectors)
    assert found["batches_measured"] == 2
    assert found["suspect_cosine"] == 0.5  # two captions of one image are 60 degrees apart
    assert found["plan"] == {
        "mean": round((1 / 3 + (1 + 2 * c) / 3) / 2, 4),
        "top1": round((2 / 3 + (2 + c) / 3) / 2, 4),
        "suspects": round((2 / 3 + 1) / 2, 4),  # a cosine of 1/2 or more to another caption
    }


def test_random_batches_stand_beside_it_and_keep_the_rules() -> None:
    found = measure_quality(eligible(), batches([10, 12], [14, 16]), vectors)
    pairs = [(a, b) for a in DEGREES for b in DEGREES if (a - 10) // 2 < (b - 10) // 2]
    cosines = [math.cos(math.radians(DEGREES[a] - DEGREES[b])) for a, b in pairs]
    assert min(cosines) <= found["random"]["mean"] <= max(cosines)
    assert found["random"]["mean"] == found["random"]["top1"]  # in batches of two they are one
    again = measure_quality(eligible(), batches([10, 12], [14, 16]), vectors)
    assert again == found


def test_one_caption_an_image_has_no_twins_to_learn_from() -> None:
    whole = eligible()
    single = Eligible(table=whole.table.take([0, 2, 4, 6]), image=whole.image[[0, 2, 4, 6]])
    assert measure_quality(single, batches([10, 12], [14, 16]), vectors)["suspect_cosine"] == 0.9


@pytest.mark.parametrize("name", ["tonics"])
def test_the_built_report_equals_the_plain_computation(built: Path, name: str) -> None:
    dataset, plan = Dataset.open(built), Plan(built / "plans" / name)
    read = Vectors(dataset, "captions")
    means, nearest = [], []
    for step in range(len(plan)):
        rows = read(plan.batch(step)).astype(np.float64)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        cosine = rows @ rows.T
        others = ~np.eye(len(rows), dtype=bool)
        means.append(cosine[others].mean())
        nearest.append(np.where(others, cosine, -1).max(axis=1).mean())
    report = read_json(built / "plans" / name / "quality.json")
    assert report["batches_measured"] == len(plan)
    assert report["plan"]["mean"] == pytest.approx(np.mean(means), abs=2e-4)
    assert report["plan"]["top1"] == pytest.approx(np.mean(nearest), abs=2e-4)
    assert report["plan"]["top1"] > report["random"]["top1"]  # same-object batches are alike
