"""The table of the nouns of captions; only distinct captions are parsed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest

import pyarrow as pa

from .parser import load_parser, parser_fingerprint
from .reading import Noun, Reader
from .tables import curated_senses
from .tagging import Tagger

__all__ = ["NOUNS_SCHEMA", "find_nouns", "load_parser", "parser_fingerprint"]

NOUNS_SCHEMA = pa.schema(
    [
        pa.field("pair", pa.int64(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),  # character span in the caption
        pa.field("end", pa.int32(), nullable=False),
        pa.field("surface", pa.string(), nullable=False),  # caption[start:end]
        pa.field("lemma", pa.string(), nullable=False),  # lower case, spaces between words
        pa.field("head", pa.string(), nullable=False),  # lemma of the last word
        pa.field("tag", pa.string(), nullable=False),  # of the last word: NN, NNS, NNP, NNPS ...
    ]
)
# Markup, terminal escapes, control characters and emoji are blanked, character for character,
# before parsing: the spans stay those of the caption.
_NOISE = re.compile(
    r"<[^<>]{1,80}>|\x1b\[[0-9;?]{0,20}[A-Za-z]|"
    "[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202f\u2060-\u2069\ufe0f\ufeff"
    "\ud800-\udfff\u2600-\u27bf\U0001f000-\U0001faff\U000e0000-\U000e007f]"
)


def find_nouns(
    parser: Tagger,
    pairs: Sequence[int],
    captions: Sequence[str],
    *,
    known: Callable[[str], bool] | None = None,
) -> pa.Table:
    """Find the nouns of captions.

    Args:
        parser: from ``load_parser``.
        pairs: the pair number of each caption, each once.
        captions: as the source has them; ``start`` and ``end`` index these very strings.
        known: whether a lemma ("fire hydrant") is in the dictionary, such as ``WordNet.knows``;
            without it every run of nouns is one compound.

    Returns:
        ``NOUNS_SCHEMA``, sorted by pair and start.
    """
    distinct = list(dict.fromkeys(captions))
    reader = Reader(known or curated_senses().__contains__, parser.as_plural)
    tagged = parser.tag([clean(text) for text in distinct])
    found = {c: reader.nouns(words, c) for c, words in zip(distinct, tagged, strict=True)}
    order = sorted(range(len(pairs)), key=pairs.__getitem__)
    return _table((pairs[row], noun) for row in order for noun in found[captions[row]])


def clean(caption: str) -> str:
    """Blank what is no text, character for character.

    >>> clean("a <b>dog</b>")
    'a    dog    '
    """
    return _NOISE.sub(lambda match: " " * len(match[0]), caption)


def _table(rows: Iterable[tuple[int, Noun]]) -> pa.Table:
    columns = zip(*((pair, *noun) for pair, noun in rows), strict=True)
    arrays = [pa.array(c, f.type) for c, f in zip_longest(columns, NOUNS_SCHEMA, fillvalue=())]
    return pa.Table.from_arrays(arrays, schema=NOUNS_SCHEMA)
