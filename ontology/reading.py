"""The nouns of a tagged caption: where compounds begin, what is no noun after all, lemmas.

A compound is the longest run of words that ends in a noun and that the dictionary knows ("fire
hydrant", "hot dog"); else the run of nouns, the last one its head.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

from .tables import curated_senses, words
from .tagging import Tagged
from .word import HYPHENS, Word

MAX_WORDS = 4  # of a compound
_SINGULAR = frozenset(("a", "an", "another", "one", "each", "every"))
_AROUND_HYPHEN = re.compile(" [-‐‑–] ")  # noqa: RUF001


class Noun(NamedTuple):
    """One noun or compound of a caption; the fields are those of ``NOUNS_SCHEMA``."""

    start: int
    end: int
    surface: str
    lemma: str
    head: str
    tag: str


class Reader:
    """Reads the nouns off tagged captions; holds what is looked up again and again.

    Args:
        known: whether a lemma is in the dictionary.
        as_plural: lemmatises a word in lower case as a common plural noun.
    """

    def __init__(self, known: Callable[[str], bool], as_plural: Callable[[str], str]) -> None:
        self.known, self.as_plural = cache(known), cache(as_plural)
        self.curated, self.actions = curated_senses(), words("action")

    def nouns(self, tagged: Tagged, text: str) -> list[Noun]:
        """List the nouns of a caption in the order of the text."""
        tokens, starts, _ = tagged
        found: list[Noun] = []
        last = len(tokens) - 1
        while last >= 0:
            if not (tokens[last].maybe_noun and is_noun(tokens, last)):
                last -= 1
                continue
            first, lemma, head = self.compound(tagged, last)
            start, end = starts[first], starts[last] + len(tokens[last].text)
            found.append(Noun(start, end, text[start:end], lemma, head, tokens[last].tag))
            last = first - 1
        return found[::-1]

    def compound(self, tagged: Tagged, last: int) -> tuple[int, str, str]:
        """Return where the compound that ends at ``last`` starts, its lemma and its head."""
        tokens = tagged.words
        head = self.lemma(tokens, last)
        run, longest, found = last, last, (head, head)
        for first, hyphenated in _starts(tagged, last):
            if phrase := self.phrase(tokens, first, last, head, hyphenated):
                longest, found = first, phrase
            if run == _next_word(tokens, first) and _is_modifier(tokens, first):
                run = first
        if longest < last:
            return longest, *found
        if run == last or self.is_verb(tokens, run, last):
            return last, head, head
        parts = [t.lower for t in tokens[run:last] if not t.hyphen]
        return run, " ".join([*parts, head]), head

    def is_verb(self, tokens: Sequence[Word], run: int, last: int) -> bool:
        """Say whether the last of a run of nouns is a verb that the tagger took for a noun.

        "A dog chases": a plural after a singular article; "the dog leaps": a word for an action.
        """
        word = tokens[last]
        if word.plural or word.lower.endswith("ing"):
            lemma = word.lemma if word.plural else word.lower
            if lemma in self.actions:
                return True
        return word.plural and _follows_singular(tokens, run)

    def phrase(
        self, tokens: Sequence[Word], first: int, last: int, head: str, hyphenated: bool
    ) -> tuple[str, str] | None:
        """Return the phrase from ``first`` on as the dictionary spells it, and its head."""
        before = [t.lower for t in tokens[first:last]]
        starter, word = tokens[first], tokens[last]
        free = starter.tagged_noun or hyphenated or (starter.pos == "ADJ" and not starter.plain)
        for end in dict.fromkeys((head, word.lemma, word.lower)):
            for text in _spellings([*before, end], hyphenated):
                if text in self.curated or (free and self.known(text)):
                    return text, end
        return None

    def lemma(self, tokens: Sequence[Word], i: int) -> str:
        """Lemmatise one noun, in lower case."""
        word, lower = tokens[i], tokens[i].lower
        if form := word.form:
            return form.counted if form.counted and _is_counted(tokens, i) else form.lemma
        if word.pos != "PROPN":
            return word.lemma
        if word.tag != "NNPS" and self.known(lower):
            return lower
        base = self.as_plural(lower)
        return base if self.known(base) or base in self.curated else lower


def is_noun(tokens: Sequence[Word], i: int) -> bool:
    """Say whether a word is a noun where it stands: not so tan, in "a tan dog"."""
    word = tokens[i]
    if not word.maybe_noun:
        return False
    modifies = word.plain and i + 1 < len(tokens) and tokens[i + 1].tagged_noun
    return not (word.tagged_noun and modifies)


def _is_modifier(tokens: Sequence[Word], i: int) -> bool:
    """Say whether a word may stand before the head of a compound that no dictionary knows.

    No plural: "dogs wrestle" is no compound.
    """
    return tokens[i].tagged_noun and not tokens[i].plural and is_noun(tokens, i)


def _starts(tagged: Tagged, last: int) -> Iterator[tuple[int, bool]]:
    """Walk left over the words a compound may start with; tell of hyphens passed."""
    tokens, _, spaced = tagged
    i, hyphenated, joined = last, False, _hyphen_before(tagged, last)
    for _ in range(MAX_WORDS - 1):
        i -= 2 if joined else 1
        hyphenated = hyphenated or joined
        if i < 0 or not tokens[i].is_word or not (joined or spaced[i]):
            return
        yield i, hyphenated
        before = _hyphen_before(tagged, i)
        if not (joined or before or is_noun(tokens, i)):
            return
        joined = before


def _follows_singular(tokens: Sequence[Word], first: int) -> bool:
    """Say whether only adjectives stand between a singular article and this word."""
    i = first - 1
    while i >= 0 and (tokens[i].pos == "ADJ" or tokens[i].plain):
        i -= 1
    return i >= 0 and tokens[i].lower in _SINGULAR


def _spellings(parts: list[str], hyphenated: bool) -> Iterator[str]:
    if hyphenated:
        yield _AROUND_HYPHEN.sub("-", " ".join(parts))
    yield " ".join(part for part in parts if part not in HYPHENS)


def _next_word(tokens: Sequence[Word], i: int) -> int:
    return i + 2 if tokens[i + 1].hyphen else i + 1


def _hyphen_before(tagged: Tagged, i: int) -> bool:
    """Say whether a hyphen without spaces joins a word to the one before it."""
    tokens, _, spaced = tagged
    return i >= 2 and tokens[i - 1].hyphen and not (spaced[i - 1] or spaced[i - 2])


def _is_counted(tokens: Sequence[Word], i: int) -> bool:
    before = i > 0 and tokens[i - 1].pos == "NUM"
    return before or (i + 1 < len(tokens) and tokens[i + 1].lower == "of")
