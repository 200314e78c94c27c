"""Which synset a noun means."""

from __future__ import annotations

import pytest

from tonics.errors import MissingAsset
from tonics.ontology import sense_of
from tonics.ontology.senses import CONFIDENT, decide
from tonics.ontology.tables import curated_senses, forms, words

SENSES = [
    ("dog", "dog.n.01"),
    ("geese", "goose.n.01"),
    ("men", "man.n.01"),
    ("glasses", "spectacles.n.01"),
    ("scissors", "scissors.n.01"),
    ("fire hydrant", "fireplug.n.01"),
    ("fire_hydrant", "fireplug.n.01"),
    ("Hot Dogs", "frank.n.02"),
    ("people", "person.n.01"),
    ("bananas", "banana.n.02"),
    ("baseball bat", "baseball_bat.n.01"),
    ("crane", "crane.n.04"),
    ("kite", "kite.n.03"),
    ("plate", "plate.n.04"),
    ("monitor", "monitor.n.04"),
    ("table", "table.n.02"),
    ("stop sign", "street_sign.n.01"),
    ("yard", "yard.n.02"),
    ("front", None),
    ("qzxv", None),
    ("", None),
]


@pytest.mark.parametrize(("noun", "synset"), SENSES)
def test_sense_of(noun, synset):
    assert sense_of(noun).synset == synset


@pytest.mark.parametrize(
    ("lemma", "head", "method", "synset"),
    [
        ("view", "view", "frame", None),
        ("city view", "view", "frame", None),
        ("mouse", "mouse", "curated", "mouse.n.01"),
        ("frisbee", "frisbee", "only", "frisbee.n.01"),
        ("yard", "yard", "physical", "yard.n.02"),
        ("music", "music", "first", "music.n.01"),
        ("leap", "leap", "action", "leap.n.01"),
        ("wooden park bench", "bench", "head", "park_bench.n.01"),
        ("qzxv", "qzxv", "unknown", None),
    ],
)
def test_methods(wordnet, lemma, head, method, synset):
    sense = decide(wordnet, lemma, head)
    assert (sense.method, sense.synset) == (method, synset)
    assert 0 <= sense.confidence <= 1
    assert (sense.synset is None) == (method in ("frame", "unknown"))


def test_confidence_orders_the_rules(wordnet):
    of = {n: decide(wordnet, n, n.split()[-1]).confidence for n in ("mouse", "frisbee", "dog")}
    assert (
        of["mouse"] > of["frisbee"] > of["dog"] > decide(wordnet, "big-eyed dog", "dog").confidence
    )
    assert decide(wordnet, "leap", "leap").confidence < CONFIDENT


def test_individuals_come_after_kinds(wordnet):
    assert decide(wordnet, "crane", "crane").synset == "crane.n.04"
    assert decide(wordnet, "jordan", "jordan").synset  # only individuals: still something
    assert wordnet.noun_synsets("wren")[0] == "wren.n.01"  # Sir Christopher
    assert decide(wordnet, "wren", "wren").synset == "wren.n.02"


@pytest.mark.parametrize(("noun", "synset"), sorted(curated_senses().items()))
def test_curated_synsets_exist_under_their_own_name(wordnet, noun, synset):
    assert wordnet.resolve(synset) == synset
    assert noun == noun.lower().strip()


def test_tables_do_not_contradict():
    assert not words("frame") & set(curated_senses())
    assert not words("action") & set(curated_senses())
    assert not words("action") & words("frame")
    assert len(curated_senses()) >= 150
    assert all(form == form.lower() for form in forms())


def test_no_wordnet(monkeypatch, tmp_path):
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    with pytest.raises(MissingAsset, match="tonics assets"):
        sense_of("dog")
