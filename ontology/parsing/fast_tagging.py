"""Tagging with the network of spaCy's small pipelines, several times as fast as ``nlp.pipe``.

Everything is the loaded pipeline's own: its tokenizer and embedding (asked once per distinct word),
its weights, its attribute ruler and lemmatizer (asked once per distinct word and tag). Only the
window encoder and the tagger's last layer are computed here (``windows.py``), for thousands of
captions at once. Texts that need more - rules that look at several words - go to ``nlp.pipe``.

``FastTagger.of`` takes only pipelines that are built exactly so, and compares itself with
``nlp.pipe`` on a few sentences first.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .network import NotKnown, hash_lemma_index, network_of
from .tagging import BATCH_CHARACTERS, PipeTagger, Tagged, batches, lemma_as_plural, shrink_caches
from .tokenizing import Vocabulary
from .windows import Ints
from .word import Word

if TYPE_CHECKING:
    from spacy.language import Language

Numbers = npt.NDArray[np.int32]

log = logging.getLogger(__name__)

PROBES = [
    "A small dog runs across the wet grass.",
    "TWO MEN CAN'T FIND THEIR GLASSES, SO THEY'RE LOOKING UNDER A RED-AND-WHITE TENT!",
    "the view from Anna's kitchen: plates, knives (3 of them) & a half-eaten pizza",
    "geese flying over St. Mary's church at 5p.m. , Oct. 12 ... what a sight :-)",
    "a  boy\tin a T-shirt \u2013 he's gonna jump; let's watch http://example.org/a?b=c",
    "person plays the piano during the opening night of festival",
    'skateboarder\'s trick \U0001f6f9 on $5 ramp, caf\u00e9 owner cheers "wow"',
    "I'd say she was reading; had the children eaten 2 hot dogs each?",
]


class FastTagger:
    """Tags as ``nlp.pipe`` does, for a pipeline that it knows."""

    _words: list[Word]  # read so far
    _read: Numbers  # (words, tags): where in that list, or -1

    def __init__(self, nlp: Language) -> None:
        self.nlp, self.slow, self.network = nlp, PipeTagger(nlp), network_of(nlp)
        self.vocabulary = Vocabulary(nlp, self.network)
        self._rest = [pipe for _, pipe in nlp.pipeline[2:]]
        hash_lemma_index(self._rest[-1])
        self._forget()

    @classmethod
    def of(cls, nlp: Language) -> FastTagger | None:
        """The tagger of a pipeline, or None where it is not one of those known."""
        try:
            tagger = cls(nlp)
        except NotKnown as error:
            log.info("captions are tagged by spaCy itself: %s", error)
            return None
        if _said(tagger.tag(PROBES)) != _said(tagger.slow.tag(PROBES)):
            log.info("captions are tagged by spaCy itself: the fast way gives something else")
            return None
        return tagger

    def tag(self, texts: Sequence[str]) -> Iterator[Tagged]:
        """Tag texts, in order."""
        for batch in batches(texts):
            if len(batch[0]) > BATCH_CHARACTERS:  # alone, and too long for one multiplication
                yield from self.slow.tag(batch)
                continue
            self.vocabulary.shrink()
            with self.nlp.memory_zone():
                tagged, unsure = self._tag(batch)
            for i, anew in zip(unsure, self.slow.tag([batch[i] for i in unsure]), strict=True):
                tagged[i] = anew
            shrink_caches(self.nlp)
            yield from tagged

    def as_plural(self, lower: str) -> str:
        """Lemmatise a word in lower case as if it had been tagged a common plural noun."""
        return lemma_as_plural(self.nlp, lower)

    def _tag(self, texts: Sequence[str]) -> tuple[list[Tagged], list[int]]:
        """Tag a batch; number those texts that rules over several words may concern."""
        types, starts, lengths = self.vocabulary.tokenize(texts)
        tags = self.network.windows.tags(self.vocabulary.vectors, types, lengths)
        words = self._words_of(types >> 1, tags)
        places, spaced = starts.tolist(), (types & 1).astype(bool).tolist()
        ends = np.cumsum(lengths).tolist()
        tagged = [
            Tagged(words[a:b], places[a:b], spaced[a:b])
            for a, b in zip([0, *ends], ends, strict=False)
        ]
        return tagged, self._unsure(types >> 1, lengths)

    def _words_of(self, words: Ints, tags: Ints) -> list[Word]:
        """Find the word and its tag among those read so far, or read it."""
        if self._generation != self.vocabulary.generation:
            self._forget()
        missing = len(self.vocabulary.words) - len(self._read)
        blank = np.full((missing, self._read.shape[1]), -1, np.int32)
        self._read = np.concatenate([self._read, blank])
        numbers = self._read[words, tags]
        if len(new := np.flatnonzero(numbers < 0)):
            pairs = self._triggers_last(
                np.unique(np.stack([words[new], tags[new]], axis=1), axis=0)
            )
            self._read[pairs[:, 0], pairs[:, 1]] = np.arange(len(pairs)) + len(self._words)
            self._words += self._read_words(pairs)
            numbers = self._read[words, tags]
        known = self._words
        return [known[number] for number in numbers.tolist()]

    def _forget(self) -> None:
        self._generation = self.vocabulary.generation
        self._words = []
        labels = len(self.network.labels)
        self._read = np.empty((0, labels), np.int32)

    def _triggers_last(self, pairs: Ints) -> Ints:
        return pairs[np.argsort(self._is_trigger(pairs[:, 0]), kind="stable")]

    def _is_trigger(self, words: Ints) -> npt.NDArray[np.bool_]:
        return np.frombuffer(bytes(self.vocabulary.triggers), bool)[words]

    def _read_words(self, pairs: Ints) -> list[Word]:
        """Read words with their tags; triggers come last, each alone: no rule reaches beyond it."""
        together = len(pairs) - int(self._is_trigger(pairs[:, 0]).sum())
        documents = [pairs[:together], *(pairs[i : i + 1] for i in range(together, len(pairs)))]
        return [word for some in documents for word in self._read_document(some)]

    def _read_document(self, pairs: Ints) -> list[Word]:
        """Have the attribute ruler and the lemmatizer read words with their tags, in a row."""
        from spacy.tokens import Doc

        texts = [self.vocabulary.words[word] for word in pairs[:, 0].tolist()]
        labels = [self.network.labels[tag] for tag in pairs[:, 1].tolist()]
        doc = Doc(self.nlp.vocab, words=texts, spaces=[True] * len(texts), tags=labels)
        for pipe in self._rest if texts else ():
            doc = pipe(doc)
        return [
            Word.read(text, label, token.pos_, token.lemma_)
            for text, label, token in zip(texts, labels, doc, strict=True)
        ]

    def _unsure(self, words: Ints, lengths: Ints) -> list[int]:
        texts = np.repeat(np.arange(len(lengths)), lengths)
        return np.unique(texts[self._is_trigger(words)]).tolist()


def _said(tagged: Iterator[Tagged]) -> list[Any]:
    """All that a tagger said, to be compared."""
    return [
        ([(w.text, w.tag, w.pos, w.lemma) for w in t.words], t.starts, t.spaced) for t in tagged
    ]
