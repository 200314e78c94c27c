"""Which synset a noun means in the caption of a photograph.

Decided once per distinct noun, without its context, by the first rule that applies:

============  =====================================================================  ===========
method        rule                                                                   confidence
============  =====================================================================  ===========
``frame``     a word that frames the picture ("front", "view"), or a bare colour     0, no synset
``given``     the name of a synset stands for itself ("dog.n.01")                    1.0
``hint``      the sense that words in brackets speak of: "bow (ribbons)"             0.9
``curated``   the noun, or the whole compound, is in ``senses.tsv``                  1.0
``action``    what somebody does ("leap"): its first sense as an act                 0.4
``only``      WordNet has one sense of it                                            0.95
``lexfile``   points prefer a sense that is not the first physical one               its share
``physical``  points agree with WordNet's order on the first physical sense          its share
``first``     no sense is physical, and points agree on the first                    share, <= 0.6
``spelling``  an unknown word that others write so ("surf board"): their sense       9/10 of that
``head``      an unknown compound takes the sense of its longest known ending        3/4 of that
``unknown``   WordNet does not know it                                               0, no synset
============  =====================================================================  ===========

Points say what is seen in photographs, and what a word mostly means. The weights are round numbers
near those of conditional logits fitted to half of LVIS's names and synonyms, where ImageNet's
names, the table and labelled captions did not disagree; moving one by a third changes little:

- the lexical file: artifacts and food 3, animals 2.5, plants, bodies, objects, substances and
  places 1.5, persons and groups 0.5, acts 0, what has no look -1: fruit is food rather than a
  plant, but an animal is mostly alive;
- 0.75 for what people wear, hold, ride or furnish with (clothing, containers, implements,
  equipment, conveyances, furnishings), rather than buildings, parts and substances;
- 1.5 if the synset is named after the noun: ``bird.n.01`` rather than ``shuttlecock.n.01``;
- 0.8 log(1 + n), n how often the noun has the sense in the texts that WordNet's authors marked;
- 0.5 log(1 + n), n the kinds directly below it, and 0.75 if words are derived from it: both mark
  central notions. Less 0.2 log(1 + rank) for its place among the noun's senses.

Individuals (``brown.n.02``, a botanist) are no candidates beside kinds. A sense's share is that of
its exponentiated points among the noun's senses, at most 0.9. That is about how often the sense is
right: of nouns not in the table, at 0.5 to 0.7 60 % on LVIS and 68 % in labelled captions, at 0.8
to 0.9 84 % and 92 %, above 98 % (``benchmarks/senses.py`` prints it). A sense that has no look (an
attribute, a time) gets 0.4 at most from any rule but the table.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from .lexicon import WordNet, squeeze
from .tables import curated_senses, forms, words
from .wordnet import open_wordnet

CONFIDENT = 0.5  # mentions below this stay out of the objects, and visible in SQL
_CURATED, _ONLY, _MOST, _FIRST, _LEAST = 1.0, 0.95, 0.9, 0.6, 0.4
_SPELLING_FACTOR, _HEAD_FACTOR = 0.9, 0.75
_LEXFILE_POINTS = {
    "noun.artifact": 3.0, "noun.food": 3.0, "noun.animal": 2.5,
    "noun.plant": 1.5, "noun.body": 1.5, "noun.object": 1.5, "noun.substance": 1.5,
    "noun.location": 1.5, "noun.Tops": 1.5, "noun.person": 0.5, "noun.phenomenon": 0.5,
    "noun.communication": 0.5, "noun.possession": 0.5, "noun.group": 0.5,
    "noun.act": 0.0, "noun.event": 0.0, "noun.shape": 0.0,
}  # fmt: skip
_NO_LOOK_POINTS = -1.0
_NO_LOOK = frozenset(
    f"noun.{name}"
    for name in (
        "attribute", "cognition", "feeling", "motive", "quantity", "relation", "state", "time"
    )
)  # fmt: skip
_USED_BY_PEOPLE = frozenset(
    ("clothing.n.01", "container.n.01", "implement.n.01", "equipment.n.01", "conveyance.n.03",
     "furnishing.n.02")
)  # fmt: skip
_SYNSET = re.compile(r"\S+\.n\.\d+")
_USED, _NAMESAKE, _COUNTED, _KINDS, _DERIVED, _RANK = 0.75, 1.5, 0.8, 0.5, 0.75, 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sense:
    """The synset decided for a noun (None when unknown), by which rule, and how surely (0..1)."""

    synset: str | None
    method: str
    confidence: float


def decide(wordnet: WordNet, lemma: str, head: str, *, table: bool = True) -> Sense:
    """Decide the synset of one distinct noun.

    Args:
        lemma: the noun or compound, in lower case with spaces, as ``find_nouns`` gives it.
        head: its last word's lemma; the lemma itself for a single word.
        table: whether ``senses.tsv`` may decide; without it the rules alone do.
    """
    curated = curated_senses() if table else {}
    if _is_frame(wordnet, curated, lemma, head):
        return Sense(synset=None, method="frame", confidence=0.0)
    if sense := _spelled(wordnet, curated, lemma, head):
        return sense
    for ending in _endings(lemma, head):
        if sense := _spelled(wordnet, curated, ending, head):
            return _weaker(sense, "head", _HEAD_FACTOR)
    return Sense(synset=None, method="unknown", confidence=0.0)


def sense_of(noun: str) -> Sense:
    """Decide the synset of a word or compound as a caption would have it, plural or not.

    Vocabularies tell namesakes apart by words in brackets: those choose among the senses.

    >>> sense_of("baseball bats").synset, sense_of("bow (weapon)").synset  # doctest: +SKIP
    ('baseball_bat.n.01', 'bow.n.04')

    Raises:
        MissingAsset: there is no WordNet on this machine.
    """
    wordnet = open_wordnet()
    if _SYNSET.fullmatch(noun.strip()) and (synset := wordnet.resolve(noun.strip())):
        return Sense(synset=synset, method="given", confidence=_CURATED)
    name, _, hint = noun.replace("_", " ").partition("(")
    lemma, head = read_noun(wordnet, name)
    return _hinted(wordnet, lemma, hint) or decide(wordnet, lemma, head)


def _hinted(wordnet: WordNet, lemma: str, hint: str) -> Sense | None:
    """Choose the sense whose gloss, words and ancestors share most words with a hint, if any do."""
    wanted = _word_set(wordnet, hint)
    senses = _kinds(wordnet, lemma) if wanted else ()
    shared = [len(wanted & _words_about(wordnet, name)) for name in senses]
    if not any(shared):
        return None
    points = [_points(wordnet, lemma, rank, name) for rank, name in enumerate(senses)]
    best = max(range(len(senses)), key=lambda i: (shared[i], points[i]))
    return Sense(synset=senses[best], method="hint", confidence=_MOST)


def _words_about(wordnet: WordNet, name: str) -> set[str]:
    about = [wordnet.synset(above) for above in wordnet.ancestors(name)]
    texts = [wordnet.synset(name).definition, *(" ".join(s.lemmas) for s in about)]
    return _word_set(wordnet, " ".join(texts))


def _word_set(wordnet: WordNet, text: str) -> set[str]:
    """List the words of a text, plurals as singulars too, without the shortest."""
    found = {word for word in re.findall(r"[a-z]+", text.lower()) if len(word) > 2}
    return found | {base for word in found for base in wordnet.bases(word)}


def read_noun(wordnet: WordNet, noun: str) -> tuple[str, str]:
    """Reduce a word or compound, plural or not, to the lemma and the head that ``decide`` takes."""
    *modifiers, last = noun.lower().replace("_", " ").split() or [""]
    readings = _readings(wordnet, last, single=not modifiers)
    lemmas = [" ".join([*modifiers, word]) for word in readings]
    whole = next((i for i, lemma in enumerate(lemmas) if _is_listed(wordnet, lemma)), 0)
    return lemmas[whole], readings[whole]


def _readings(wordnet: WordNet, last: str, *, single: bool) -> list[str]:
    """List the lemmas that a last word may have, the likeliest first."""
    form = forms().get(last)
    if form:
        return [form.lemma, *filter(None, [form.counted])]
    if single and _is_listed(wordnet, last):
        return [last]
    return [*(base for base in wordnet.bases(last) if base != last), last]


def _is_listed(wordnet: WordNet, lemma: str) -> bool:
    curated = curated_senses()
    return lemma in curated or wordnet.knows(lemma) or any(_respellings(wordnet, curated, lemma))


def unresolved(wordnet: WordNet) -> list[str]:
    """List the nouns of ``senses.tsv`` whose synset a WordNet lacks: the other rules decide."""
    return [noun for noun, name in curated_senses().items() if wordnet.resolve(name) is None]


def _is_frame(wordnet: WordNet, curated: dict[str, str], lemma: str, head: str) -> bool:
    """Say whether a noun frames the picture; a compound that is a thing itself does not.

    A word of the table that frames at times ("back") is told by ``find_nouns``, in its caption.
    """
    frames = words("frame")
    if lemma in frames or lemma in curated:
        return lemma not in curated
    return head in frames and head not in curated and not wordnet.knows(lemma)


def _spelled(wordnet: WordNet, curated: dict[str, str], lemma: str, head: str) -> Sense | None:
    """Apply the rules to a lemma, or else to another spelling of it."""
    if sense := _known_sense(wordnet, curated, lemma):
        return sense
    for other in _respellings(wordnet, curated, lemma):
        sense = _known_sense(wordnet, curated, other)
        if sense and (_same_words(lemma, other) or _is_kind_of(wordnet, curated, sense, head)):
            return _weaker(sense, "spelling", _SPELLING_FACTOR)
    return None


def _known_sense(wordnet: WordNet, curated: dict[str, str], lemma: str) -> Sense | None:
    """Apply the rules to exactly this lemma, or to what morphy makes of a single word."""
    listed = curated.get(lemma)
    if listed and (synset := wordnet.resolve(listed)):  # another WordNet may lack that name
        return Sense(synset=synset, method="curated", confidence=_CURATED)
    senses = _kinds(wordnet, lemma)
    if not senses:
        base = wordnet.morphy(lemma)
        return _known_sense(wordnet, curated, base) if base and base != lemma else None
    if lemma in words("action"):
        acts = [s for s in senses if wordnet.synset(s).lexname == "noun.act"] or [senses[0]]
        act = next((s for s in acts if s.startswith(f"{lemma}.")), acts[0])
        return Sense(synset=act, method="action", confidence=_LEAST)
    if len(senses) == 1:
        sense = Sense(synset=senses[0], method="only", confidence=_ONLY)
    else:
        sense = _preferred(wordnet, lemma, senses)
    if wordnet.synset(str(sense.synset)).lexname in _NO_LOOK:
        return replace(sense, confidence=min(sense.confidence, _LEAST))
    return sense


def _kinds(wordnet: WordNet, lemma: str) -> tuple[str, ...]:
    """List the senses of a lemma that are no individuals; all, where all are."""
    senses = wordnet.noun_synsets(lemma)
    return tuple(s for s in senses if wordnet.synset(s).hypernyms) or senses


def _preferred(wordnet: WordNet, lemma: str, senses: tuple[str, ...]) -> Sense:
    """Choose the sense with the most points; the earlier of equals."""
    points = [_points(wordnet, lemma, rank, name) for rank, name in enumerate(senses)]
    most = max(points)
    share = 1 / sum(math.exp(p - most) for p in points)
    best = senses[points.index(most)]
    physical = next((s for s in senses if wordnet.is_physical(s)), None)
    method = "physical" if best == physical else "lexfile"
    if physical is None and best == senses[0]:
        method = "first"
    confidence = min(share, _FIRST if method == "first" else _MOST)
    return Sense(synset=best, method=method, confidence=round(confidence, 4))


def _points(wordnet: WordNet, lemma: str, rank: int, name: str) -> float:
    synset = wordnet.synset(name)
    points = _LEXFILE_POINTS.get(synset.lexname, _NO_LOOK_POINTS)
    points += _USED * (not _USED_BY_PEOPLE.isdisjoint(wordnet.ancestors(name)))
    points += _NAMESAKE * (synset.lemmas[0].lower() == lemma)
    points += _COUNTED * math.log1p(wordnet.count(lemma, name))
    points += _KINDS * math.log1p(synset.num_kinds) + _DERIVED * synset.derived
    return points - _RANK * math.log1p(rank)


def _endings(lemma: str, head: str) -> list[str]:
    """List what a compound ends in, the longest first, and its head."""
    parts = lemma.replace("-", " ").split()
    return [*(" ".join(parts[i:]) for i in range(1, len(parts) - 1)), head]


def _respellings(wordnet: WordNet, curated: dict[str, str], lemma: str) -> Iterator[str]:
    if curated and (listed := _squeezed_table().get(squeeze(lemma))):
        yield listed
    yield from wordnet.respellings(lemma)


@functools.cache
def _squeezed_table() -> dict[str, str]:
    return {squeeze(noun): noun for noun in curated_senses()}


def _same_words(lemma: str, other: str) -> bool:
    """Say whether two spellings part a compound at the same places, or the first nowhere."""
    one, two = lemma.replace("-", " "), other.replace("-", " ")
    return one == two or " " not in one


def _is_kind_of(wordnet: WordNet, curated: dict[str, str], sense: Sense, head: str) -> bool:
    """Say whether a joined compound fits its head: a leatherjacket, a fish, is no jacket."""
    of_head = _known_sense(wordnet, curated, head)
    if of_head is None or sense.synset is None or of_head.synset is None:
        return True
    files = {wordnet.synset(name).lexname for name in (sense.synset, of_head.synset)}
    return len(files) == 1


def _weaker(sense: Sense, method: str, factor: float) -> Sense:
    return replace(sense, method=method, confidence=round(sense.confidence * factor, 4))
