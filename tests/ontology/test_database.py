"""The database: content, tree of objects, macros; all against counts made in plain Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import duckdb
import nltk.data
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tonics.errors import FormatError
from tonics.ontology import Ontology
from tonics.ontology.senses import CONFIDENT, decide
from tonics.ontology.tables import merged_synsets
from tonics.ontology.writing.duckfile import STORAGE_VERSION


@pytest.fixture(scope="module")
def truth(inputs, wordnet):
    """Pairs of every synset mentioned for sure, straight from the noun tables."""
    nouns = pa.concat_tables(pq.read_table(file) for file in inputs.nouns).to_pylist()
    pairs = defaultdict(set)
    for row in nouns:
        sense = decide(wordnet, row["lemma"], row["head"])
        if sense.synset and sense.confidence >= CONFIDENT and row["role"] == "noun":
            kept, _ = merged_synsets().get(sense.synset, (sense.synset, ""))
            pairs[kept].add(row["pair"])
    return pairs


@pytest.fixture(scope="module")
def ontology(database):
    with Ontology(database) as opened:
        yield opened


def rows(ontology, sql, *values):
    return [tuple(row.values()) for row in ontology.query(sql, values).to_pylist()]


class Merged:
    """WordNet with the synsets that stand for others in their place, walked naively."""

    def __init__(self, wordnet):
        self.wordnet, table = wordnet, merged_synsets()
        self.kept = {synset: kept for synset, (kept, _) in table.items()}

    def hypernyms(self, name):
        return {self.kept.get(h, h) for h in self.wordnet.hypernyms(name)}

    def ancestors(self, name):
        return {name}.union(*(self.ancestors(h) for h in self.hypernyms(name)))


@pytest.fixture(scope="module")
def graph(wordnet):
    return Merged(wordnet)


def pairs_under(truth, graph, name):
    below = [pairs for synset, pairs in truth.items() if name in graph.ancestors(synset)]
    return set().union(*below)


def test_mentions_keep_their_words(ontology, inputs):
    mentions = ontology.query("FROM mentions").to_pylist()
    assert {m["pair"] for m in mentions} == set(inputs.captions)
    for m in mentions:
        assert inputs.captions[m["pair"]][m["start"] : m["end"]] == m["surface"]
    by_lemma = {m["lemma"]: (m["synset"], m["method"]) for m in mentions}
    assert by_lemma["goose"][0] == "goose.n.01"
    assert by_lemma["hot dog"] == ("frank.n.02", "curated")
    assert by_lemma["front"] == (None, "frame")
    assert by_lemma["bunch"] == (None, "measure")


def test_closure_is_every_ancestor(ontology, graph):
    above = defaultdict(dict)
    for ancestor, descendant, distance in rows(ontology, "FROM closure"):
        above[descendant][ancestor] = distance
    assert set(above) == {s for (s,) in rows(ontology, "SELECT synset FROM synsets")}
    for synset, found in above.items():
        assert set(found) == graph.ancestors(synset)
        assert found[synset] == 0
    assert above["dog.n.01"]["domestic_animal.n.01"] == 1
    assert above["dog.n.01"]["animal.n.01"] == 2  # the short way


def test_primary_parents_are_hypernyms(ontology, graph):
    for synset, parent, depth in rows(ontology, "SELECT synset, parent, depth FROM synsets"):
        if parent is None:
            assert (synset, depth) == ("entity.n.01", 0)
        else:
            assert parent in graph.hypernyms(synset)
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
def test_pairs_and_images_of(ontology, truth, graph, inputs, name):
    pairs = pairs_under(truth, graph, name)
    assert ontology.pairs(name).tolist() == sorted(pairs)
    found = ontology.query("FROM pairs_of(?)", [name]).to_pylist()
    assert [r["pair"] for r in found] == sorted(pairs)
    assert all(r["caption"] == inputs.captions[r["pair"]] for r in found)
    images = ontology.query("FROM images_of(?)", [name]).to_pylist()
    assert {r["image"]: r["pairs"] for r in images} == {
        i: sum(inputs.image_of[p] == i for p in pairs) for i in {inputs.image_of[p] for p in pairs}
    }


def test_subtree_and_ancestors(ontology, truth, graph):
    found = ontology.subtree("animal.n.01").to_pylist()
    names = {s for (s,) in rows(ontology, "SELECT synset FROM synsets")}
    assert {r["synset"] for r in found} == {s for s in names if "animal.n.01" in graph.ancestors(s)}
    counts = {r["synset"]: (r["self_pairs"], r["subtree_pairs"]) for r in found}
    assert counts["dog.n.01"][0] == len(truth["dog.n.01"]) < counts["animal.n.01"][1]
    above = ontology.query("FROM ancestors('dog.n.01')").to_pylist()
    assert {r["synset"] for r in above} == graph.ancestors("dog.n.01")
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
            tables.append({n: opened.query(f"FROM {n}") for n in names})
            tables[-1] |= {q: opened.query(q) for q in QUESTIONS}
    assert tables[0].keys() == tables[1].keys()
    assert [n for n in tables[0] if n != "meta" and not tables[0][n].equals(tables[1][n])] == []


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
    for what, kind in (("table", "tables"), ("view", "views"), ("function", "functions")):
        sql = f"SELECT {what}_name FROM duckdb_{kind}() WHERE comment IS NULL AND NOT internal "
        assert rows(ontology, f"{sql} AND schema_name = 'main'") == []
    about = "SELECT comment FROM duckdb_functions() WHERE function_name = 'pairs_of' LIMIT 1"
    assert rows(ontology, about)[0][0].startswith("Pairs whose captions mention it")


def test_synset_membership(ontology, truth, graph, inputs):
    """Every synset with the pairs and images that speak of it or of something below it."""
    found = defaultdict(dict)
    for row in ontology.query("FROM synset_pairs").to_pylist():
        found[row["synset"]][row["pair"]] = row
    images = defaultdict(dict)
    for synset, image, count in rows(ontology, "FROM synset_images"):
        images[synset][image] = count
    for row in ontology.query("FROM synsets").to_pylist():
        name = row["synset"]
        pairs = pairs_under(truth, graph, name)
        assert set(found[name]) == pairs
        assert {p for p, r in found[name].items() if r["self"]} == truth.get(name, set())
        of = {inputs.image_of[p] for p in pairs}
        assert images[name] == {i: sum(inputs.image_of[p] == i for p in pairs) for i in of}
        assert (row["subtree_pairs"], row["subtree_images"]) == (len(pairs), len(of))
        assert row["self_pairs"] == len(truth.get(name, ()))
        assert row["self_images"] == len({inputs.image_of[p] for p in truth.get(name, ())})


def test_merged_synsets_are_one_node(ontology):
    merged = {s: kept for s, kept, _ in rows(ontology, "FROM merged")}
    assert merged["food.n.02"] == "food.n.01"
    everywhere = (
        "SELECT synset FROM synsets UNION SELECT hypernym FROM hypernyms "
        "UNION SELECT ancestor FROM closure UNION SELECT synset FROM mentions"
    )
    assert not set(merged) & {s for (s,) in rows(ontology, everywhere)}
    food = {s for (s,) in rows(ontology, "SELECT synset FROM subtree('food')")}
    assert {"banana.n.02", "frank.n.02"} <= food  # WordNet has them under food.n.02 and food.n.01
    assert rows(ontology, "SELECT synset_of('food.n.02')") == [("food.n.01",)]
    assert ontology.find("food.n.02") == "food.n.01"


def test_words_stand_for_synsets(ontology):
    for word in ("dog", "Dogs", " dog", "dog.n.01", "domestic dog", "domestic_dog"):
        assert rows(ontology, "SELECT synset_of(?)", word) == [("dog.n.01",)]
    assert rows(ontology, "SELECT synset_of('zebra')") == [(None,)]
    assert rows(ontology, "SELECT count(*) FROM pairs_of('zebra')") == [(0,)]
    assert rows(ontology, "FROM pairs_of('geese')") == rows(ontology, "FROM pairs_of('goose.n.01')")
    assert rows(ontology, "SELECT count(*), count(DISTINCT word) FROM words WHERE word <> ''")[0][
        0
    ] == len(rows(ontology, "SELECT DISTINCT word FROM words"))


@pytest.mark.parametrize("alias", ["s", "w", "g", "c", "p", "x"])
def test_an_argument_means_the_callers_columns(ontology, alias):
    sql = f"SELECT bool_and(synset_of({alias}.synset) = {alias}.synset) FROM synsets {alias}"
    assert rows(ontology, sql) == [(True,)]
    count = f"(SELECT count(*) FROM pairs_of({alias}.synset))"
    sql = f"SELECT bool_and({count} = {alias}.subtree_pairs) FROM synsets {alias}"
    assert rows(ontology, sql) == [(True,)]


def test_what_is_no_object_appears_with_what_its_object_does(ontology):
    assert rows(ontology, "SELECT object FROM objects WHERE synset = 'puppy.n.01'") == []
    assert rows(ontology, "FROM cooccurring('puppy')") == rows(ontology, "FROM cooccurring('dog')")


def test_captions_of_mark_the_noun(ontology, inputs):
    found = ontology.query("FROM captions_of('animal')").to_pylist()
    assert [r["pair"] for r in found] == ontology.pairs("animal.n.01").tolist()
    for row in found:
        caption = inputs.captions[row["pair"]]
        assert row["caption"].replace("[", "").replace("]", "") == caption
    marked = {r["caption"] for r in found}
    assert "A man and a [dog] in a park near a tree." in marked
    assert "Three [geese] near a fire hydrant." in marked


def test_what_the_dataset_is_about(ontology, truth, inputs):
    about = {r["class"]: r for r in ontology.query("FROM about").to_pylist()}
    named = [r["images"] for r in about.values()]
    assert named == sorted(named, reverse=True)
    people = {"man.n.01", "male_child.n.01", "female_child.n.01", "woman.n.01"}
    images = {inputs.image_of[p] for s in people for p in truth[s]}
    assert about["person"]["images"] == len(images)
    assert about["person"]["share"] == round(len(images) / len(set(inputs.image_of.values())), 3)
    assert about["person"]["foremost"][0] in ("male_child.n.01", "man.n.01")
    frequent = ontology.query("FROM most_frequent").to_pylist()
    assert [r["images"] for r in frequent] == sorted((r["images"] for r in frequent), reverse=True)
    rare = ontology.query("FROM least_frequent").to_pylist()
    assert rare[0]["images"] == min(o["subtree_images"] for o in ontology.objects().to_pylist())


def test_objects_under(ontology):
    found = ontology.query("FROM objects_under('animal')").to_pylist()
    objects = {o["synset"] for o in ontology.objects().to_pylist()}
    below = {s for (s,) in rows(ontology, "SELECT synset FROM subtree('animal')")} - {"animal.n.01"}
    assert {r["synset"] for r in found} == objects & below
    counts = {r["synset"]: r["images"] for r in found}
    assert counts["dog.n.01"] == rows(ontology, "SELECT count(*) FROM images_of('dog')")[0][0]


def test_ambiguous_and_left_out(ontology, wordnet):
    listed = {r["lemma"]: r for r in ontology.query("FROM ambiguous").to_pylist()}
    assert listed["table"]["synset"] == "table.n.02"
    dog = listed["dog"]
    assert {dog["synset"], *dog["alternatives"]} == set(wordnet.noun_synsets("dog"))
    out = {r["lemma"]: r["why"] for r in ontology.query("FROM left_out").to_pylist()}
    assert (out["front"], out["bunch"]) == ("frame", "measure")
    assert "dog" not in out
    (mentions,) = rows(ontology, "SELECT sum(mentions) FROM senses")[0]
    assert mentions == rows(ontology, "SELECT count(*) FROM mentions")[0][0]
    decided = ontology.query("FROM decided('dog')").to_pylist()
    assert [r["lemma"] for r in decided] == ["dog", "hot dog"]


QUESTIONS = (
    "FROM about",
    "FROM most_frequent LIMIT 5",
    "FROM least_frequent LIMIT 5",
    "FROM pairs_of('dog') LIMIT 3",
    "FROM captions_of('entity') LIMIT 3",
    "FROM images_of('person') LIMIT 3",
    "FROM subtree('animal') LIMIT 3",
    "FROM ancestors('dog') LIMIT 3",
    "FROM objects_under('entity') LIMIT 3",
    "FROM cooccurring('dog') LIMIT 3",
    "FROM decided('dog')",
    "FROM ambiguous LIMIT 5",
    "FROM left_out LIMIT 5",
    "SELECT synset_of('dogs')",
)
_ASK = """
import duckdb, json, sys
path, questions = sys.argv[1], json.loads(sys.argv[2])

