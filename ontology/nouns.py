"""The table of the nouns of captions; only distinct captions are parsed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from .parsing.parser import load_parser, parser_fingerprint
from .parsing.reading import Noun, Reader
from .parsing.tagging import Tagger

__all__ = ["NOUNS_SCHEMA", "count_known", "find_nouns", "load_parser", "parser_fingerprint"]

NOUNS_SCHEMA = pa.schema(
    [
        pa.field("pair", pa.int64(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),  # character span in the caption
        pa.field("end", pa.int32(), nullable=False),
        pa.field("surface", pa.string(), nullable=False),  # caption[start:end]
        pa.field("lemma", pa.string(), nullable=False),  # lower case, spaces between words
        pa.field("head", pa.string(), nullable=False),  # lemma of the last word
        pa.field("tag", pa.string(), nullable=False),  # of the last word: NN, NNS, NNP, NNPS ...
        pa.field("role", pa.string(), nullable=False),  # noun, frame or measure (reading.py)
    ]
)
_TELL_EVERY = 1000  # captions
_HEADLINE_WORDS, _HEADLINE_SHARE = 4, 0.7
_LETTER = re.compile(r"[^\W\d_]")
# Markup, long runs of signs (tokenizing them takes time by their square), terminal escapes, control
# characters and emoji are blanked, character for character: the spans stay those of the caption.
_NOISE = re.compile(
    r"</?[A-Za-z!][^<>]{0,79}>|[^\w\s]{9,}|\x1b\[[0-9;?]{0,20}[A-Za-z]|"
    "[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202f\u2060-\u2069\ufe0f\ufeff"
    "\ud800-\udfff\u2600-\u27bf\U0001f000-\U0001faff\U000e0000-\U000e007f]"
)


def find_nouns(
    parser: Tagger,
    pairs: Sequence[int],
    captions: Sequence[str],
    *,
    known: Callable[[str], bool] | None = None,
    advance: Callable[[int], None] = lambda captions: None,
) -> pa.Table:
    """Find the nouns of captions.

    Args:
        parser: from ``load_parser``.
        pairs: the pair number of each caption, each once.
        captions: as the source has them; ``start`` and ``end`` index these very strings.
        known: whether a lemma ("fire hydrant") is in the dictionary, such as ``WordNet.knows``;
            without it every run of nouns is one compound.
        advance: told how many more captions are done, now and then.

    Returns:
        ``NOUNS_SCHEMA``, sorted by pair and start.
    """
    found = _read(parser, Counter(captions), Reader(known, parser.as_plural), advance)
    order = sorted(range(len(pairs)), key=pairs.__getitem__)
    return _table((pairs[row], noun) for row in order for noun in found[captions[row]])


def _read(
    parser: Tagger, counts: Mapping[str, int], reader: Reader, advance: Callable[[int], None]
) -> dict[str, list[Noun]]:
    """Read the nouns of distinct captions; ``counts`` says how often each one occurs."""
    found, done = {}, 0
    tagged = parser.tag([clean(caption) for caption in counts])
    for (caption, count), words in zip(counts.items(), tagged, strict=True):
        found[caption] = reader.nouns(words, caption)
        done += count
        if done >= _TELL_EVERY:
            advance(done)
            done = 0
    advance(done)
    return found


def count_known(nouns: pa.Table, known: Callable[[str], bool]) -> int:
    """Count the nouns that the dictionary knows, as a whole or by their last word."""
    pairs = nouns.group_by(["lemma", "head"]).aggregate([([], "count_all")]).to_pylist()
    return sum(row["count_all"] for row in pairs if known(row["head"]) or known(row["lemma"]))


def clean(caption: str) -> str:
    """Blank what is no text and lower what is all capitals, character for character.

    >>> clean("a <b>dog</b>"), clean("A Dog On The Beach"), clean("A DOG"), clean("A dog")
    ('a    dog    ', 'a dog on the beach', 'a dog', 'A dog')
    """
    text = _NOISE.sub(lambda match: " " * len(match[0]), caption)
    begin = _LETTER.search(text)
    if begin and begin[0].isupper() and _is_capitalised(text) and len(text.lower()) == len(text):
        return text.lower()
    return text


def _is_capitalised(text: str) -> bool:
    """Say whether a text is in capitals, or most of its words begin with one: a headline."""
    names = [word for word in text.split() if word[0].isalpha()]
    if text.isupper():
        return len(names) > 1
    capitals = sum(word[0].isupper() for word in names)
    return len(names) >= _HEADLINE_WORDS and capitals >= _HEADLINE_SHARE * len(names)


def _table(rows: Iterable[tuple[int, Noun]]) -> pa.Table:
    columns = list(zip(*((pair, *noun) for pair, noun in rows), strict=True))
    empty: list[tuple[Any, ...]] = [()] * len(NOUNS_SCHEMA)
    arrays = [
        pa.array(column, field.type)
        for column, field in zip(columns or empty, NOUNS_SCHEMA, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=NOUNS_SCHEMA)
