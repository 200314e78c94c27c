"""``tonics show object``: what the database says of a thing, or why it says nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tonics.ontology import Ontology
from tonics.pipeline.asking.object_page import describe_object, format_object

Run = Callable[..., Any]


def changed(folder: Path, *statements: str) -> Path:
    """Change the ontology of a dataset behind its back."""
    with duckdb.connect() as con:
        con.execute(f"ATTACH '{folder / 'ontology.duckdb'}' AS o")
        for statement in statements:
            con.execute(statement)
    return folder


def test_json_says_what_the_database_says(run: Run, built: Path) -> None:
    found = json.loads(run("-C", built, "show", "object", "dog", "--json").out)
    with Ontology(built / "ontology.duckdb") as ontology:
        (node,) = ontology.query("FROM synsets WHERE synset = 'dog.n.01'").to_pylist()
        beside = ontology.query("FROM cooccurring('dog.n.01') LIMIT 5").to_pylist()
        marked = ontology.captions("dog")
    assert (found["images"], found["pairs"]) == (node["subtree_images"], node["subtree_pairs"])
    assert (found["self_images"], found["self_pairs"]) == (node["self_images"], node["self_pairs"])
    assert found["beside"] == beside
    assert found["path"][0] == "entity.n.01"
    assert found["called"][0]["lemma"] == "dog"
    assert found["called"][0]["mentions"] == 24
    labels = found["detected"].pop("labels")
    assert labels > 100  # ImageNet's breeds
    assert found["detected"] == {"named": 16, "shown": 0, "both": 0}  # shapes, no dogs
    assert [c["caption"] for c in found["captions"]] == [c.caption for c in marked]
    assert len({c["image"] for c in found["captions"]}) == 10


def test_the_page_says_which_words_and_what_stands_beside(run: Run, copy: Path) -> None:
    (copy / "detections.duckdb").unlink()
    out = run("-C", copy, "show", "object", "dog").out
    assert re.search(r"^words: dog, domestic dog", out, re.M)
    assert re.search(r"^captions call it: dog \(24, \w+ [\d.]+\)$", out, re.M)
    assert re.search(r"^beside it +pairs +lift$", out, re.M)
    assert "elsewhere" not in out
    assert "detected" not in out


def test_children_are_limited(built: Path) -> None:
    with Ontology(built / "ontology.duckdb") as ontology:
        found = describe_object(ontology, "entity")
        found["below"] = [{"synset": f"s.n.{n}", "images": n, "pairs": n} for n in range(40)]
        out = format_object(found, 4)
    assert "s.n.14" in out
    assert "s.n.15" not in out
    assert "\nand 25 more\n" in out


def test_a_word_with_several_meanings_says_the_others(run: Run, copy: Path) -> None:
    changed(copy, "INSERT INTO o.main.senses SELECT lemma, 'hound', 'cat.n.01', 'head', 0.6, [], "
                  "4, 4, 4 FROM o.main.senses WHERE lemma = 'dog'")  # fmt: skip
    out = run("-C", copy, "show", "object", "dog").out
    assert out.startswith("dog.n.01: ")
    assert re.search(
        r"^'dog' elsewhere means: cat\.n\.01 \(4, head 0\.6, head 'hound'\)$", out, re.M
    )


def test_what_is_no_object_says_why(run: Run, copy: Path) -> None:
    out = run("-C", copy, "show", "object", "canine.n.02").out
    assert "16 images, 24 pairs in its subtree" in out
    assert re.search(r"^not an object of its own, but counted as \S+: nearly all", out, re.M)
    assert "[dog]" in out


def test_unsure_words_are_said_not_to_count(run: Run, copy: Path) -> None:
    changed(
        copy,
        "UPDATE o.main.senses SET confidence = 0.3 WHERE lemma = 'bus'",
        "DELETE FROM o.main.synset_pairs WHERE synset = 'bus.n.01'",
    )
    out = run("-C", copy, "show", "object", "bus").out
    assert re.search(r"^captions call it: bus \(\d+, \w+ 0\.3, not counted\)$", out, re.M)
    assert "[bus]" in out


@pytest.mark.parametrize(
    ("method", "why"),
    [("frame", "a frame word"), ("unknown", "WordNet has no such noun"), ("measure", "a measure")],
)
def test_a_word_that_is_left_out_is_explained(run: Run, copy: Path, method: str, why: str) -> None:
    changed(copy, f"UPDATE o.main.mentions SET synset = NULL, method = '{method}' "
                  "WHERE lemma = 'umbrella'",
            f"UPDATE o.main.senses SET synset = NULL, method = '{method}' "
            "WHERE lemma = 'umbrella'",
            "UPDATE o.main.words SET mentions = 0 WHERE word = 'umbrella'")  # fmt: skip
    done = run("-C", copy, "show", "object", "umbrella")
    assert done.code == 2
    assert re.search(rf"umbrella: named \d+ times, but left out: {why}", done.err)
    assert "WordNet lists it under umbrella.n.01, which you can ask for" in done.err


def test_hostile_captions_are_shown_as_text(run: Run, copy: Path) -> None:
    changed(copy, "UPDATE o.main.pairs SET caption = 'A red dog' || chr(27) || '[2J[b]' "
                  "|| chr(8238) WHERE caption LIKE '%dog%'")  # fmt: skip
    out = run("-C", copy, "show", "object", "dog").out
    assert "A red [dog]?[2J[b]?" in out
    assert "\x1b" not in out
    assert "\u202e" not in out
