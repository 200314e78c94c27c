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


def test_only_what_the_queries_say_is_read(
    made: tuple[Dataset, pa.Table, pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, queries, _ = made
    some = queries.filter(np.arange(queries.num_rows) % 2 == 1)
    read: list[pa.Table] = []
    query = Ontology.query
    monkeypatch.setattr(Ontology, "query", lambda *args: read.append(query(*args)) or read[-1])
    assert same_object_sets(some, dataset.images(), dataset.ontology_file, 3).num_rows > 10
    pairs = [table["pair"].to_pylist() for table in read if "pair" in table.column_names]
    assert len(pairs) == 2
    assert set().union(*pairs) <= set(some["pair"].to_pylist())


def drawn(places: int, count: int = 19, rows: int = 2000) -> np.ndarray:
    seeds = same_object.mix(np.arange(rows, dtype=np.uint64))
    return same_object.draw_places(seeds, np.arange(rows) % places, places, count)


def test_draws_are_even_and_mixed() -> None:
    """Every image stands beside a caption about equally often, and beside every other one."""
    found = drawn(50)
    assert all(len({k % 50, *row}) == 20 for k, row in enumerate(found.tolist()))
    counts = np.bincount(found.ravel(), minlength=50)
    assert 640 < counts.min() <= counts.max() < 880  # 760 expected, sd 22
    beside = np.zeros((2000, 50))
    np.put_along_axis(beside, found, 1, axis=1)
    together = (beside.T @ beside)[~np.eye(50, dtype=bool)]
    assert 200 < together.min() <= together.max() < 380  # 285 expected, sd 16
    np.testing.assert_array_equal(drawn(50, 5), found[:, :5])
    assert {tuple(sorted(row)) for row in drawn(20).tolist()} == {
        tuple(k for k in range(20) if k != own) for own in range(20)
    }


def test_a_draw_costs_the_same_whatever_the_number_of_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mix, mixed = same_object.mix, []
    monkeypatch.setattr(same_object, "mix", lambda x: mixed.append(x.size) or mix(x))
    work = {}
    for images in (100, 10_000):
        names = mix(np.arange(images, dtype=np.uint64))
        everything = np.arange(images)
        held_out = same_object.HeldOut(
            pairs=everything,
            pair_hash=names,
            picture=mix(names),
            main=np.zeros(images, np.int64),
            names=["dog.n.01"],
            members=lambda _, rows=everything: rows,
        )
        mixed.clear()
        assert same_object.draw_sets(held_out, 20).num_rows == images
        work[images] = sum(mixed) / images
    assert work[10_000] <= work[100] < 200  # numbers hashed a caption


def test_images_of_the_same_bytes_never_stand_beside_each_other(
    made: tuple[Dataset, pa.Table, pa.Table],
) -> None:
    dataset, queries, _ = made
    images = dataset.images()
    twins = [f"{k // 4}" for k in range(images.num_rows)]
    at = images.schema.get_field_index("content_hash")
    images = images.set_column(at, "content_hash", pa.array(twins))
    image = dict(zip(queries["pair"].to_pylist(), queries["image"].to_pylist(), strict=True))
    sets = same_object_sets(queries, images, dataset.ontology_file, 3).to_pylist()
    assert sets
    for row in sets:
        for name in ("pairs", "random_pairs"):
            assert len({twins[image[pair]] for pair in (row["pair"], *row[name])}) == 3
