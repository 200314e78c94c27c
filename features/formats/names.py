"""Which number a label has: by a vocabulary file, in order of appearance, or as the file says.

A vocabulary file is VinVL's label map (JSON with ``label_to_idx``; number 0 is the background), a
``vocabulary.json`` of ours, or a text with a name a line (bottom-up-attention's
``objects_vocab.txt`` and ``attributes_vocab.txt``; of synonyms, parted by commas, the first is the
name).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...artifact import hash_json, read_json
from ...errors import FormatError, InputError
from ..detector import Label, Vocabulary
from ..vinvl.config import VinVLConfig
from ..vinvl.label_map import BACKGROUND, NO_ATTRIBUTE, read_vocabulary
from .row import BadLine, Object, names_in

UNLABELLED = "unlabelled"
_MOST = np.iinfo(np.uint16).max
_LONGEST = 400  # characters of a line, with all synonyms: the names of the field have 20


@dataclass(slots=True, kw_only=True)
class Names:
    """Labels and attributes by number.

    Attributes:
        labels, attributes: the names; ``labels[first_label]`` is the first real one.
        fixed: they come from a file: others are errors.
        numbered: there are no names at all: the vocabulary is made from the numbers that occur.
    """

    labels: list[Label] = field(default_factory=list)
    attributes: list[str] = field(default_factory=list)
    first_label: int = 0
    first_attribute: int = 0
    fixed: bool = False
    numbered: bool = False
    _label_of: dict[str, int] = field(default_factory=dict, repr=False)
    _attribute_of: dict[str, int] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for number, label in enumerate(self.labels):
            self._label_of.setdefault(label.name, number)
        for number, name in enumerate(self.attributes):
            self._attribute_of.setdefault(name, number)

    @classmethod
    def without_names(cls, first_number: int) -> Names:
        """For files that number labels, where nobody says what the numbers mean."""
        return cls(first_label=first_number, first_attribute=first_number, numbered=True)

    def to_json(self) -> dict[str, Any]:
        """Turn into a JSON value."""
        return {
            "labels": [list(label) for label in self.labels],
            "attributes": self.attributes,
            "first": [self.first_label, self.first_attribute],
            "fixed": self.fixed,
            "numbered": self.numbered,
        }

    @classmethod
    def from_json(cls, value: Any) -> Names:
        """Read back what ``to_json`` gave."""
        return cls(
            labels=[Label(*label) for label in value["labels"]],
            attributes=list(value["attributes"]),
            first_label=value["first"][0],
            first_attribute=value["first"][1],
            fixed=value["fixed"],
            numbered=value["numbered"],
        )

    def content_hash(self) -> str:
        """Hash what decides numbers."""
        return hash_json(self.to_json())

    def collect(self, objects: Sequence[Object]) -> None:
        """Give names that are new the next numbers.

        Raises:
            BadLine: there are more names than numbers.
        """
        if self.fixed:
            return
        for label, attributes in names_in(objects):
            if label not in self._label_of:
                _check_room(self.labels, "labels")
                self._label_of[label] = len(self.labels)
                self.labels.append(Label(label))
            for name in attributes:
                if name not in self._attribute_of:
                    _check_room(self.attributes, "attributes")
                    self._attribute_of[name] = len(self.attributes)
                    self.attributes.append(name)

    def label(self, name: str) -> int:
        """The number of a label."""
        try:
            return self._label_of[name]
        except KeyError:
            raise BadLine("label not in the vocabulary", repr(name[:80])) from None

    def attribute(self, name: str) -> int:
        """The number of an attribute."""
        try:
            return self._attribute_of[name]
        except KeyError:
            raise BadLine("attribute not in the vocabulary", repr(name[:80])) from None

    def number_labels(self, labels: np.ndarray) -> np.ndarray:
        """Turn (n,) int64 counted from the first real label into (n,) uint16 of the vocabulary."""
        return self._number(labels, self.first_label, len(self.labels), "label")

    def number_attributes(self, attributes: np.ndarray) -> np.ndarray:
        """The same for attributes of any shape."""
        return self._number(attributes, self.first_attribute, len(self.attributes), "attribute")

    def _number(self, values: np.ndarray, first: int, count: int, what: str) -> np.ndarray:
        end = (_MOST + 1 if self.numbered else count) - first
        bad = values[(values < 0) | (values >= end)]  # before the sum, which may wrap around
        if bad.size:
            raise BadLine(f"{what} not in the vocabulary", f"number {int(bad.flat[0]) + first}")
        return (values + first).astype(np.uint16)

    def vocabulary(self, most_label: int = -1, most_attribute: int = -1) -> Vocabulary:
        """The vocabulary of a store.

        Args:
            most_label, most_attribute: the highest numbers that occur, for files without names.
        """
        if self.numbered:
            labels = [Label(f"label_{k}") for k in range(most_label + 1)]
            attributes = [f"attribute_{k}" for k in range(most_attribute + 1)]
            return Vocabulary(labels=tuple(labels), attributes=tuple(attributes))
        labels = self.labels or [Label(UNLABELLED)]
        return Vocabulary(labels=tuple(labels), attributes=tuple(self.attributes))


def _check_room(names: Sequence[object], what: str) -> None:
    if len(names) > _MOST:
        raise BadLine(f"too many {what}", f"more than {len(names):,} names")


def read_names(labels: Path | None, attributes: Path | None) -> Names:
    """Read vocabulary files; attributes of their own file come before those in the other.

    Raises:
        InputError: a file that is missing or is no vocabulary.
    """
    found = _read(labels) if labels else Vocabulary(labels=())
    if attributes:
        other = _read(attributes)
        names = other.attributes or tuple(label.name for label in other.labels)
        found = Vocabulary(labels=found.labels, attributes=names)
    return Names(
        labels=list(found.labels),
        attributes=list(found.attributes),
        first_label=int(found.labels[:1] == (Label(BACKGROUND),)),
        first_attribute=int(found.attributes[:1] == (NO_ATTRIBUTE,)),
        fixed=True,
    )


def _read(path: Path) -> Vocabulary:
    if not path.is_file():
        raise InputError(path, "no such vocabulary file")
    if path.suffix.lower() != ".json":
        lines = [line.strip() for line in _text(path).splitlines() if line.strip()]
        _check_lines(path, lines)
        names = [line.split(",")[0].strip() for line in lines]
        return Vocabulary(labels=tuple(Label(name) for name in names))
    try:
        value = read_json(path)
        if isinstance(value, dict) and "labels" in value:
            return Vocabulary.from_json(value)
    except (FormatError, KeyError, TypeError) as error:
        raise InputError(path, f"not a vocabulary ({error})") from error
    return read_vocabulary(value, VinVLConfig()) if isinstance(value, dict) else _refuse(path)


def _check_lines(path: Path, lines: Sequence[str]) -> None:
    """Refuse a text that is something else, captions say: all its labels would be unknown."""
    expected = "a name a line"
    if not lines or len(lines) > _MOST:
        raise InputError(path, f"not a vocabulary ({len(lines):,} lines)", expected=expected)
    for number, line in enumerate(lines, 1):
        if line[0] in "{[" or len(line) > _LONGEST:
            found = f"not a vocabulary (line {number} is {line[:40]!r})"
            raise InputError(path, found, expected=expected)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except ValueError as error:
        raise InputError(path, f"not a vocabulary ({error})", expected="UTF-8 text") from error


def _refuse(path: Path) -> Vocabulary:
    expected = "'label_to_idx' as VinVL's label map has, or 'labels'"
    raise InputError(path, "not a vocabulary", expected=expected)
