"""Tagging captions: the words of a caption with tags and lemmas, and where each one stands.

``PipeTagger`` has spaCy do it, whatever the pipeline. ``FastTagger`` (``fast_tagging.py``) gives
the same for pipelines whose network it knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .word import Word

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

BATCH_TEXTS, BATCH_CHARACTERS = 4096, 1_000_000
_LEMMA_CACHE = 50_000


class Tagged(NamedTuple):
    """The words of a text in order.

    Attributes:
        starts: where each one begins, in characters; it is as long as its ``text``.
        spaced: whether a space follows it.
    """

    words: Sequence[Word]
    starts: Sequence[int]
    spaced: Sequence[bool]


class Tagger(Protocol):
    """Tags texts; what a text gets does not depend on the texts beside it."""

    nlp: Language

    def tag(self, texts: Sequence[str]) -> Iterator[Tagged]:
        """Tag texts, in order."""
        ...

    def as_plural(self, lower: str) -> str:
        """Lemmatise a word in lower case as if it had been tagged a common plural noun."""
        ...


class PipeTagger:
    """Tags as ``nlp.pipe`` does."""

    def __init__(self, nlp: Language) -> None:
        self.nlp = nlp

    def tag(self, texts: Sequence[str]) -> Iterator[Tagged]:
        """Tag texts, in order."""
        for batch in batches(texts):
            words: dict[tuple[str, int, int, int], Word] = {}
            with self.nlp.memory_zone():  # else the string store keeps every word ever seen
                tagged = [read_doc(d, words) for d in self.nlp.pipe(batch, batch_size=256)]
            shrink_caches(self.nlp)
            yield from tagged

    def as_plural(self, lower: str) -> str:
        """Lemmatise a word in lower case as if it had been tagged a common plural noun."""
        return lemma_as_plural(self.nlp, lower)


def read_doc(doc: Doc, words: dict[tuple[str, int, int, int], Word]) -> Tagged:
    """Take from a document what the noun rules ask for.

    Args:
        words: those met so far, for occurrences to share.
    """
    found = []
    for token in doc:
        key = (token.text, token.tag, token.pos, token.lemma)
        if key not in words:
            words[key] = Word.read(token.text, token.tag_, token.pos_, token.lemma_)
        found.append(words[key])
    return Tagged(found, [t.idx for t in doc], [bool(t.whitespace_) for t in doc])


def lemma_as_plural(nlp: Language, lower: str) -> str:
    """Have a rule lemmatizer, where the pipeline has one, lemmatise a common plural noun."""
    from spacy.tokens import Doc

    with nlp.memory_zone():
        doc = Doc(nlp.vocab, words=[lower], tags=["NNS"], pos=["NOUN"], morphs=["Number=Plur"])
        for _, pipe in nlp.pipeline:
            if hasattr(pipe, "rule_lemmatize"):
                doc = pipe(doc)
        return doc[0].lemma_.lower() or lower


def shrink_caches(nlp: Language) -> None:
    """Empty the rule lemmatizer's own cache once it has grown past what everyday words need."""
    for _, pipe in nlp.pipeline:
        cache = getattr(pipe, "cache", None)
        if isinstance(cache, dict) and len(cache) > _LEMMA_CACHE:
            cache.clear()


def batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut texts into batches of bounded size; a text that is larger by itself is one."""
    start = size = 0
    for i, text in enumerate(texts):
        size += len(text)
        if i > start and (size > BATCH_CHARACTERS or i - start >= BATCH_TEXTS):
            yield texts[start:i]
            start, size = i, len(text)
    if start < len(texts):
        yield texts[start:]
