"""Whose features a line holds: the image ids of other programs against those of the dataset."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

# How an id is recognised, the surest way first. COCO_val2014_000000522418.jpg has the file stem
# COCO_val2014_000000522418 and the number 522418.
RULES = ("image id", "file stem", "number")
AMBIGUOUS = -1
_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")
_NUMBER = re.compile(r"(?:^|[\W_])([0-9]+)$")  # no digits within a word, such as a hash


def stem_of(name: str) -> str:
    """A file's name without folders and ending.

    >>> stem_of("val2014/COCO_val2014_000000522418.jpg")
    'COCO_val2014_000000522418'
    """
    return _SUFFIX.sub("", name.rpartition("/")[2])


def number_of(name: str) -> str:
    """The number that is a name's last word, without leading zeros; "" where there is none.

    >>> number_of("COCO_val2014_000000522418.jpg"), number_of("0"), number_of("75b2da7854")
    ('522418', '0', '')
    """
    found = _NUMBER.search(stem_of(name))
    return (found.group(1).lstrip("0") or "0") if found else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """An image for an id: which rule found it (a place in ``RULES``), image number or AMBIGUOUS."""

    rule: int
    image: int


class ImageIds:
    """The dataset's images by every name they may have elsewhere.

    Args:
        images: image, image_id, path; withdrawn ones are left out.
        rules: which rules may be used.
    """

    def __init__(self, images: pa.Table, rules: Sequence[str] = RULES) -> None:
        self._rules = [RULES.index(rule) for rule in rules]
        self._by: tuple[dict[str, int], ...] = ({}, {}, {})
        columns = (images.column(name).to_pylist() for name in ("image", "image_id", "path"))
        for image, image_id, path in zip(*columns, strict=True):
            self._by[0][image_id] = image
            self._add(1, image, {stem_of(image_id), stem_of(path or "")})
            self._add(2, image, {number_of(image_id)})

    def _add(self, rule: int, image: int, names: Iterable[str]) -> None:
        for name in names:
            if name and self._by[rule].setdefault(name, image) != image:
                self._by[rule][name] = AMBIGUOUS

    def find(self, key: str) -> Match | None:
        """Find the image of a foreign id."""
        for rule in self._rules:
            name = _NAMED[rule](key)
            if name and (image := self._by[rule].get(name)) is not None:
                return Match(rule=rule, image=image)
        return None


def settle(found: Sequence[tuple[str, Match]]) -> Iterator[str]:
    """Decide which of the lines that point at an image have it.

    The surest rule wins, and of equal keys the first. Two different ids that fit one image by the
    same weaker rule are ambiguous: neither is used.

    Yields:
        For each (id, match): "" (it has the image), "twice", "ambiguous" or "other" (another id
        fits that image better).
    """
    best: dict[int, tuple[int, str]] = {}
    shared: set[tuple[int, int]] = set()  # (image, rule) that different ids fit
    for key, match in found:
        rule, known = best.get(match.image, (len(RULES), ""))
        if match.rule < rule:
            best[match.image] = (match.rule, key)
        elif match.rule == rule and key != known:
            shared.add((match.image, match.rule))
    taken: set[int] = set()
    for key, match in found:
        rule, known = best[match.image]
        if match.image == AMBIGUOUS or (match.image, match.rule) in shared:
            yield "ambiguous"
        elif match.rule > rule or key != known:
            yield "other"
        else:
            yield "twice" if match.image in taken else ""
            taken.add(match.image)


_NAMED: tuple[Callable[[str], str], ...] = (str, stem_of, number_of)
