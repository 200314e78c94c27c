"""A word as the tagger read it somewhere: its tag and lemma, and what the noun rules ask of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..tables import Form, forms, words

HYPHENS = frozenset("-‐‑–")  # noqa: RUF001
_NOUNS = frozenset(("NOUN", "PROPN"))
_PLURALS = frozenset(("NNS", "NNPS"))
_WORD = re.compile(r"[^\W\d_]+(?:['’.&][^\W\d_]+)*\.?\d*\Z")  # noqa: RUF001 (a typographic apostrophe)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Word:
    """What holds of a word wherever it is read so; occurrences share it.

    Attributes:
        lower, lemma: in lower case. tag: fine-grained (NN, NNS, NNP ...). pos: universal.
        is_word: it is made of letters, not a number or a sign.
        tagged_noun: tagged a noun or name, whatever it is made of.
        maybe_noun: it can be one: tagged so, or a form that the tagger often misses.
        form: its row of ``forms.tsv``. Of ``words.tsv``: plain, a plain visual adjective; action,
        what somebody does; verb, a thing too, but often a verb where a noun stands before it.
    """

    text: str
    lower: str
    tag: str
    pos: str
    lemma: str
    is_word: bool
    tagged_noun: bool
    maybe_noun: bool
    plural: bool
    hyphen: bool
    plain: bool
    action: bool
    verb: bool
    form: Form | None

    @classmethod
    def read(cls, text: str, tag: str, pos: str, lemma: str) -> Word:
        """Note what the tagger and the lemmatizer say of a word."""
        lower = text.lower()
        lemma = lemma.lower() or lower
        base = lemma if tag in _PLURALS else lower
        tagged_noun = pos in _NOUNS if pos else tag.startswith("NN")
        is_word, form = bool(_WORD.match(text)), forms().get(lower)
        return cls(
            text=text,
            lower=lower,
            tag=tag,
            pos=pos,
            lemma=lemma,
            is_word=is_word,
            tagged_noun=tagged_noun,
            maybe_noun=(is_word if tagged_noun else form is not None and form.any_tag),
            plural=tag in _PLURALS,
            hyphen=text in HYPHENS,
            plain=lower in words("adjective"),
            action=base in words("action"),
            verb=base in words("action") or base in words("verb"),
            form=form,
        )
