"""The nouns of a tagged caption: where compounds begin, what is no noun after all, lemmas.

A compound is the longest run of words that ends in a noun and that the dictionary knows ("fire
hydrant", "hot dog"); else the run of nouns, the last one its head.

Every noun has a role: ``noun``, a thing of its own; ``frame``, what frames or places it in the
picture ("front", "view"); ``measure``, what speaks of the noun after it ("a bunch of bananas").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

from ..tables import curated_senses, words
from .mistagging import FINITE, NUMBERS, PERSONS, ends_clause, is_bare_participle, is_verb
from .tagging import Tagged
from .word import Word

MAX_WORDS = 4  # of a compound
_OF_A_KIND = frozenset(("colored", "coloured", "sized", "shaped"))
# what may stand between "bunch of" and the noun it speaks of
_WITHIN = frozenset(("DET", "ADJ", "NUM", "ADV", "PRON", "VERB", "CCONJ", "PART", "NOUN", "PROPN"))
_POSSESSIVE = frozenset(("PRP$", "POS"))
_AROUND_HYPHEN = re.compile(" [-‐‑–] ")  # noqa: RUF001


class Noun(NamedTuple):
    """One noun or compound of a caption; the fields are those of ``NOUNS_SCHEMA``."""

    start: int
    end: int
    surface: str
    lemma: str
    head: str
    tag: str
    role: str


class Phrase(NamedTuple):
    """What a noun is part of: its first word, its lemma, and that of its last word."""

    first: int
    lemma: str
    head: str


class Reader:
    """Reads the nouns off tagged captions; holds what is looked up again and again.

    Args:
        known: whether a lemma is in the dictionary; None where there is none.
        as_plural: lemmatises a word in lower case as a common plural noun.
    """

    def __init__(
        self, known: Callable[[str], bool] | None, as_plural: Callable[[str], str]
    ) -> None:
        self.curated, self.frames = curated_senses(), words("frame")
        self.measures, self.apart = words("measure"), words("apart")
        self.worn = words("worn")
        self.belonging = self.worn | words("part")
        self.has_dictionary = known is not None
        self.known = cache(known or self.curated.__contains__)
        self.as_plural = cache(as_plural)

    def nouns(self, tagged: Tagged, text: str) -> list[Noun]:
        """List the nouns of a caption in the order of the text."""
        tokens, starts, _ = tagged
        found: list[Noun] = []
        after: tuple[int, str] | None = None  # where the noun after begins, and its head
        last = len(tokens) - 1
        while last >= 0:
            if not (tokens[last].maybe_noun and self.is_noun(tokens, last)):
                last -= 1
                continue
            phrase = self.phrase(tagged, last)
            if phrase is None:  # a verb
                last -= 1
                continue
            first, lemma, head = phrase
            role = self.role(tokens, last, phrase, after)
            start, end = starts[first], starts[last] + len(tokens[last].text)
            found.append(Noun(start, end, text[start:end], lemma, head, tokens[last].tag, role))
            after, last = (first, head), first - 1
        return found[::-1]

    def is_noun(self, tokens: Sequence[Word], i: int) -> bool:
        """Say whether a word is a noun where it stands, and no adjective before one."""
        word = tokens[i]
        if not word.maybe_noun:
            return False
        if not word.tagged_noun or i + 1 == len(tokens):
            return not (word.action and is_bare_participle(tokens, i))
        after = tokens[i + 1]
        if word.plain:  # "a tan dog", "a navy blue suit"
            return not (after.tagged_noun or after.plain)
        if after.lower in _OF_A_KIND:  # "salmon colored"
            return False
        if after.tagged_noun and after.is_word and not self.may_modify(word):
            return False
        return not (word.action and is_bare_participle(tokens, i))

    def may_modify(self, word: Word) -> bool:
        """Say whether a word may be part of a compound: "blurry", taken for a noun, may not."""
        if not self.has_dictionary or word.form or word.plural or word.lower in self.frames:
            return True
        return any(self.known(w) or w in self.curated for w in (word.lower, word.lemma))

    def phrase(self, tagged: Tagged, last: int) -> Phrase | None:
        """Return the noun or compound that ends at ``last``; None if that is a verb after all."""
        tokens = tagged.words
        head = self.lemma(tokens, last)
        run, longest = last, None
        for first, hyphenated in self.starts(tagged, last):
            if compound := self.in_dictionary(tokens, first, last, head, hyphenated):
                longest = Phrase(first, *compound)
            if run == _next_word(tokens, first) and self.is_modifier(tokens, first, last):
                run = first
        if longest := longest or self.over_spaced_hyphen(tagged, last, head):
            return None if ends_clause(tokens, last) else longest
        if is_verb(tokens, last):
            return None
        if self.has_dictionary and not self.is_listed(head):  # "a cyclist airborne"
            run = last
        parts = [t.lower for t in tokens[run:last] if not t.hyphen]
        return Phrase(run, " ".join([*parts, head]), head)

    def is_listed(self, lemma: str) -> bool:
        """Say whether anything is known of a word."""
        return self.known(lemma) or lemma in self.curated or lemma in self.frames

    def in_dictionary(
        self, tokens: Sequence[Word], first: int, last: int, head: str, hyphenated: bool
    ) -> tuple[str, str] | None:
        """Return the words from ``first`` on as the dictionary spells them, and the last one."""
        before = [t.lower for t in tokens[first:last]]
        starter, word = tokens[first], tokens[last]
        free = starter.tagged_noun or hyphenated or (starter.pos == "ADJ" and not starter.plain)
        for end in dict.fromkeys((head, word.lemma, word.lower)):
            for text in _spellings(before, end, hyphenated):
                if text in self.curated or (free and self.known(text)):
                    return text, end
        if starter.tagged_noun and starter.is_word and len(before) - hyphenated == 1:
            for joined in (starter.lower + head, f"{starter.lower}-{head}"):  # "skate board"
                if self.known(joined) and f"{starter.lower} {head}" not in self.apart:
                    return joined, joined
        return None

    def over_spaced_hyphen(self, tagged: Tagged, last: int, head: str) -> Phrase | None:
        """Read "t - shirt", as tokenised captions have it, where the dictionary has a hyphen."""
        tokens, _, spaced = tagged
        if last < 2 or not (tokens[last - 1].hyphen and spaced[last - 1] and spaced[last - 2]):
            return None
        text = f"{tokens[last - 2].lower}-{head}"
        known = text in self.curated or text in self.frames or self.known(text)
        return Phrase(last - 2, text, head) if known else None

    def starts(self, tagged: Tagged, last: int) -> Iterator[tuple[int, bool]]:
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
            if not (joined or before or self.is_noun(tokens, i)):
                return
            joined = before

    def is_modifier(self, tokens: Sequence[Word], i: int, last: int) -> bool:
        """Say whether a word may stand before the head of a compound that no dictionary knows.

        No plural ("dogs wrestle"), no person ("woman jogger"), no number ("a couple cats"), no
        verb ("men ride bikes").
        """
        word = tokens[i]
        if not word.tagged_noun or (word.plural and word.lower != "sports"):
            return False
        if word.lower in PERSONS:
            return False
        if word.lower in NUMBERS and tokens[last].plural:
            return False
        return self.is_noun(tokens, i) and not (word.action and is_verb(tokens, i))

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

    def role(
        self, tokens: Sequence[Word], last: int, phrase: Phrase, after: tuple[int, str] | None
    ) -> str:
        """Say what part a noun plays; ``after``: where the noun after it begins, and its head."""
        _, lemma, head = phrase
        itself = lemma != head and (lemma in self.curated or self.known(lemma))
        if after and not itself and self.measures_next(tokens, last, head, after):
            return "measure"
        if lemma in self.frames or (head in self.frames and not itself):
            return "noun" if self.belongs(tokens, last, phrase) else "frame"
        return "noun"

    def belongs(self, tokens: Sequence[Word], last: int, phrase: Phrase) -> bool:
        """Say whether a word that may frame is a thing: "her back", "a pink top", "tube tops"."""
        first, lemma, head = phrase
        if head not in self.belonging or (
            last + 1 < len(tokens) and tokens[last + 1].lower == "of"
        ):
            return False
        before = tokens[first - 1] if first else None
        if before is not None and before.tag in _POSSESSIVE:
            return True
        worn = head in self.worn
        return worn and (lemma != head or (before is not None and _describes(before)))

    def measures_next(
        self, tokens: Sequence[Word], last: int, head: str, after: tuple[int, str]
    ) -> bool:
        """Say whether a noun only says how much of the noun after it there is."""
        first, noun = after
        if head in self.measures and last + 1 < first and tokens[last + 1].lower == "of":
            between = tokens[last + 2 : first]
        elif f"{head} of {noun}" in self.measures and last + 1 < first:
            between = tokens[last + 1 : first]
            return between[0].lower == "of" and len(between) < 3
        elif head in NUMBERS:
            between = tokens[last + 1 : first]
        else:
            return False
        return all(word.pos in _WITHIN and word.tag not in FINITE for word in between)


def _describes(word: Word) -> bool:
    return word.pos == "ADJ" or word.plain


def _spellings(before: list[str], end: str, hyphenated: bool) -> Iterator[str]:
    text = " ".join([*before, end])
    if not hyphenated:
        yield text
        return
    yield _AROUND_HYPHEN.sub("-", text)
    yield _AROUND_HYPHEN.sub(" ", text)


def _next_word(tokens: Sequence[Word], i: int) -> int:
    return i + 2 if tokens[i + 1].hyphen else i + 1


def _hyphen_before(tagged: Tagged, i: int) -> bool:
    """Say whether a hyphen without spaces joins a word to the one before it."""
    tokens, _, spaced = tagged
    return i >= 2 and tokens[i - 1].hyphen and not (spaced[i - 1] or spaced[i - 2])


def _is_counted(tokens: Sequence[Word], i: int) -> bool:
    before = i > 0 and tokens[i - 1].pos == "NUM"
    return before or (i + 1 < len(tokens) and tokens[i + 1].lower == "of")
