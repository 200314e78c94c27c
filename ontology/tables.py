"""The curated tables of this package, read from the ``.tsv`` files beside it.

Every file has a header line; ``#`` starts a comment line.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..artifact import hash_strings

_FOLDER = Path(__file__).parent
_FILES = ("senses.tsv", "words.tsv", "forms.tsv", "merges.tsv")
# Raised when nouns.py, parsing/, senses.py or lexicon.py come to find or decide something else.
RULES_VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How an irregular surface form is read.

    Attributes:
        lemma: its lemma.
        any_tag: the tagger often misses this form, so it is a noun whatever its tag.
        counted: the lemma after a number or before "of" ("two glasses of wine"), else empty.
    """

    lemma: str
    any_tag: bool
    counted: str


@functools.cache
def curated_senses() -> dict[str, str]:
    """Map a noun to the synset it has in captions (``senses.tsv``)."""
    return {noun: synset for noun, synset, _why in _rows("senses.tsv")}


@functools.cache
def merged_synsets() -> dict[str, tuple[str, str]]:
    """Map a synset to the one that stands for it in an ontology, and why (``merges.tsv``)."""
    return {synset: (into, why) for synset, into, why in _rows("merges.tsv")}


@functools.cache
def words(role: str) -> frozenset[str]:
    """Return the words of one role of ``words.tsv``, which says what the roles are."""
    return frozenset(word for word, its_role in _rows("words.tsv") if its_role == role)


@functools.cache
def forms() -> dict[str, Form]:
    """Map an irregular surface form, in lower case, to its reading (``forms.tsv``)."""
    return {
        form: Form(lemma=lemma, any_tag=tags == "any", counted=counted)
        for form, lemma, tags, counted in _rows("forms.tsv")
    }


@functools.cache
def curated_labels() -> dict[str, str]:
    """Map a detector's label to the synset of what its regions show (``labels.tsv``)."""
    return {label: synset for label, synset, _why in _rows("labels.tsv")}


@functools.cache
def noun_rules_fingerprint() -> str:
    """Hash of what decides which nouns are found: of ``senses.tsv`` that a noun is listed."""
    texts = [(_FOLDER / name).read_text(encoding="utf-8") for name in ("words.tsv", "forms.tsv")]
    return hash_strings([str(RULES_VERSION), *texts, *sorted(curated_senses())])


@functools.cache
def tables_fingerprint() -> str:
    """Hash of all tables that decide what a caption's nouns mean, and the rules' version."""
    texts = [(_FOLDER / name).read_text(encoding="utf-8") for name in _FILES]
    return hash_strings([str(RULES_VERSION), *texts])


def _rows(name: str) -> Iterator[tuple[str, ...]]:
    lines = (_FOLDER / name).read_text(encoding="utf-8").splitlines()
    content = [line for line in lines if line and not line.startswith("#")]
    for line in content[1:]:
        yield tuple(line.split("\t"))
