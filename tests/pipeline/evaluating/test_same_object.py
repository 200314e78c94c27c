"""Hard choices: which object is the main one, and who stands beside the true candidate."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import tonics.pipeline.same_object as same_object
from tonics.ontology import Ontology
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.same_object import same_object_sets
from tonics.pipeline.stages.queries import QueriesStage, SameObjectStage


def test_examples() -> None:
    assert doctest.testmod(same_object).failed == 0


@pytest.fixture(scope="module")
def made(built: Path) -> tuple[Dataset, pa.Table, pa.Table]:
    """The tiny dataset, its queries and its sets of three candidates."""
    dataset = Dataset.open(built)
    return dataset, QueriesStage(dataset, "test").read(), SameObjectStage(dataset, "test").read()


def test_the_main_object_is_the_first_noun_that_is_frequent_enough(
    made: tuple[Dataset, pa.Table, pa.Table],
) -> None:
    _, queries, sets = made
    caption = dict(zip(queries["pair"].to_pylist(), queries["caption"].to_pylist(), strict=True))
    assert sets.num_rows > 20
    for row in sets.to_pylist():
        if " number " in caption[row["pair"]]:  # "dog number 5" is a noun of its own
            continue
        word = row["object"].split(".")[0]
        nouns = [w.strip(".") for w in caption[row["pair"]].split() if w.strip(".") in _NOUNS]
        frequent = [n for n in nouns if _images(queries, n) >= 3]
        assert word == frequent[0], (row, caption[row["pair"]])


_NOUNS = ("dog", "cat", "ball", "bus", "umbrella", "grass")


def _images(queries: pa.Table, noun: str) -> int:
    rows = queries.select(["image", "caption"]).to_pylist()
    return len({r["image"] for r in rows if noun in r["caption"]})


def test_candidates_are_of_other_images_and_of_the_same_object(
    made: tuple[Dataset, pa.Table, pa.Table],
) -> None:
    dataset, queries, sets = made
    image = dict(zip(queries["pair"].to_pylist(), queries["image"].to_pylist(), strict=True))
    content = dataset.images()["content_hash"].to_pylist()
    with Ontology(dataset.ontology_file) as ontology:
        members = {o: set(ontology.pairs(o).tolist()) for o in set(sets["object"].to_pylist())}
    for row in sets.to_pylist():
        for name in ("pairs", "random_pairs"):
            images = [image[pair] for pair in (row["pair"], *row[name])]
            assert len({content[k] for k in images}) == len(images) == 3
        assert members[row["object"]] >= {row["pair"], *row["pairs"]}


def test_the_same_captions_get_the_same_candidates_whatever_their_numbers(
    made: tuple[Dataset, pa.Table, pa.Table],
) -> None:
    """Rows in another order: the same sets. And a smaller pool keeps who is left in it."""
    dataset, queries, sets = made
    order = np.random.default_rng(0).permutation(queries.num_rows)
    again = same_object_sets(
        queries.take(pa.array(order)), dataset.images(), dataset.ontology_file, 3
    )
    assert again.sort_by("pair").equals(sets.sort_by("pair"))
    larger = same_object_sets(queries, dataset.images(), dataset.ontology_file, 4)
    wanted = dict(zip(sets["pair"].to_pylist(), sets["random_pairs"].to_pylist(), strict=True))
    for row in larger.to_pylist():
        assert row["random_pairs"][:2] == wanted[row["pair"]]


def test_draws_are_even() -> None:
    """Every image stands beside a caption about equally often."""
    images = same_object.mix(np.arange(50, dtype=np.uint64))
    asks = same_object.mix(np.arange(1000, 3000, dtype=np.uint64))
    first = np.array([np.argmin(same_object.mix(images ^ ask)) for ask in asks])
    counts = np.bincount(first, minlength=50)
    assert 15 < counts.min() <= counts.max() < 75  # 40 expected, sd 6.3
