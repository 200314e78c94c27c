"""Which synset a noun means in the caption of a photograph.

Decided once per distinct noun, without its context, by the first rule that applies:

============  =====================================================================  ===========
method        rule                                                                   confidence
============  =====================================================================  ===========
``frame``     a word that frames the picture ("front", "view"), or a bare colour     0, no synset
``curated``   the noun, or the whole compound, is in ``senses.tsv``                  1.0
``action``    what somebody does ("leap"): its first sense as an act                 0.4
``only``      WordNet has one sense of it                                            0.9
``physical``  its first sense under ``physical_entity.n.01``                         0.8 .. 0.4
``first``     no sense is physical: the first                                        0.5
``head``      an unknown compound takes the sense of its longest known ending        3/4 of that
``unknown``   WordNet does not know it                                               0, no synset
============  =====================================================================  ===========

The confidence of ``physical`` falls with the rank of the sense: 0.8 for WordNet's own first sense,
0.6 for the next three, 0.4 beyond. Individuals (``brown.n.02``, a botanist) come last everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from .tables import curated_senses, forms, words
from .wordnet import WordNet, open_wordnet

CONFIDENT = 0.5  # mentions below this stay out of the objects, and visible in SQL
_HEAD_FACTOR = 0.75
_CURATED, _ONLY, _FIRST, _ACTION = 1.0, 0.9, 0.5, 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sense:
    """The synset decided for a noun (None when unknown), by which rule, and how surely (0..1)."""

    synset: str | None
    method: str
    confidence: float


def decide(wordnet: WordNet, lemma: str, head: str) -> Sense:
    """Decide the synset of one distinct noun.

    Args:
        lemma: the noun or compound, in lower case with spaces, as ``find_nouns`` gives it.
        head: its last word's lemma; the lemma itself for a single word.
    """
    if _is_frame(wordnet, lemma, head):
        return Sense(synset=None, method="frame", confidence=0.0)
    if sense := _known_sense(wordnet, lemma):
        return sense
    for ending in _endings(lemma, head):
        if sense := _known_sense(wordnet, ending):
            confidence = round(sense.confidence * _HEAD_FACTOR, 4)
            return Sense(synset=sense.synset, method="head", confidence=confidence)
    return Sense(synset=None, method="unknown", confidence=0.0)


def sense_of(noun: str) -> Sense:
    """Decide the synset of a word or compound as a caption would have it, plural or not.

    >>> sense_of("baseball bats").synset  # doctest: +SKIP
    'baseball_bat.n.01'

    Raises:
        MissingAsset: there is no WordNet on this machine.
    """
    wordnet = open_wordnet()
    lemma = " ".join(noun.lower().replace("_", " ").split())
    *modifiers, last = lemma.split() or [""]
    if form := forms().get(last):
        last = form.lemma
    elif lemma not in curated_senses() and not wordnet.knows(lemma):
        last = wordnet.morphy(last) or last
    return decide(wordnet, " ".join([*modifiers, last]), last)


def _is_frame(wordnet: WordNet, lemma: str, head: str) -> bool:
    """Say whether a noun frames the picture; a compound that is a thing itself does not."""
    frames = words("frame")
    if lemma in frames:
        return True
    return head in frames and not (lemma in curated_senses() or wordnet.knows(lemma))


def _known_sense(wordnet: WordNet, lemma: str) -> Sense | None:
    """Apply the rules to exactly this lemma, or to what morphy makes of a single word."""
    listed = curated_senses().get(lemma)
    if listed and (synset := wordnet.resolve(listed)):  # another WordNet may lack that name
        return Sense(synset=synset, method="curated", confidence=_CURATED)
    senses = _kinds_first(wordnet, wordnet.noun_synsets(lemma))
    if not senses:
        base = wordnet.morphy(lemma)
        return _known_sense(wordnet, base) if base and base != lemma else None
    if lemma in words("action"):
        act = next((s for s in senses if wordnet.synset(s).lexname == "noun.act"), senses[0])
        return Sense(synset=act, method="action", confidence=_ACTION)
    if len(senses) == 1:
        return Sense(synset=senses[0], method="only", confidence=_ONLY)
    for rank, synset in enumerate(senses):
        if wordnet.is_physical(synset):
            confidence = 0.8 if rank == 0 else 0.6 if rank <= 3 else 0.4
            return Sense(synset=synset, method="physical", confidence=confidence)
    return Sense(synset=senses[0], method="first", confidence=_FIRST)


def _kinds_first(wordnet: WordNet, senses: tuple[str, ...]) -> list[str]:
    """Order senses as WordNet does, but every individual after all kinds."""
    return sorted(senses, key=lambda name: not wordnet.synset(name).hypernyms)


def _endings(lemma: str, head: str) -> list[str]:
    """List what a compound ends in, the longest first, and its head."""
    parts = lemma.replace("-", " ").split()
    return [*(" ".join(parts[i:]) for i in range(1, len(parts) - 1)), head]
