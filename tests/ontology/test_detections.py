"""The database of what detectors saw."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from tonics.ontology import detections as module
from tonics.ontology.database import run_query
from tonics.ontology.detections import (
    DETECTIONS_SCHEMA,
    IMAGES_SCHEMA,
    Detected,
    FeatureSet,
    build_detections,
)
from tonics.ontology.labels import label_sense
from tonics.ontology.senses import CONFIDENT

LABELS = [
    "__background__", "dog", "puppy", "cat", "person", "man", "bench", "mouse", "leap", "view",
]  # fmt: skip
SETS = {"vinvl": 10, "grid": 6}  # images of each


def seen_by(name):
    """What a set saw: (image, label, regions, score, area), made up; image 0 is empty."""
    rng = np.random.default_rng(len(name))
    return [
        (image, int(label), int(rng.integers(1, 9)), float(np.float32(rng.random())),
         float(np.float32(rng.random())))
        for image in range(1, SETS[name])
        for label in sorted(rng.choice(len(LABELS), 5, replace=False))
    ]  # fmt: skip


def detected(name, size, order):
    """Hand the images of a set on, so many at a time, in some order."""
    rows = seen_by(name)
    images = list(range(SETS[name]))[::order]
    for start in range(0, len(images), size):
        part = images[start : start + size]
        some = [row for image in part for row in rows if row[0] == image]
        counts = [sum(row[2] for row in some if row[0] == image) for image in part]
        columns = list(zip(*some, strict=True)) or [[]] * 5
        yield Detected(
            pa.table([pa.array(part), pa.array(counts, pa.int32())], schema=IMAGES_SCHEMA),
            pa.table(
                [pa.array(c, f.type) for c, f in zip(columns, DETECTIONS_SCHEMA, strict=True)],
                schema=DETECTIONS_SCHEMA,
            ),
        )


@pytest.fixture(scope="module")
def make(wordnet):
    """Build a database at a path; the arguments must not change its content."""

    def build(path, size=3, order=1, sets=SETS, **settings):
        given = [
            FeatureSet(
                name=name,
                labels=[(label, "") for label in LABELS],
                detected=detected(name, size, order),
                content_hash=f"content of {name}",
                vocabulary_hash="v",
            )
            for name in sets
        ]
        return build_detections(path, given, wordnet=wordnet, versions={"x": "y"}, **settings)

    return build


@pytest.fixture(scope="module")
def file(tmp_path_factory, make):
    path = tmp_path_factory.mktemp("detections") / "detections.duckdb"
    make(path)
    return path


@pytest.fixture
def ask(file):
    with duckdb.connect(str(file), read_only=True) as con:
        yield lambda sql: con.execute(sql).fetchall()


def truth(wordnet, name, synset):
    """What a set shows of a synset, by image: regions, score, area."""
    senses = [label_sense(wordnet, label) for label in LABELS]
    found = {}
    for image, label, regions, score, area in seen_by(name):
        sense = senses[label]
        if sense.confidence >= CONFIDENT and synset in wordnet.ancestors(sense.synset):
            before = found.get(image, (0, 0.0, 0.0))
            found[image] = before[0] + regions, max(before[1], score), max(before[2], area)
    return found


def test_seen_is_what_the_labels_and_all_below_them_show(ask, wordnet):
    synsets = [row[0] for row in ask("SELECT DISTINCT synset FROM synsets")]
    assert {"dog.n.01", "canine.n.02", "domestic_animal.n.01", "entity.n.01"} <= set(synsets)
    expected = {
        (synset, name, image): values
        for synset in synsets
        for name in SETS
        for image, values in truth(wordnet, name, synset).items()
    }
    rows = ask("SELECT synset, features, image, regions, score, area FROM seen")
    assert len(rows) == len(expected)
    assert {row[:3]: row[3:] for row in rows} == expected
    keys = [row[:3] for row in rows]
    assert keys == sorted(keys)


def test_counts_are_those_of_what_was_seen(ask, wordnet):
    for synset, name, images, regions in ask("FROM synsets"):
        found = truth(wordnet, name, synset)
        assert (images, regions) == (len(found), sum(v[0] for v in found.values()))
    assert ask("SELECT features, images, empty_images, labels, with_synset FROM feature_sets") == [
        ("grid", 6, 1, 10, 8), ("vinvl", 10, 1, 10, 8),
    ]  # fmt: skip
    rows = seen_by("vinvl")
    for label in range(len(LABELS)):
        of_label = [row for row in rows if row[1] == label]
        sql = f"SELECT images, regions FROM labels WHERE features = 'vinvl' AND label = {label}"
        assert ask(sql) == [(len(of_label), sum(row[2] for row in of_label))]


def test_detections_are_what_was_handed_in(ask):
    for name in SETS:
        sql = f"SELECT image, label, regions, score, area FROM detections WHERE features = '{name}'"
        assert ask(sql) == seen_by(name)
    assert ask("SELECT image FROM images WHERE regions = 0") == [(0,), (0,)]


def test_a_label_that_is_not_sure_is_listed_and_does_not_count(ask):
    ((synset, confidence),) = ask(
        "SELECT DISTINCT synset, confidence FROM labels WHERE name = 'leap'"
    )
    assert confidence < CONFIDENT
    assert ("leap",) in ask(f"SELECT label_name FROM labels_of('{synset}')")
    assert ask(f"FROM images_showing('{synset}')") == []


def test_macros(ask, wordnet):
    dogs = {
        (image, name, score, regions, area)
        for name in SETS
        for image, (regions, score, area) in truth(wordnet, name, "dog.n.01").items()
    }
    assert set(ask("FROM images_showing('dog.n.01')")) == dogs
    assert ask("SELECT features, label_name, distance FROM labels_of('dog.n.01')") == [
        ("grid", "dog", 0), ("vinvl", "dog", 0), ("grid", "puppy", 1), ("vinvl", "puppy", 1),
    ]  # fmt: skip
    shown = ask("SELECT label_name, regions, score FROM shown_in(3) WHERE features = 'vinvl'")
    expected = [(LABELS[r[1]], r[2], r[3]) for r in seen_by("vinvl") if r[0] == 3]
    assert shown == sorted(expected, key=lambda row: -row[2])


@pytest.mark.parametrize(
    "changes",
    [{"threads": 1}, {"threads": 3}, {"size": 1}, {"size": 100, "order": -1}],
    ids=lambda changes: ", ".join(f"{k} {v}" for k, v in changes.items()),
)
def test_same_content_however_it_was_made(make, file, tmp_path, changes):
    made = make(tmp_path / "d.duckdb", **changes)
    with duckdb.connect() as con:
        con.execute(f"ATTACH '{file}' AS a (READ_ONLY)")
        con.execute(f"ATTACH '{tmp_path / 'd.duckdb'}' AS b (READ_ONLY)")
        for table in (*module._HASHED, *module._DERIVED, "meta"):
            one, other = (con.execute(f"FROM {c}.{table}").fetchall() for c in "ab")
            assert one == other, table  # in the same order, too
    assert ("content_hash", made["content_hash"]) in other


def test_cut_into_runs_of_synsets_the_content_is_the_same(make, file, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_ROWS", 7)
    make(tmp_path / "d.duckdb")
    with duckdb.connect(str(tmp_path / "d.duckdb")) as cut, duckdb.connect(str(file)) as whole:
        assert cut.execute("FROM seen").fetchall() == whole.execute("FROM seen").fetchall()


def test_the_content_hash_is_of_what_was_seen(make, tmp_path, monkeypatch):
    before = make(tmp_path / "d.duckdb")["content_hash"]
    monkeypatch.setitem(SETS, "grid", 7)
    assert make(tmp_path / "d.duckdb")["content_hash"] != before


def test_without_any_synset_nothing_is_shown(wordnet, tmp_path):
    labels = [("label_0", ""), ("label_1", "")]
    given = FeatureSet(
        name="f", labels=labels, detected=[], content_hash="c", vocabulary_hash="v"
    )  # fmt: skip
    made = build_detections(tmp_path / "d.duckdb", [given], wordnet=wordnet, versions={})
    assert (made["sets_without_synset"], made["seen"], made["labels"]) == (["f"], 0, 2)


def test_pairs_that_say_dog_and_whose_image_shows_one(file, database, inputs, wordnet):
    with duckdb.connect(str(database), read_only=True) as con:
        pairs = con.execute("SELECT pair, image FROM pairs_of('dog.n.01')").fetchall()
    showing = truth(wordnet, "vinvl", "dog.n.01")
    expected = [pair for pair, image in pairs if image in showing]
    assert 0 < len(expected) < len(pairs)
    found = run_query(
        database,
        "SELECT pair FROM pairs_of('dog.n.01') JOIN detections.images_showing('dog.n.01') "
        "USING (image) WHERE features = 'vinvl' ORDER BY pair",
        attach={"detections": file},
    )
    assert found["pair"].to_pylist() == expected


def test_macros_work_attached_under_the_default_name(file, wordnet):
    with duckdb.connect() as con:
        con.execute(f"ATTACH '{file}' (READ_ONLY)")
        sql = "SELECT count(*) FROM detections.main.images_showing('dog.n.01')"
        expected = sum(len(truth(wordnet, name, "dog.n.01")) for name in SETS)
        assert con.execute(sql).fetchall() == [(expected,)]
        con.execute("USE detections")
        assert con.execute("SELECT count(*) FROM labels_of('dog.n.01')").fetchall() == [(4,)]


def test_a_word_will_do(ask):
    for word in ("dog", "Domestic Dog"):
        assert ask(f"FROM images_showing('{word}')") == ask("FROM images_showing('dog.n.01')")
    assert ask("SELECT synset_of('feline'), synset_of('zebra')") == [("feline.n.01", None)]
    assert ask("FROM here.images_showing('dog')") == ask("FROM images_showing('dog.n.01')")


def test_merged_synsets_are_what_the_ontology_calls_them(tmp_path, wordnet):
    given = FeatureSet(
        name="f", labels=[("food", ""), ("bread", "bread.n.01")], detected=[], content_hash="c",
        vocabulary_hash="v",
    )  # fmt: skip
    build_detections(tmp_path / "detections.duckdb", [given], wordnet=wordnet, versions={})
    with duckdb.connect(str(tmp_path / "detections.duckdb")) as con:
        found = con.execute("SELECT label_name FROM labels_of('food.n.01')").fetchall()
        assert found[0] == ("food",)
        assert ("bread",) in found
        assert con.execute("FROM closure WHERE ancestor = 'food.n.02'").fetchall() == []
        assert con.execute("SELECT synset_of('food.n.02')").fetchall() == [("food.n.01",)]
        sql = "SELECT bool_and(synset_of(c.ancestor) = c.ancestor) FROM closure c"
        assert con.execute(sql).fetchall() == [(True,)]


def test_every_table_and_column_is_commented(ask):
    sql = "FROM duckdb_{}() WHERE comment IS NULL AND NOT internal AND database_name = 'detections'"
    bare = ask(f"SELECT table_name, column_name {sql.format('columns')}")
    assert bare == []
    assert ask(f"SELECT table_name {sql.format('tables')}") == []


def test_file_is_in_the_old_storage_format(file):
    assert int.from_bytes(file.read_bytes()[12:20], "little") == 64  # as 0.10 to 1.1 wrote it
