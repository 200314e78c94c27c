"""A finished ontology from Python: synsets and words, captions, and files that are none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest

from tonics.errors import FormatError, InputError, StaleInput
from tonics.ontology import Ontology, reader
from tonics.ontology.questions import run_query


def test_several_readers_at_once(database):
    with Ontology(database) as one, Ontology(database) as two:
        assert one.objects().equals(two.objects())
        assert run_query(database, "SELECT 1 AS one").num_rows == 1


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(StaleInput, match="tonics ontology"):
        Ontology(tmp_path / "none.duckdb")
    broken = tmp_path / "broken.duckdb"
    broken.write_bytes(b"nonsense" * 2000)
    with pytest.raises(FormatError, match="tonics ontology"):
        Ontology(broken)
    other = tmp_path / "other.duckdb"
    duckdb.connect(str(other)).close()
    with pytest.raises(FormatError, match="tonics ontology"):
        Ontology(other)


def test_unknown_word_has_suggestions(database):
    with Ontology(database) as ontology, pytest.raises(InputError, match=r"did you mean .*dog"):
        ontology.pairs("dgo")


def test_a_file_that_another_program_writes_to(database, tmp_path):
    file = Path(shutil.copy(database, tmp_path / "ontology.duckdb"))
    code = (
        f"import duckdb; con = duckdb.connect({str(file)!r}); "
        "con.execute('CREATE TABLE main.mine AS SELECT 1'); print('open', flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as other:
        assert other.stdout.readline() == "open\n"
        for ask in (lambda: Ontology(file), lambda: run_query(file, "SELECT 1")):
            with pytest.raises(InputError, match=r"open for writing.*close it there"):
                ask()
        other.communicate("\n")
    with Ontology(file) as ontology:
        assert ontology.find("dog") == "dog.n.01"


def test_links(database, tmp_path):
    link = tmp_path / "ontology.duckdb"
    link.symlink_to(database)
    with Ontology(link) as ontology:
        assert ontology.find("dog") == "dog.n.01"
    dangling = tmp_path / "dangling.duckdb"
    dangling.symlink_to(tmp_path / "gone.duckdb")
    with pytest.raises(InputError, match=r"a link to '.*gone\.duckdb', where no file is"):
        Ontology(dangling)
    with pytest.raises(FormatError, match="not a file"):
        Ontology(tmp_path)


def test_another_format_version(database, tmp_path):
    file = Path(shutil.copy(database, tmp_path / "ontology.duckdb"))
    with duckdb.connect() as con:
        con.execute(f"ATTACH '{file}' AS old")
        con.execute("UPDATE old.main.meta SET value = '999' WHERE key = 'format'")
    for ask in (lambda: Ontology(file), lambda: run_query(file, "SELECT 1")):
        with pytest.raises(FormatError, match=r"ontology format '999', expected .*tonics ontology"):
            ask()


def test_a_torn_file_is_not_taken_for_a_locked_one(database, tmp_path):
    torn = tmp_path / "torn.duckdb"
    torn.write_bytes(database.read_bytes()[:5000])
    with pytest.raises(FormatError, match="does not open as a DuckDB database"):
        Ontology(torn)


@pytest.mark.parametrize("name", ["dog.n.01", "dog", "dogs", "Dog", " dog ", "domestic dog"])
def test_a_word_does_where_a_synset_is_asked_for(database, name):
    with Ontology(database) as ontology:
        assert ontology.find(name) == "dog.n.01"
        assert ontology.path(name)[-1] == "dog.n.01"
        assert ontology.subtree(name)["synset"][0].as_py() == "dog.n.01"
        assert len(ontology.pairs(name)) == 6


def test_what_is_left_out_is_explained(build, inputs, tmp_path):
    path = tmp_path / "ontology.duckdb"
    build(path)
    with Ontology(path) as ontology:
        left_out = ontology.query(
            "SELECT lemma, method, count(*) AS n FROM mentions GROUP BY ALL "
            "HAVING count(synset) = 0 ORDER BY lemma"
        ).to_pylist()
        assert {row["method"] for row in left_out} & {"frame", "unknown"}
        for row in left_out:
            with pytest.raises(InputError, match=r"named (1 time|\d+ times), but left out: "):
                ontology.find(row["lemma"])
        surface = ontology.query(
            "SELECT surface FROM mentions WHERE synset IS NULL AND lower(surface) <> lemma "
            "AND lower(surface) NOT IN (SELECT word FROM words) LIMIT 1"
        ).to_pylist()
        for row in surface:
            with pytest.raises(InputError, match="but left out: "):
                ontology.find(row["surface"])


def test_meanings_and_words(database):
    with Ontology(database) as ontology:
        dog = [row for row in ontology.meanings("dog") if row["synset"] == "dog.n.01"]
        assert sum(row["mentions"] for row in dog) == 5
        assert all(row["counts"] for row in dog)
        assert {row["lemma"] for row in ontology.words("dog.n.01")} == {"dog"}
        assert ontology.meanings("nothing of the sort") == []


def test_captions_are_marked_varied_and_the_same_every_time(database, inputs):
    with Ontology(database) as ontology:
        found = ontology.captions("animal.n.01", 5)
        assert found == ontology.captions("animal.n.01", 5)
        assert len({caption.image for caption in found}) == 5
        for one in found:
            assert inputs.captions[one.pair] == one.caption
            assert inputs.image_of[one.pair] == one.image
            assert one.spans
        every = ontology.captions("animal.n.01", 100)
        assert [one.pair for one in every] == ontology.pairs("animal.n.01").tolist()
        dogs = {
            one.caption[start:end] for one in ontology.captions("dog") for start, end in one.spans
        }
        assert dogs == {"dog", "dogs", "puppy"}


def test_captions_that_say_the_same_are_shown_once():
    rows = [{"pair": n, "image": n // 2, "caption": f"a dog {n // 8}"} for n in range(40)]
    rows[9]["caption"] = "A dog 1."
    chosen = reader._varied(rows, 10)
    assert [row["caption"] for row in chosen] == [f"a dog {n}" for n in range(5)]


def test_several_threads_share_one_ontology(database):
    with Ontology(database) as ontology:
        names = ["dog", "person.n.01", "cat", "entity.n.01"] * 20
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda name: ontology.pairs(name).tolist(), names))
            captions = list(pool.map(ontology.captions, names))
        assert found == [ontology.pairs(name).tolist() for name in names]
        assert captions == [ontology.captions(name) for name in names]


def test_package_imports_nothing_heavy():
    code = (
        "import sys, tonics.ontology; "
        "print([m for m in ('duckdb', 'nltk', 'spacy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
