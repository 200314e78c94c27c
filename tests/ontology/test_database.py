"""The database: content, tree of objects, macros; all against counts made in plain Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict

import duckdb
import nltk.data
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tonics.errors import FormatError
from tonics.ontology import Ontology
from tonics.ontology.duckfile import STORAGE_VERSION
from tonics.ontology.senses import CONFIDENT, decide


@pytest.fixture(scope="module")
def truth(inputs, wordnet):
    """Pairs of every synset mentioned for sure, straight from the noun tables."""
    nouns = pa.concat_tables(pq.read_table(file) for file in inputs.nouns).to_pylist()
    pairs = defaultdict(set)
    for row in nouns:
        sense = decide(wordnet, row["lemma"], row["head"])
        if sense.synset and sense.confidence >= CONFIDENT:
            pairs[sense.synset].add(row["pair"])
    return pairs


@pytest.fixture(scope="module")
def ontology(database):
    with Ontology(database) as opened:
        yield opened


def rows(ontology, sql, *values):
    return [tuple(row.values()) for row in ontology.query(sql, values).to_pylist()]


def pairs_under(truth, wordnet, name):
    below = [pairs for synset, pairs in truth.items() if name in wordnet.ancestors(synset)]
    return set().union(*below)


def test_mentions_keep_their_words(ontology, inputs):
    mentions = ontology.query("FROM mentions").to_pylist()
    assert {m["pair"] for m in mentions} == set(inputs.captions)
    for m in mentions:
        assert inputs.captions[m["pair"]][m["start"] : m["end"]] == m["surface"]
    by_lemma = {m["lemma"]: (m["synset"], m["method"]) for m in mentions}
    assert by_lemma["goose"] == ("goose.n.01", "physical")
    assert by_lemma["hot dog"] == ("frank.n.02", "curated")
    assert by_lemma["front"] == (None, "frame")
    assert by_lemma["bunch"] == (None, "frame")


def test_closure_is_every_ancestor(ontology, wordnet):
    above = defaultdict(dict)
    for ancestor, descendant, distance in rows(ontology, "FROM closure"):
        above[descendant][ancestor] = distance
    assert set(above) == {s for (s,) in rows(ontology, "SELECT synset FROM synsets")}
    for synset, found in above.items():
        assert set(found) == wordnet.ancestors(synset)
        assert found[synset] == 0
    assert above["dog.n.01"]["domestic_animal.n.01"] == 1
    assert above["dog.n.01"]["animal.n.01"] == 2  # the short way


def test_primary_parents_are_hypernyms(ontology, wordnet):
    for synset, parent, depth in rows(ontology, "SELECT synset, parent, depth FROM synsets"):
        if parent is None:
            assert (synset, depth) == ("entity.n.01", 0)
        else:
            assert parent in wordnet.hypernyms(synset)
    assert ontology.path("dog")[-2:] == ["canine.n.02", "dog.n.01"]
    assert "physical_entity.n.01" in ontology.path("banana")
    marked = rows(ontology, "SELECT synset, hypernym FROM hypernyms WHERE is_parent")
    assert dict(marked) == dict(
        rows(ontology, "SELECT synset, parent FROM synsets WHERE parent IS NOT NULL")
    )


def primary_lines(ontology):
    parents = dict(rows(ontology, "SELECT synset, parent FROM synsets"))
    lines = {}
    for synset in parents:
        line = [synset]
        while parents[line[-1]]:
            line.append(parents[line[-1]])
        lines[synset] = line
    return lines


def test_objects_are_the_tree_that_the_schema_promises(ontology, truth, inputs):
    """The rule above table objects, applied naively."""
    lines, least = primary_lines(ontology), 2
    images = defaultdict(set)
    for synset, pairs in truth.items():
        for name in lines[synset]:
            images[name] |= {inputs.image_of[p] for p in pairs}
    enough = {s for s in images if len(images[s]) >= least}
    kept = {"entity.n.01"}
    for s in enough:
        children = [c for c in enough if len(lines[c]) > 1 and lines[c][1] == s]
        if len(children) != 1:
            kept.add(s)
            continue
        beside = set()
        for synset, pairs in truth.items():
            if s in lines[synset] and children[0] not in lines[synset]:
                beside |= {inputs.image_of[p] for p in pairs}
        if len(beside) >= least:
            kept.add(s)
    objects = ontology.objects().to_pylist()
    assert {o["synset"] for o in objects} == kept
    assert len(kept) < len(enough)  # the data has chains to compress
    nearest = {s: next(a for a in lines[s] if a in kept) for s in lines}
    for o in objects:
        own = {p for s, pairs in truth.items() if nearest[s] == o["synset"] for p in pairs}
        sub = {p for s, pairs in truth.items() if o["synset"] in lines[s] for p in pairs}
        assert (o["own_pairs"], o["subtree_pairs"]) == (len(own), len(sub))
        assert o["own_images"] == len({inputs.image_of[p] for p in own})
        assert o["subtree_images"] == len({inputs.image_of[p] for p in sub})
        assert o["subtree_images"] >= least


def test_object_numbers(ontology):
    objects = ontology.objects().to_pylist()
    parents = ontology.object_parents()
    assert [o["object"] for o in objects] == list(range(len(objects)))
    assert (objects[0]["synset"], objects[0]["parent"], objects[0]["depth"]) == (
        "entity.n.01",
        -1,
        0,
    )
    assert parents.dtype == "int32"
    assert parents.tolist() == [o["parent"] for o in objects]
    for o in objects[1:]:
        assert o["parent"] < o["object"]
        assert o["depth"] == objects[o["parent"]]["depth"] + 1
    order = [(o["depth"], o["synset"]) for o in objects]
    assert order == sorted(order)


def test_deepest_objects(ontology, truth):
    lines = primary_lines(ontology)
    names = [o["synset"] for o in ontology.objects().to_pylist()]
    expected = set()
    for pair in set().union(*truth.values()):
        own = {
            next(a for a in lines[s] if a in names) for s, pairs in truth.items() if pair in pairs
        }
        expected |= {
            (pair, names.index(o)) for o in own if not any(o in lines[p] and p != o for p in own)
        }
    found = ontology.deepest_objects()
    assert found.schema.equals(pa.schema([("pair", pa.int64()), ("object", pa.int32())]))
    listed = list(zip(*(c.to_pylist() for c in found.columns), strict=True))
    assert listed == sorted(expected)


@pytest.mark.parametrize("name", ["dog.n.01", "animal.n.01", "domestic_animal.n.01", "entity.n.01"])
def test_pairs_and_images_of(ontology, truth, wordnet, inputs, name):
    pairs = pairs_under(truth, wordnet, name)
    assert ontology.pairs(name).tolist() == sorted(pairs)
    found = ontology.query("FROM pairs_of(?)", [name]).to_pylist()
    assert [r["pair"] for r in found] == sorted(pairs)
    assert all(r["caption"] == inputs.captions[r["pair"]] for r in found)
    images = ontology.query("FROM images_of(?)", [name]).to_pylist()
    assert {r["image"]: r["pairs"] for r in images} == {
        i: sum(inputs.image_of[p] == i for p in pairs) for i in {inputs.image_of[p] for p in pairs}
    }


def test_subtree_and_ancestors(ontology, truth, wordnet):
    found = ontology.subtree("animal.n.01").to_pylist()
    names = {s for (s,) in rows(ontology, "SELECT synset FROM synsets")}
    assert {r["synset"] for r in found} == {
        s for s in names if "animal.n.01" in wordnet.ancestors(s)
    }
    assert {r["synset"]: r["pairs"] for r in found}["dog.n.01"] == len(truth["dog.n.01"])
    above = ontology.query("FROM ancestors('dog.n.01')").to_pylist()
    assert {r["synset"] for r in above} == wordnet.ancestors("dog.n.01")
    assert above[0]["synset"] == "dog.n.01"


def test_cooccurring(ontology, truth, inputs):
    lines = primary_lines(ontology)
    names = [o["synset"] for o in ontology.objects().to_pylist()]
    nearest = {s: next(a for a in lines[s] if a in names) for s in lines}
    for name in names:
        about = {p for s, pairs in truth.items() if name in lines[s] for p in pairs}
        counts = defaultdict(set)
        for synset, pairs in truth.items():
            other = nearest[synset]
            if name not in lines[other] and other not in lines[name]:
                counts[other] |= pairs & about
        expected = {other: len(pairs) for other, pairs in counts.items() if pairs}
        found = ontology.query("FROM cooccurring(?)", [name]).to_pylist()
        assert {r["synset"]: r["pairs"] for r in found} == expected
        assert [r["pairs"] for r in found] == sorted(expected.values(), reverse=True)
        for r in found:
            own = {p for s, pairs in truth.items() if nearest[s] == r["synset"] for p in pairs}
            by_chance = len(about) * len(own) / len(inputs.captions)
            assert r["lift"] == pytest.approx(r["pairs"] / by_chance, abs=0.006)
    assert found


def test_find(ontology):
    assert ontology.find("dog") == "dog.n.01"
    assert ontology.find("dog.n.01") == "dog.n.01"
    assert ontology.find("People") == "person.n.01"
    assert ontology.find("domestic animal") == "domestic_animal.n.01"


def test_content_hash_is_of_content(build, database, tmp_path, inputs):
    with Ontology(database) as opened:
        content = opened.content_hash
        assert opened.meta["spacy"] == "x"
    for threads in (1, 2, 4):
        again = build(tmp_path / f"{threads}.duckdb", threads=threads, versions={"spacy": "y"})
        assert again["content_hash"] == content
    backwards = build(tmp_path / "b.duckdb", nouns=inputs.nouns[::-1])
    assert backwards["content_hash"] == content
    assert build(tmp_path / "m.duckdb", min_images=3)["content_hash"] != content
    assert build(tmp_path / "n.duckdb", nouns=inputs.nouns[1:])["content_hash"] != content


_BUILD = """
import json, sys
from pathlib import Path
import nltk.data
from tonics.ontology.database import build_database
from tonics.ontology.wordnet import open_wordnet
given = json.loads(sys.argv[1])
nltk.data.path[:] = given["nltk"]
print(build_database(
    Path(given["path"]), nouns=[Path(p) for p in given["nouns"]], pairs=Path(given["pairs"]),
    images=Path(given["images"]), wordnet=open_wordnet(), min_images=2, versions={},
)["content_hash"])
"""


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_content_hash_in_another_process(database, inputs, tmp_path, seed):
    """Nothing depends on the order of a set, which another process hashes otherwise."""
    given = {
        "nltk": nltk.data.path,
        "path": str(tmp_path / "o.duckdb"),
        "nouns": [str(p) for p in inputs.nouns],
        "pairs": str(inputs.pairs),
        "images": str(inputs.images),
    }
    command = [sys.executable, "-c", _BUILD, json.dumps(given)]
    env = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    with Ontology(database) as opened:
        assert done.stdout.strip() == opened.content_hash


def test_same_tables_whatever_the_threads(build, tmp_path):
    tables = []
    for threads in (1, 4):
        path = tmp_path / f"{threads}.duckdb"
        build(path, threads=threads)
        with Ontology(path) as opened:
            names = [r["name"] for r in opened.query("SHOW TABLES").to_pylist()]
            tables.append({n: opened.query(f"FROM {n}") for n in names if n != "senses"})
    assert tables[0].keys() == tables[1].keys()
    stored = [n for n in tables[0] if n not in ("synset_pairs", "meta")]
    assert all(tables[0][n].equals(tables[1][n]) for n in stored)


def test_no_nouns_at_all(build, tmp_path):
    counts = build(tmp_path / "empty.duckdb", nouns=[])
    assert (counts["mentions"], counts["objects"]) == (0, 1)
    with Ontology(tmp_path / "empty.duckdb") as opened:
        assert opened.objects().to_pylist()[0]["synset"] == "entity.n.01"
        assert opened.deepest_objects().num_rows == 0


def test_nouns_of_pairs_that_are_gone_are_left_out(build, tmp_path, inputs):
    fewer = tmp_path / "pairs.parquet"
    pq.write_table(pq.read_table(inputs.pairs).slice(0, 5), fewer)
    build(tmp_path / "o.duckdb", pairs=fewer)
    with Ontology(tmp_path / "o.duckdb") as opened:
        assert set(opened.query("FROM mentions")["pair"].to_pylist()) == set(range(5))


def test_every_column_has_its_comment(ontology):
    bare = rows(
        ontology,
        "SELECT table_name, column_name FROM duckdb_columns() WHERE comment IS NULL "
        "AND NOT internal AND table_name IN (SELECT table_name FROM duckdb_tables())",
    )
    assert bare == []
    assert rows(ontology, "SELECT count(*) FROM duckdb_tables() WHERE comment IS NOT NULL") == [
        (10,)
    ]


def test_opens_under_any_name_and_attached(database, tmp_path, truth, wordnet):
    copy = tmp_path / "renamed copy.db"
    shutil.copyfile(database, copy)
    expected = len(pairs_under(truth, wordnet, "animal.n.01"))
    count = "SELECT count(*) FROM pairs_of('animal.n.01')"
    with duckdb.connect(str(copy), read_only=True) as con:
        assert con.execute(count).fetchone() == (expected,)
    with duckdb.connect() as con:
        con.execute(f"ATTACH '{copy}' AS onto (READ_ONLY)")
        view = "SELECT count(*) FROM onto.synset_pairs WHERE synset = 'animal.n.01'"
        assert con.execute(view).fetchone() == (expected,)
        con.execute("USE onto")
        assert con.execute(count).fetchone() == (expected,)


def test_file_is_in_the_old_storage_format(database):
    assert STORAGE_VERSION == "v1.0.0"
    assert int.from_bytes(database.read_bytes()[12:20], "little") == 64  # as 0.10 to 1.1 wrote it


def test_damaged_inputs(build, tmp_path):
    wrong = tmp_path / "pairs.parquet"
    wrong.write_bytes(b"not parquet")
    with pytest.raises(FormatError, match=r"pairs\.parquet"):
        build(tmp_path / "o.duckdb", pairs=wrong)
    pq.write_table(pa.table({"pair": [1]}), wrong)
    with pytest.raises(FormatError, match=r"pairs\.parquet.*Referenced column"):
        build(tmp_path / "o.duckdb", pairs=wrong)


def test_nothing_is_left_beside_the_file(build, tmp_path):
    build(tmp_path / "o.duckdb")
    assert [p.name for p in tmp_path.iterdir()] == ["o.duckdb"]
