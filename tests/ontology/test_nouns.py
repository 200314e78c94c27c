"""What is found in a caption: nouns, compounds, lemmas, and exact spans."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tonics.ontology.nouns import NOUNS_SCHEMA, clean, count_known, find_nouns

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
    ("a man in a black t - shirt", ["man", "t-shirt"]),
    ("a man's hat", ["man", "hat"]),
    ("a tan dog in a yellow jacket", ["dog", "jacket"]),
    ("the park bench near a dirt bike rider", ["park bench", "dirt bike rider"]),
    ("a man riding horses", ["man", "horse"]),
    ("orange juice and an orange", ["orange juice", "orange"]),
    ("a stop sign and two traffic lights", ["stop sign", "traffic light"]),
    ("skate boards and a sail boat near a lamp post", ["skateboard", "sailboat", "lamppost"]),
    ("a sports team in a leather jacket", ["sports team", "leather jacket"]),
    ("a couple dogs and a group photo", ["couple", "dog", "group photo"]),
    ("", []),
    ("!!! ... 123", []),
]


@pytest.mark.parametrize(("caption", "lemmas"), LEMMAS)
def test_nouns_of_a_caption(parser, wordnet, caption, lemmas):
    found = find_nouns(parser, [0], [caption], known=wordnet.knows)
    assert found.column("lemma").to_pylist() == lemmas


NO_NOUNS = [  # the lemmas in full: what is a verb or an adjective is not among them
    ("A black dog chases a boy.", ["dog", "boy"]),
    ("A man in a red shirt climbs a rock.", ["man", "shirt", "rock"]),
    ("The girl dances with a friend .", ["girl", "friend"]),
    ("A man lounges in a hotel room .", ["man", "hotel room"]),
    ("Two dogs wrestle on the grass", ["dog", "grass"]),
    (
        "Three women in old-fashioned clothing stand in the street .",
        ["woman", "clothing", "street"],
    ),
    ("A man and a woman ride bikes", ["man", "woman", "bike"]),
    ("A zebra standing in the field , a dog playing", ["zebra", "field", "dog"]),
    ("Blurry photograph of a tattooed performer", ["photograph", "performer"]),
    ("a young man in a navy blue suit", ["man", "suit"]),
    ("a salmon colored bikini", ["bikini"]),
    ("a man in a blue jacket skiing", ["man", "jacket"]),
    ("a person on a side walk near a fruit stand", ["person", "sidewalk", "fruit stand"]),
    ("a boy in a school uniform and a tie", ["boy", "school uniform", "tie"]),
]


@pytest.mark.parametrize(("caption", "lemmas"), NO_NOUNS)
def test_verbs_and_adjectives_are_no_nouns(parser, wordnet, caption, lemmas):
    found = find_nouns(parser, [0], [caption], known=wordnet.knows)
    assert found.column("lemma").to_pylist() == lemmas


ROLES = [
    ("a bunch of ripe bananas", {"bunch": "measure", "banana": "noun"}),
    ("two slices of pizza on a plate", {"slice": "measure", "pizza": "noun", "plate": "noun"}),
    ("a slice on a plate", {"slice": "noun", "plate": "noun"}),
    ("a herd of cows grazing", {"herd": "measure", "cow": "noun"}),
    ("the herd is near a river", {"herd": "noun", "river": "noun"}),
    ("a group of three young men", {"group": "measure", "man": "noun"}),
    ("a couple of dogs", {"couple": "measure", "dog": "noun"}),
    ("a couple sits on a bench", {"couple": "noun", "bench": "noun"}),
    ("a dozen eggs", {"dozen": "measure", "egg": "noun"}),
    ("a variety of fresh vegetables", {"variety": "measure", "vegetable": "noun"}),
    ("a large body of water", {"body": "measure", "water": "noun"}),
    ("the body of a dog", {"body": "noun", "dog": "noun"}),
    ("a pair of slices of bread", {"pair": "measure", "slice": "measure", "bread": "noun"}),
    ("two glasses of wine", {"glass": "noun", "wine": "noun"}),
    ("a bowl of soup", {"bowl": "noun", "soup": "noun"}),
    ("a cup of coffee in front of a window", {"cup": "noun", "coffee": "noun", "front": "frame"}),
    ("a view of the city in the background", {"view": "frame", "background": "frame"}),
    ("a row of cars", {"row": "frame", "car": "noun"}),
    ("a picture frame", {"picture frame": "noun"}),
    ("a close - up of a cat", {"close-up": "frame", "cat": "noun"}),
    ("a close up of a cat", {"close": "frame", "cat": "noun"}),
]


@pytest.mark.parametrize(("caption", "roles"), ROLES)
def test_roles(parser, wordnet, caption, roles):
    found = find_nouns(parser, [0], [caption], known=wordnet.knows).to_pylist()
    assert roles.items() <= {row["lemma"]: row["role"] for row in found}.items()


CAPITALS = "A MAN AND TWO DOGS ON A BENCH"


@pytest.mark.parametrize("caption", [CAPITALS, CAPITALS.title(), CAPITALS.lower()])
def test_capitals_do_not_matter(parser, wordnet, caption):
    rows = find_nouns(parser, [0], [caption], known=wordnet.knows).to_pylist()
    assert [row["lemma"] for row in rows] == ["man", "dog", "bench"]
    assert [row["surface"] for row in rows] == [caption[2:5], caption[14:18], caption[24:]]


def test_names_keep_their_capitals():
    caption = "A woman in New York with an ATV and a San Francisco Giants cap"
    assert clean(caption) == caption
    assert clean("STOP") == "STOP"
    assert len(clean("İSTANBUL VE İZMİR")) == len("İSTANBUL VE İZMİR")


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
    assert found.filter(pc.equal(found["pair"], 5)).column("lemma").to_pylist() == [
        "dog",
        "cat",
    ]


def test_equal_captions_are_parsed_once(parser, monkeypatch):
    seen, tag = [], parser.tag
    monkeypatch.setattr(parser, "tag", lambda texts: seen.extend(texts) or tag(texts))
    captions, told = ["a dog", "a cat", "a dog", "a dog", "a cat"], []
    find_nouns(parser, range(5), captions, advance=told.append)
    assert seen == ["a dog", "a cat"]
    assert sum(told) == 5


def test_a_hundred_thousand_characters(parser, wordnet):
    words = "a dog\x00 and a fire hydrant near \x1b[31m" * 3000
    found = find_nouns(parser, [0], [words], known=wordnet.knows)
    assert len(words) > 100_000
    assert found.column("lemma").to_pylist().count("dog") == 3000
    surfaces = {words[r["start"] : r["end"]] == r["surface"] for r in found.to_pylist()}
    assert surfaces == {True}
    (row,) = find_nouns(parser, [0], ["dog" * 40_000], known=wordnet.knows).to_pylist()
    assert (row["start"], row["end"]) == (0, 120_000)


def test_long_runs_of_nouns_take_no_longer_each(parser, wordnet):
    found = find_nouns(parser, [0], ["dog stand dogs " * 7000], known=wordnet.knows)
    assert found.num_rows >= 7000


@pytest.mark.parametrize("caption", ["", "   ", "\x1b[31m\x00", "<br><br>", "\u200b\n", "!?"])
def test_nothing_is_left(parser, wordnet, caption):
    assert find_nouns(parser, [0], [caption], known=wordnet.knows).num_rows == 0


def test_known_nouns_are_counted(parser, wordnet):
    english = ["a dog on a park bench", "a dog", "two skateboarders"]
    german = ["Ein Regenschirm neben dem Fenster", "Zwei Kinder am Strand"]
    shares = []
    for captions in (english, german):
        found = find_nouns(parser, range(len(captions)), captions, known=wordnet.knows)
        shares.append(count_known(found, wordnet.knows) / found.num_rows)
    assert shares[0] == 1 > 0.7 > shares[1]


def test_the_same_nouns_whatever_else_is_parsed_with_them(parser, wordnet):
    captions = [caption for caption, _ in LEMMAS]
    together = find_nouns(parser, range(len(captions)), captions, known=wordnet.knows)
    alone = pa.concat_tables(
        find_nouns(parser, [i], [c], known=wordnet.knows) for i, c in enumerate(captions)
    )
    assert together.equals(alone.combine_chunks())


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A dog bites a stick .", ["dog", "stick"]),
        ("the man in red watches", ["man"]),
        ("another watches the game", ["game"]),
        ("a man with two watches", ["man", "watch"]),
        ("a cyclist airborne over a hill", ["cyclist", "hill"]),
        ("a walkie talkie", ["walkie-talkie"]),
        ("A girl in a pink top .", ["girl", "top"]),
        ("woman in a tube top", ["woman", "tube top"]),
        ("a dog on its back", ["dog", "back"]),
        ("a dog with brown spots", ["dog", "spot"]),
        ("a bird on top of the back of a bus", ["bird", "bus"]),
        ("A couple kisses on the street", ["couple", "street"]),
        ("The couple takes a hike", ["couple", "hike"]),
        ("a couple of dogs", ["dog"]),
    ],
)
def test_things_beside_verbs_and_frames(parser, wordnet, caption, expected):
    found = find_nouns(parser, [0], [caption], known=wordnet.knows).to_pylist()
    assert [r["lemma"] for r in found if r["role"] == "noun"] == expected


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("<b>Two Men Sitting On A Bench</b>", "   two men sitting on a bench    "),
        ("  A Dog On The Beach", "  a dog on the beach"),
        ("I <3 my dog >:)", "I <3 my dog >:)"),
        ("a dog!!! " + "(!$" * 10, "a dog!!! " + " " * 30),
    ],
)
def test_cleaning(text, cleaned):
    assert clean(text) == cleaned


@pytest.mark.parametrize("sign", "!$(<'\"…")
def test_a_hundred_thousand_signs_are_read_at_once(parser, wordnet, sign):
    """One by one they would take the tokenizer half an hour."""
    found = find_nouns(parser, [0], [sign * 100_000 + " a dog"], known=wordnet.knows)
    assert found["lemma"].to_pylist() == ["dog"]
    assert found["start"].to_pylist() == [100_003]
