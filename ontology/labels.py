"""Which synset a detector's label stands for.

A label names what is seen in a box, so it is decided without a sentence, by the first that applies:

1. the synset that the vocabulary itself gives (ImageNet's do): method ``given``;
2. the label in ``labels.tsv``: method ``label``;
3. the rules for captions (``senses.decide``), for the label in the singular if that is a noun,
   as written, as one word (``lamp post``) or as two (``trashcan``): methods as there;
4. what a compound ends in, by the same rules: method ``head``.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..artifact import hash_json
from .senses import Sense, decide
from .tables import curated_labels, curated_senses, forms, tables_fingerprint, words
from .wordnet import WordNet

RULES_VERSION = 1  # raised when a change in this file changes what is decided
_CERTAIN = 1.0
_HEAD_FACTOR = 0.75
_UNKNOWN = Sense(synset=None, method="unknown", confidence=0.0)
_PLURALS = (("ies", "y"), ("s", ""), ("es", ""))
_SHORTEST = 3  # letters of a singular: "gas" is no plural of "ga"


def label_sense(wordnet: WordNet, name: str, synset: str = "") -> Sense:
    """Decide the synset of one label.

    Args:
        name: as the vocabulary has it; of synonyms, parted by commas, the first known one counts.
        synset: the vocabulary's own, if it has one.
    """
    if synset and (given := wordnet.resolve(synset)):
        return Sense(synset=given, method="given", confidence=_CERTAIN)
    senses = [_of_name(wordnet, part) for part in name.split(",")]
    whole = (s for s in senses if s.method not in ("head", "frame", "unknown"))
    return next(whole, senses[0])


def labels_fingerprint() -> str:
    """Hash of everything but WordNet that decides what a label stands for."""
    return hash_json([RULES_VERSION, sorted(curated_labels().items()), tables_fingerprint()])


def _of_name(wordnet: WordNet, name: str) -> Sense:
    label = " ".join(name.lower().replace("_", " ").split())
    for reading in _readings(wordnet, label):
        if sense := _exact(wordnet, reading):
            return sense
    return _ending(wordnet, label)


def _exact(wordnet: WordNet, reading: str) -> Sense | None:
    """Decide a reading that is listed, or is a noun of WordNet, as a whole."""
    listed = curated_labels().get(reading)
    if listed and (synset := wordnet.resolve(listed)):  # another WordNet may lack that name
        return Sense(synset=synset, method="label", confidence=_CERTAIN)
    if _known(wordnet, reading):
        return decide(wordnet, reading, reading.split()[-1])
    return None


def _readings(wordnet: WordNet, label: str) -> Iterator[str]:
    """List what a label may be meant as, the likeliest first."""
    if label in curated_labels() or label in curated_senses():
        yield label
    form = forms().get(label)
    singular = form.lemma if form else _singular(wordnet, label)
    if singular:
        yield singular
    yield label
    for word in (label, singular or label):
        yield from (other for other in _respelled(word) if _known(wordnet, other))
        if base := wordnet.morphy(word.replace(" ", "")):  # head lights: headlight
            yield base


def _singular(wordnet: WordNet, label: str) -> str | None:
    """Find the noun that a label is the plural of: WordNet has odd senses for many plurals."""
    if (base := wordnet.morphy(label)) and base != label:  # knows irregular ones
        return base
    if label.endswith("ss"):
        return None
    stems = (label[: -len(end)] + new for end, new in _PLURALS if label.endswith(end))
    found = (stem for stem in stems if len(stem) >= _SHORTEST and _known(wordnet, stem))
    return next(found, None)


def _respelled(label: str) -> Iterator[str]:
    """Spell two words as one, or one as two."""
    if " " in label:
        yield label.replace(" ", "")
        return
    for at in range(_SHORTEST, len(label) - _SHORTEST + 1):
        yield f"{label[:at]} {label[at:]}"


def _known(wordnet: WordNet, word: str) -> bool:
    return word in curated_labels() or word in curated_senses() or wordnet.knows(word)


def _ending(wordnet: WordNet, label: str) -> Sense:
    """Decide an unknown compound by the longest known end of it, but a number says nothing."""
    if label in words("frame"):
        return Sense(synset=None, method="frame", confidence=0.0)
    parts = label.split()
    endings = (" ".join(parts[start:]) for start in range(1, len(parts)))
    for ending in (ending for ending in endings if not ending.isdigit()):
        for reading in _readings(wordnet, ending):
            sense = _exact(wordnet, reading)
            if sense and sense.synset:
                confidence = round(sense.confidence * _HEAD_FACTOR, 4)
                return Sense(synset=sense.synset, method="head", confidence=confidence)
    return _UNKNOWN
