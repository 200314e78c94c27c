"""The nouns of one WordNet, read straight from its files.

nltk finds the files and reads them for everybody else; its reader makes an object of every lemma of
every part of speech, which costs more than all else that is asked here. What comes out is the same:
``tests/ontology/test_lexicon.py`` compares. Synsets go by nltk's names (``dog.n.01``: the first
lemma and the number of the sense among that lemma's); a lemma is written with spaces and in lower
case (``fire hydrant``), as it stands in a caption. The format is that of wndb(5WN).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import xxhash

ROOT = "entity.n.01"
PHYSICAL = "physical_entity.n.01"
_FINGERPRINTED = ("data.noun", "index.noun", "noun.exc", "lexnames", "index.sense")
_VERSION = re.compile(rb"Word[nN]et (\d+(?:\.\d+)?) Copyright")
_EXAMPLE = re.compile(r'".*?"')
_SEPARATORS = re.compile(r"[-_ .'’]+")  # noqa: RUF001 (a typographic apostrophe)
_MIN_LETTERS = 4  # to be recognised in another spelling: "i." is not iodine
_COUNTED = re.compile(rb"^([^%\n]+)%1:\S+ (\d+) \d+ ([1-9]\d*)\s*$", re.MULTILINE)
# The plurals that morphy undoes, in its order.
_ENDINGS = (
    ("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"),
    ("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Synset:
    """One noun synset; hypernyms sorted by name, those of instances (``paris.n.01``) apart.

    Attributes:
        num_kinds: how many synsets lie directly below.
        derived: whether another word is derived from one of its lemmas, or they from it.
    """

    name: str
    lemmas: tuple[str, ...]
    definition: str
    lexname: str
    hypernyms: tuple[str, ...]
    instance_hypernyms: tuple[str, ...]
    num_kinds: int
    derived: bool


class WordNet:
    """The nouns of one WordNet; safe to share between threads.

    Attributes:
        version: ``3.0`` or whatever the data files say.
        root: where it was read from, as nltk points to it. folder: the same, as text.
    """

    def __init__(self, root: Any) -> None:
        """Read the index.

        Args:
            root: a path pointer of nltk: a folder, or one inside a zip file.

        Raises:
            OSError, ValueError, KeyError, IndexError: a file is missing or not of this format.
        """
        self.root = root
        self.folder = str(root)
        self._data = read_file(root, "data.noun")
        self._lexnames = [line.split()[1] for line in _lines(root, "lexnames")]
        self._senses = dict(_index(root))
        irregular = (line.split() for line in _lines(root, "noun.exc"))
        self._irregular = {form: bases for form, *bases in irregular}
        self._synsets: dict[int, Synset] = {}
        self._above: dict[str, frozenset[str]] = {}
        self.version = version_of(self._data)
        if self.resolve(ROOT) != ROOT:  # of another version than the index, or of other nouns
            raise ValueError(f"data.noun has no {ROOT} where index.noun says")

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the noun files' content: the same for the same data, wherever it lies."""
        return fingerprint_of(self.root)

    def lemmas(self) -> Iterator[str]:
        """Go through all nouns, with spaces, in lower case."""
        return (key.replace("_", " ") for key in self._senses)

    def knows(self, lemma: str) -> bool:
        """Say whether a lemma is a noun of WordNet exactly as written, without any stemming."""
        return _key(lemma) in self._senses

    def noun_synsets(self, lemma: str) -> tuple[str, ...]:
        """List the senses of exactly this lemma, the most frequent first; empty when unknown."""
        return tuple(self._synset(offset).name for offset in self._senses.get(_key(lemma), ()))

    def count(self, lemma: str, name: str) -> int:
        """How often a lemma has this sense in the texts whose senses were marked; 0 if unknown."""
        offset = self._offset(name)
        return 0 if offset is None else self._counts.get((_key(lemma), offset), 0)

    def morphy(self, word: str) -> str | None:
        """Reduce a plural to a noun that WordNet knows (``geese`` -> ``goose``), or None."""
        return next(iter(self.bases(word)), None)

    def bases(self, word: str) -> list[str]:
        """List the nouns of WordNet that a word may be a form of, itself first if it is one."""
        word = _key(word)
        found = self._irregular.get(word)
        if found is None:
            found = [word[: -len(old)] + new for old, new in _ENDINGS if word.endswith(old)]
        known = dict.fromkeys(base for base in (word, *found) if base in self._senses)
        return [base.replace("_", " ") for base in known]

    def respellings(self, lemma: str) -> tuple[str, ...]:
        """List lemmas that differ in spaces, hyphens, dots only (``surf board``: ``surfboard``)."""
        letters = squeeze(lemma)
        same = self._squeezed.get(letters, ()) if len(letters) >= _MIN_LETTERS else ()
        return tuple(found for found in same if found != lemma.lower())

    def resolve(self, name: str) -> str | None:
        """Return the noun synset that a name stands for under its own first name, or None.

        >>> open_wordnet().resolve("chest.n.01")  # doctest: +SKIP
        'thorax.n.02'
        """
        offset = self._offset(name)
        return None if offset is None else self._synset(offset).name

    def synset(self, name: str) -> Synset:
        """Read one synset by its name.

        Raises:
            KeyError: this WordNet has none of that name.
        """
        offset = self._offset(name)
        if offset is None:
            raise KeyError(name)
        return self._synset(offset)

    def hypernyms(self, name: str) -> tuple[str, ...]:
        """List the direct hypernyms of a synset by name, those of instances last."""
        found = self.synset(name)
        return found.hypernyms + found.instance_hypernyms

    def ancestors(self, name: str) -> frozenset[str]:
        """Return every synset above this one, itself included."""
        if (found := self._above.get(name)) is None:
            above = [self.ancestors(parent) for parent in self.hypernyms(name)]
            found = self._above[name] = frozenset({name}.union(*above))
        return found

    def is_physical(self, name: str) -> bool:
        """Say whether a synset lies under ``physical_entity.n.01``."""
        return PHYSICAL in self.ancestors(name)

    @functools.cached_property
    def _counts(self) -> dict[tuple[str, int], int]:
        found = _COUNTED.finditer(read_file(self.root, "index.sense"))
        return {(m[1].decode(), int(m[2])): int(m[3]) for m in found}

    @functools.cached_property
    def _squeezed(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for key in self._senses:
            found.setdefault(squeeze(key), []).append(key.replace("_", " "))
        return found

    def _offset(self, name: str) -> int | None:
        lemma, _, number = name.lower().rpartition(".n.")
        offsets = self._senses.get(lemma, ())
        rank = int(number) if number.isascii() and number.isdigit() else 0
        return offsets[rank - 1] if 0 < rank <= len(offsets) else None

    def _synset(self, offset: int) -> Synset:
        if (found := self._synsets.get(offset)) is None:
            found = self._synsets[offset] = self._read(offset)
        return found

    def _read(self, offset: int) -> Synset:
        columns, gloss = self._line(offset)
        num_lemmas = int(columns[3], 16)
        lemmas = columns[4 : 4 + 2 * num_lemmas : 2]
        rest = columns[5 + 2 * num_lemmas :]  # of four columns each: symbol, offset, part of speech
        links: dict[str, list[int]] = {}
        for symbol, target in zip(rest[::4], rest[1::4], strict=False):
            links.setdefault(symbol, []).append(int(target))
        return Synset(
            name=self._name(lemmas[0], offset),
            lemmas=tuple(lemma.replace("_", " ") for lemma in lemmas),
            definition=_EXAMPLE.sub("", gloss).strip().strip("; "),
            lexname=self._lexnames[int(columns[1])],
            hypernyms=self._names(links.get("@", ())),
            instance_hypernyms=self._names(links.get("@i", ())),
            num_kinds=len(links.get("~", ())),
            derived="+" in links,
        )

    def _line(self, offset: int) -> tuple[list[str], str]:
        line = self._data[offset : self._data.index(b"\n", offset)].decode()
        columns, _, gloss = line.partition("|")
        return columns.split(), gloss.strip()

    def _name(self, lemma: str, offset: int) -> str:
        number = self._senses[lemma.lower()].index(offset) + 1
        return f"{lemma.lower()}.n.{number:02d}"

    def _names(self, offsets: list[int] | tuple[()]) -> tuple[str, ...]:
        firsts = ((self._line(offset)[0][4], offset) for offset in offsets)
        return tuple(sorted(self._name(lemma, offset) for lemma, offset in firsts))


def squeeze(lemma: str) -> str:
    """Leave out what separates the parts of a compound.

    >>> squeeze("Ping-pong table")
    'pingpongtable'
    """
    return _SEPARATORS.sub("", lemma.lower())


def version_of(data: bytes) -> str:
    """Find the version in the licence that opens every data file; empty when it says none."""
    found = _VERSION.search(data, 0, 4096)
    return found[1].decode() if found else ""


def fingerprint_of(root: Any) -> str:
    """Hash the noun files of a WordNet without reading them as such."""
    state = xxhash.xxh3_128()
    for name in _FINGERPRINTED:
        data = read_file(root, name)
        state.update(f"{name}:{len(data)}:".encode() + data)
    return state.hexdigest()


def read_file(root: Any, name: str) -> bytes:
    """Read a whole file of a WordNet, from a folder or a zip file."""
    with root.join(name).open() as file:
        data = file.read()
    return data if isinstance(data, bytes) else data.encode()


def _lines(root: Any, name: str) -> list[str]:
    return [line for line in read_file(root, name).decode().splitlines() if line.strip()]


def _index(root: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the lemmas (``fire_hydrant``) with the places of their senses in ``data.noun``."""
    for line in read_file(root, "index.noun").decode().split("\n"):
        if line and line[0] != " ":  # the licence is indented
            columns = line.split()
            yield columns[0], tuple(map(int, columns[-int(columns[2]) :]))


def _key(lemma: str) -> str:
    return lemma.replace(" ", "_").lower()
