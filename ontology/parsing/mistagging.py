"""Verbs that the tagger takes for nouns, as it often does in captions: "a dog leaps"."""

from __future__ import annotations

from collections.abc import Sequence

from .word import Word

PERSONS = frozenset(
    ("man", "woman", "boy", "girl", "child", "kid", "person", "guy", "lady", "people")
)
NUMBERS = frozenset(("couple", "dozen", "hundred", "thousand", "million"))  # "a couple cats"
_NEAR = 40  # words: so far goes what is taken for the sentence
_SINGULAR = frozenset(("a", "an", "another", "one", "each", "every"))
_SOMEBODY = frozenset(("another", "other", "others", "one", "who", "that", "which"))
FINITE = frozenset(("VBZ", "VBP", "VBD", "MD"))
_AFTER_VERB = frozenset(("ADP", "ADV", "PART", "CCONJ", "PUNCT", "SCONJ"))
_BEFORE_CLAUSE = frozenset(("CCONJ", "SCONJ", "PUNCT"))
_BEFORE_NOUN = frozenset(("DET", "ADJ", "NUM", "ADP", "PRON", "PART", "NOUN", "PROPN"))


def is_verb(tokens: Sequence[Word], last: int) -> bool:
    """Say whether the last of some nouns is a verb that the tagger took for a noun."""
    word, before = tokens[last], tokens[last - 1] if last else None
    if before is None:
        return False
    if word.action and word.plural and _is_pronominal(tokens, last - 1):
        return True
    if not before.tagged_noun:
        return False
    if word.lower.endswith("ing"):  # "the man standing", "a man in a jacket skiing"
        return word.action or (word.verb and _article(tokens, last) is not None)
    if word.plural:
        if before.lower == "couple" and word.action:  # "a couple kisses"
            return True
        if before.plural or before.lower in NUMBERS or is_verb(tokens, last - 1):
            return False
        return word.action or _is_singular_subject(tokens, last)  # "the dog leaps", "A man lounges"
    if before.plural or before.lower in PERSONS:  # "dogs wrestle"
        return word.verb
    return word.verb and _lacks_verb(tokens, last)  # "women in old clothing stand in"


def ends_clause(tokens: Sequence[Word], last: int) -> bool:
    """Say whether a compound of the dictionary is a sentence: "a dog bites" is no dog bite."""
    word = tokens[last]
    return word.plural and word.verb and _article(tokens, last) is not None


def _is_pronominal(tokens: Sequence[Word], i: int) -> bool:
    """Say whether a word stands for somebody: "another watches", "the man in red watches"."""
    if tokens[i].lower in _SOMEBODY:
        return True
    return tokens[i].plain and i > 0 and tokens[i - 1].lower == "in"


def is_bare_participle(tokens: Sequence[Word], i: int) -> bool:
    """Say whether an -ing word stands where a verb would: "some standing"; not "a walking"."""
    if not tokens[i].lower.endswith("ing"):
        return False
    return i == 0 or tokens[i - 1].pos not in _BEFORE_NOUN


def _lacks_verb(tokens: Sequence[Word], last: int) -> bool:
    """Say whether several things come before, and an adverbial after, with no verb anywhere."""
    after = tokens[last + 1].pos if last + 1 < len(tokens) else "PUNCT"
    near = tokens[max(0, last - _NEAR) : last + _NEAR]
    if after not in _AFTER_VERB or any(t.tag in FINITE for t in near):
        return False
    article = _article(tokens, last)
    if article is not None and not (article and tokens[article - 1].pos == "CCONJ"):
        return False  # "on a side walk"; but "a man and a dog play"
    return any(t.plural or t.lower == "and" for t in tokens[max(0, last - _NEAR) : last])


def _is_singular_subject(tokens: Sequence[Word], last: int) -> bool:
    """Say whether a singular noun before this word has no verb yet: "a man in a hat lounges"."""
    article = _article(tokens, last)
    if article is None:
        return False
    begins = article == 0 or tokens[article - 1].pos in _BEFORE_CLAUSE
    return begins or not any(t.tag in FINITE for t in tokens[max(0, last - _NEAR) : article])


def _article(tokens: Sequence[Word], last: int) -> int | None:
    """Find the singular article of the nouns that end before a word, and of their adjectives."""
    i, end = last - 1, max(-1, last - _NEAR)
    while i > end and (tokens[i].tagged_noun or tokens[i].pos == "ADJ" or tokens[i].plain):
        i -= 1
    return i if i > end and tokens[i].lower in _SINGULAR else None