def ask(con, prefix=""):
    found = []
    for question in questions:
        words = question.split(" ", 1)
        words[1] = prefix + words[1]
        found.append(con.execute(" ".join(words)).fetchall())
    return found

opened = ask(duckdb.connect(path, read_only=True))
con = duckdb.connect()
con.execute(f"ATTACH '{path}' (READ_ONLY)")
questions = [q for q in questions if "(" in q]
attached = ask(con, "ontology.main.")
print(json.dumps([duckdb.__version__, opened, attached], default=str))
"""


def old_clients():
    folder = Path(sys.prefix) / "old"
    return sorted(folder.glob("duckdb-*")) or [folder / "duckdb-none"]


@pytest.mark.parametrize("client", old_clients(), ids=lambda p: p.name)
def test_old_clients_answer_the_same(database, client):
    """Opened under its own name, and attached, by a DuckDB of years ago."""
    if not client.exists():
        pytest.skip("no old DuckDB here: 'make test' installs some")
    command = [sys.executable, "-c", _ASK, str(database), json.dumps(QUESTIONS)]
    env = {**os.environ, "PYTHONPATH": str(client)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    version, opened, attached = json.loads(done.stdout)
    assert client.name == f"duckdb-{version}"
    with duckdb.connect(str(database), read_only=True) as con:
        expected = [con.execute(q).fetchall() for q in QUESTIONS]
    plain = json.loads(json.dumps(expected, default=str))
    assert opened == plain
    assert attached == [a for q, a in zip(QUESTIONS, plain, strict=True) if "(" in q]


def test_opens_under_any_name_and_attached(database, tmp_path, truth, graph):
    copy = tmp_path / "renamed copy.db"
    shutil.copyfile(database, copy)
    expected = len(pairs_under(truth, graph, "animal.n.01"))
    count = "SELECT count(*) FROM {}pairs_of('animal')"
    with duckdb.connect(str(database), read_only=True) as con:
        assert con.execute(count.format("")).fetchone() == (expected,)
    with duckdb.connect() as con:
        con.execute(f"ATTACH '{database}' (READ_ONLY)")
        assert con.execute(count.format("ontology.")).fetchone() == (expected,)
    with duckdb.connect(str(copy), read_only=True) as con:
        assert con.execute(count.format("here.")).fetchone() == (expected,)
    with duckdb.connect() as con:
        con.execute(f"ATTACH '{copy}' AS onto (READ_ONLY)")
        view = "SELECT count(*) FROM onto.confident_mentions"
        assert con.execute(view).fetchone()[0] > expected
        con.execute("USE onto")
        for question in QUESTIONS:
            word, _, rest = question.partition(" ")
            macro = "(" in question
            con.execute(f"{word} here.{rest}" if macro else question).fetchall()


def test_every_macro_is_there_twice(ontology):
    macros = rows(
        ontology,
        "SELECT schema_name, function_name, macro_definition FROM duckdb_functions() "
        "WHERE database_name = 'ontology' AND NOT internal",
    )
    main = {name for schema, name, _ in macros if schema == "main"}
    assert main == {name for schema, name, _ in macros if schema == "here"}
    assert {"pairs_of", "synset_of", "cooccurring"} <= main
    assert all("ontology" not in text for schema, _, text in macros if schema == "here")


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
