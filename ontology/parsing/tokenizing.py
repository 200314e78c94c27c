"""Captions as rows of word types, with spaCy's tokenizer asked once per distinct piece of text.

spaCy cuts what stands between single spaces by itself. Only its exceptions made of several words
("a.m.", ":-)") may join what it has cut; a caption in which two pieces could meet so, or with other
white space, is one piece.

A *type* is a word that is followed by a space (odd) or not (even): the network tells them apart.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .windows import Floats, Ints

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

    from .network import Network

_MAX_WORDS, _MAX_CHARACTERS = 40_000, 4_000_000  # remembered; beyond, all is forgotten


class Tokens(NamedTuple):
    """The words of some texts, one text after the other.

    Attributes:
        types, starts: (sum lengths,), starts in characters of the text. lengths: words a text.
    """

    types: Ints
    starts: Ints
    lengths: Ints


class Vocabulary:
    """The pieces of text and the words met so far.

    Attributes:
        words: the text of each word; number 0 is none.
        triggers: for each word, whether a rule over several words may begin at it.
        generation: raised when all was forgotten, and numbers mean other words.
    """

    def __init__(self, nlp: Language, network: Network) -> None:
        self.nlp, self.network, self.joints = nlp, network, Joints(nlp)
        self.generation = 0
        self._room: Floats = np.zeros((1024, network.width), np.float32)  # kept: large and alike
        self._forget()

    @property
    def vectors(self) -> Floats:
        """(types, D), a view; types 0 and 1, of no word, are zero."""
        return self._room[: 2 * len(self.words)]

    def _forget(self) -> None:
        self.generation += 1
        self.words: list[str] = [""]
        self.triggers = bytearray(1)
        self._numbers: dict[tuple[str, int], int] = {}
        self._unembedded: list[np.ndarray[Any, Any]] = []
        self._pieces: dict[str, int] = {}
        self._characters = 0
        # of each piece: where its words begin in the next three, how many, its characters
        self._first, self._count, self._length = array("q"), array("q"), array("q")
        self._types, self._starts = array("q"), array("q")
        # whether its ends may be part of an exception, and the words there, of those where they may
        self._opens, self._closes = array("b"), array("b")
        self._firsts: dict[int, frozenset[str]] = {}
        self._lasts: dict[int, frozenset[str]] = {}

    def shrink(self) -> None:
        """Forget everything once it is more than everyday captions need."""
        if len(self.words) > _MAX_WORDS or self._characters > _MAX_CHARACTERS:
            self._forget()

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Cut texts into words, and embed those that are new."""
        cut = [self._cut(text) for text in texts]
        for i in self._joined(cut):
            cut[i] = [self._piece(texts[i])]
        tokens = self._gather(cut)
        self._embed()
        return tokens

    def _cut(self, text: str) -> list[int]:
        """Cut a text at its spaces, into numbers of pieces."""
        parts, pieces = text.split(), self._pieces
        if " ".join(parts) != text:
            return [self._piece(text)]
        try:
            return [pieces[part] for part in parts]
        except KeyError:
            return [self._piece(part) for part in parts]

    def _piece(self, text: str) -> int:
        number = self._pieces.get(text)
        return self._add_piece(text) if number is None else number

    def _add_piece(self, text: str) -> int:
        doc = self.nlp.make_doc(text)
        number = self._pieces[text] = len(self._first)
        self._first.append(len(self._types))
        self._count.append(len(doc))
        self._length.append(len(text))
        self._types.extend(self._types_of(doc))
        self._starts.extend(token.idx for token in doc)
        firsts, lasts = self.joints.of(text, doc)
        self._opens.append(bool(firsts))
        self._closes.append(bool(lasts))
        if firsts:
            self._firsts[number] = firsts
        if lasts:
            self._lasts[number] = lasts
        self._characters += len(text)
        return number

    def _types_of(self, doc: Doc) -> list[int]:
        """Number the words of a piece; new ones wait to be embedded."""
        types, rows = [], doc.to_array(self.network.columns).reshape(len(doc), -1)
        triggers = {start for _, start, _ in self.network.triggers(doc)}
        for token, row in zip(doc, rows, strict=True):
            key = (token.text, token.norm)
            word = self._numbers.get(key)
            if word is None:
                word = self._numbers[key] = len(self.words)
                self.words.append(token.text)
                self.triggers.append(token.i in triggers)
                self._unembedded.append(row)
                self._characters += len(token.text)
            types.append(2 * word + bool(token.whitespace_))
        return types

    def _embed(self) -> None:
        """Give vectors to new words: one where no space follows, one where one does."""
        if not self._unembedded:
            return
        features = np.repeat(np.stack(self._unembedded), 2, axis=0)
        if "SPACY" in self.network.columns:
            spaced = self.network.columns.index("SPACY")
            features[:, spaced] = np.arange(len(features)) % 2
        if (more := 2 * len(self.words) - len(self._room)) > 0:
            more = max(more, len(self._room))
            self._room = np.pad(self._room, ((0, more), (0, 0)))
        self.vectors[-len(features) :] = self.network.embed(features)
        self._unembedded = []

    def _joined(self, cut: Sequence[Sequence[int]]) -> list[int]:
        """Find texts in which an exception may reach from one piece into the next."""
        pieces, texts = _flat(cut)
        left, right = pieces[:-1], pieces[1:]
        near = np.array(self._closes)[left] & np.array(self._opens)[right]
        return [
            int(texts[i])
            for i in np.flatnonzero(near & (texts[:-1] == texts[1:])).tolist()
            if self.joints.meet(self._lasts[int(left[i])], self._firsts[int(right[i])])
        ]

    def _gather(self, cut: Sequence[Sequence[int]]) -> Tokens:
        """Put the words of all pieces in a row, each where its piece stands in its text."""
        pieces, texts = _flat(cut)
        counts, sizes = np.array(self._count)[pieces], np.array(self._length)[pieces] + 1
        places = np.cumsum(sizes) - sizes  # in all texts, joined by spaces
        begins = np.flatnonzero(np.diff(texts, prepend=-1))
        places -= np.repeat(places[begins], np.diff(begins, append=len(pieces)))
        ends = np.cumsum(counts)
        shifts = np.array(self._first)[pieces] - ends + counts
        rows = np.arange(counts.sum()) + np.repeat(shifts, counts)
        types = np.array(self._types)[rows]
        types[ends[:-1][texts[:-1] == texts[1:]] - 1] |= 1
        lengths = np.bincount(texts, weights=counts, minlength=len(cut)).astype(np.int64)
        return Tokens(types, np.array(self._starts)[rows] + np.repeat(places, counts), lengths)


