"""The noun files, read as nltk reads them."""

from __future__ import annotations

import warnings

import pytest
from nltk.corpus.reader.wordnet import WordNetCorpusReader

from tonics.ontology.lexicon import squeeze


@pytest.fixture(scope="module")
def reader(wordnet):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nltk announces that other languages are absent
        return WordNetCorpusReader(wordnet.root, None)


def test_synsets_are_nltks(wordnet, reader):
    compared = 0
    for lemma in sorted(wordnet.lemmas())[::40]:
        key = lemma.replace(" ", "_")
        expected = [s for s in reader.synsets(key, "n") if key in map(str.lower, s.lemma_names())]
        names = wordnet.noun_synsets(lemma)
        assert names == tuple(dict.fromkeys(s.name() for s in expected))  # nltk repeats some
        for name in names:
            assert_same(wordnet.synset(name), reader.synset(name))
            compared += 1
    assert compared > 3000


def assert_same(ours, theirs):
    assert ours.name == theirs.name()
    assert ours.lemmas == tuple(n.replace("_", " ") for n in theirs.lemma_names())
    assert (ours.definition, ours.lexname) == (theirs.definition(), theirs.lexname())
    assert ours.hypernyms == tuple(sorted(s.name() for s in theirs.hypernyms()))
    assert ours.instance_hypernyms == tuple(sorted(s.name() for s in theirs.instance_hypernyms()))
    assert ours.num_kinds == len(theirs.hyponyms())
    derived = any(lemma.derivationally_related_forms() for lemma in theirs.lemmas())
    assert ours.derived == derived


def test_plurals_are_nltks(wordnet, reader):
    some = [lemma.replace(" ", "_") for lemma in sorted(wordnet.lemmas())[::40]]
    irregular = ["geese", "children", "women", "axes", "leaves", "knives", "glasses", "men"]
    for word in [*some, *(f"{w}s" for w in some), *(f"{w}es" for w in some), *irregular, "qzxv"]:
        expected = reader.morphy(word, "n")
        assert wordnet.morphy(word) == (expected and expected.replace("_", " ")), word


def test_counts_are_nltks(wordnet, reader):
    for lemma in ("dog", "crane", "baseball bat", "table", "kite", "qzxv"):
        for name in wordnet.noun_synsets(lemma):
            key = lemma.replace(" ", "_")
            theirs = next(n for n in reader.synset(name).lemmas() if n.name().lower() == key)
            assert wordnet.count(lemma, name) == theirs.count(), name
    assert wordnet.count("dog", "no_such.n.01") == 0


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("dog.n.01", "dog.n.01"),
        ("Chest.n.01", "thorax.n.02"),
        ("dog.n.00", None),
        ("dog.n.99", None),
        ("run.v.01", None),
        ("dog", None),
        ("", None),
        ("dog.n.", None),
        ("dog.n.x", None),
        ("dog.n.²", None),
    ],
)
def test_names(wordnet, name, own):
    assert wordnet.resolve(name) == own
    if own is None:
        with pytest.raises(KeyError):
            wordnet.synset(name)


def test_other_spellings(wordnet):
    assert "surfboard" in wordnet.respellings("Surf board")
    assert "ice-cream cone" in wordnet.respellings("ice cream cone")
    assert wordnet.respellings("surfboard") == ()  # itself is none
    assert wordnet.respellings("i.") == ()  # too short to tell
    assert squeeze("Farmer’s ping-pong table") == "farmerspingpongtable"  # noqa: RUF001


def test_ancestors(wordnet):
    above = wordnet.ancestors("dog.n.01")
    assert {"dog.n.01", "canine.n.02", "domestic_animal.n.01", "entity.n.01"} <= above
    assert "artifact.n.01" not in above
    assert wordnet.hypernyms("wren.n.01") == ("architect.n.01",)  # of an individual