def _flat(cut: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
    """Return all numbers in a row, and for each the text it is of."""
    texts = np.repeat(np.arange(len(cut)), [len(c) for c in cut])
    return np.fromiter(chain.from_iterable(cut), np.int64, len(texts)), texts


class Joints:
    """Pairs of words that stand beside each other in exceptions of several words."""

    def __init__(self, nlp: Language) -> None:
        from spacy.tokenizer import Tokenizer

        own: Any = nlp.tokenizer
        self.bare = Tokenizer(
            nlp.vocab,
            prefix_search=own.prefix_search,
            suffix_search=own.suffix_search,
            infix_finditer=own.infix_finditer,
            token_match=own.token_match,
            url_match=own.url_match,
        )
        self.pairs = {
            (left.text, right.text)
            for exception in own.rules
            for left, right in pairwise(self.bare(exception))
        }
        self._left, self._right = ({pair[side] for pair in self.pairs} for side in (0, 1))

    def of(self, text: str, doc: Doc) -> tuple[frozenset[str], frozenset[str]]:
        """Words a piece begins and ends with, before and after exceptions, that are in pairs."""
        whole = len(doc) == 1 and text.isalpha()
        first, last = (text, text) if whole else _outer(self.bare(text))
        before, after = _outer(doc)
        return frozenset((first, before)) & self._right, frozenset((last, after)) & self._left

    def meet(self, lasts: Iterable[str], firsts: Iterable[str]) -> bool:
        """Say whether a piece and the next one make a pair."""
        return any((left, right) in self.pairs for left in lasts for right in firsts)


def _outer(doc: Doc) -> tuple[str, str]:
    return doc[0].text, doc[-1].text
