"""Which pairs a plan may use, and which of them must not meet in a batch."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...artifact import hash_rows
from ...errors import ConfigError, InputError
from ...features import FeatureStore
from ...train.model.tokens import packed_places
from .similarity import Codes, Kind, Similarity, kinds_of


@dataclass(frozen=True, kw_only=True)
class Objects:
    """The ontology as a builder sees it.

    Attributes:
        names: synset of each object; parents come before children.
        parent: (n,) int32, -1 for the root. depth: (n,) int32, 0 for the root.
        starts, members: the deepest objects of eligible row r are
            ``members[starts[r]:starts[r + 1]]``.
    """

    names: list[str]
    parent: np.ndarray
    depth: np.ndarray
    starts: np.ndarray
    members: np.ndarray

    def mentions(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The deepest objects of rows, row by row: (m,) places in ``rows``, (m,) int32 objects."""
        places, at = runs(self.starts[rows], np.diff(self.starts)[rows])
        return places, self.members[at]

    def find(self, where: str, name: str) -> int:
        """The number of an object, by its synset or the word of one.

        Raises:
            ConfigError: there is none, or a word of several; the message names them, or near ones.
        """
        words = [synset.rpartition(".")[0].rpartition(".")[0] for synset in self.names]
        if name in self.names:
            return self.names.index(name)
        if several := [s for s, word in zip(self.names, words, strict=True) if word == name]:
            if len(several) == 1:
                return self.names.index(several[0])
            do = f"say which: {', '.join(several)}"
            raise ConfigError(where, f"{name!r} is {len(several)} objects", do=do)
        near = difflib.get_close_matches(name, dict.fromkeys([*words, *self.names]), 3)
        raise ConfigError(
            where,
            f"no object {name!r} among {len(self.names):,}",
            expected="an object of this dataset's ontology",
            do=f"did you mean {', '.join(near)}?" if near else "see 'tonics sql \"FROM objects\"'",
        )

    def below(self, node: int) -> np.ndarray:
        """(n,) bool: the objects at or below one."""
        found = np.zeros(len(self.names), bool)
        found[node] = True
        for number in range(node + 1, len(found)):
            found[number] = self.parent[number] >= 0 and found[self.parent[number]]
        return found

    @cached_property
    def named(self) -> np.ndarray:
        """(n,) int64 how often eligible rows name an object below or at each node."""
        counts = np.bincount(self.members, minlength=len(self.names))
        for node in range(len(self.names) - 1, 0, -1):
            if self.parent[node] >= 0:
                counts[self.parent[node]] += counts[node]
        return counts


@dataclass(frozen=True, kw_only=True)
class Eligible:
    """The pairs a plan may use; builders speak of them by row.

    Attributes:
        table: pair, pair_key, image, image_id, caption, split, caption_hash; by pair number.
        image: (n,) int64 group of the image's content: two of one group never share a batch.
        objects, vectors: present when a builder needs them; vectors by what they are of:
            ``text``, ``image``.
    """

    table: pa.Table
    image: np.ndarray
    objects: Objects | None = None
    vectors: Mapping[str, Codes] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def pair(self) -> np.ndarray:
        """(n,) int64 pair numbers, increasing."""
        return self.table.column("pair").to_numpy()

    @cached_property
    def caption(self) -> np.ndarray:
        """(n,) int64 group of the folded caption: two of one group never share a batch."""
        folded = pa.array([fold(c) for c in self.table.column("caption").to_pylist()], pa.string())
        return _groups(folded)

    @cached_property
    def num_images(self) -> int:
        """How many different images there are."""
        return count_distinct(self.image)

    def similarity(self, kind: Kind) -> Similarity:
        """How alike rows are by ``text``, ``image``, or ``both``."""
        kinds = kinds_of(kind)
        assert set(kinds) <= set(self.vectors), f"no {kind} vectors were loaded"
        return Similarity(tuple(self.vectors[k] for k in kinds))

    def content_hash(self) -> str:
        """What makes two plans be of the same pairs."""
        return hash_rows(self.table, ["pair", "pair_key", "image", "caption_hash"])


def fold(caption: str) -> str:
    """Reduce a caption to what tells it from another: no case, punctuation or spacing.

    Letters, combining marks, numbers and symbols (``+``, emoji) stay, in any script. A caption of
    nothing but punctuation keeps it.

    >>> fold("A dog,  on a  sofa.") == fold("a dog on a SOFA")
    True
    >>> fold("C++ book") == fold("C book")
    False
    """
    text = unicodedata.normalize("NFKC", caption).casefold()
    return " ".join(text.translate(_FOLDING).split()) or text


class _Folding(dict[int, str]):
    """What becomes of a character, by its Unicode category, looked up once."""

    def __missing__(self, code: int) -> str:
        category = unicodedata.category(chr(code))
        if category == "Cf":  # invisible, within words too: a soft hyphen, a joiner
            kept = ""
        elif category[0] in "PZ" or category in ("Cc", "Cs"):
            kept = " "
        else:
            kept = chr(code)
        return self.setdefault(code, kept)


_FOLDING = _Folding()


def find_eligible(pairs: pa.Table, images: pa.Table, store: FeatureStore, split: str) -> Eligible:
    """Choose the pairs of one split whose image is in the feature store.

    Raises:
        InputError: there are none; the message says which condition removed them.
    """
    in_split = pc.equal(pairs.column("split"), split)
    stored = pc.is_in(pairs.column("image"), value_set=pa.array(store.images))
    table = pairs.filter(pc.and_(in_split, stored)).sort_by("pair")
    if table.num_rows == 0:
        raise none_eligible(pairs, split, f"{pc.sum(stored).as_py() or 0:,} have features")
    image = table.column("image").to_numpy()
    image_ids = images.column("image_id").take(pa.array(image))
    content = _groups(images.column("content_hash").combine_chunks())
    return Eligible(table=table.append_column("image_id", image_ids), image=content[image])


def none_eligible(pairs: pa.Table, split: str, stored: str = "") -> InputError:
    """Say why no pair is eligible: how many are in the split, and how many have features."""
    in_split = pc.sum(pc.equal(pairs.column("split"), split)).as_py() or 0
    found = f"no eligible pair: {in_split:,} of {pairs.num_rows:,} pairs are in split {split!r}"
    return InputError(
        "plan",
        f"{found}, {stored}" if stored else found,
        expected=f"a split of {sorted(set(pairs.column('split').to_pylist()) - {''})}",
        do="check split and features of the plan in tonics.toml",
    )


def _groups(values: pa.Array) -> np.ndarray:
    """Number equal values alike, in order of first appearance."""
    return values.dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)


def runs(starts: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spell out runs of numbers: of which run each is, and the numbers themselves.

    >>> [x.tolist() for x in runs(np.array([7, 0, 4]), np.array([2, 0, 1]))]
    [[0, 0, 2], [7, 8, 4]]
    """
    return np.repeat(np.arange(len(starts)), counts), packed_places(starts, counts)


def count_distinct(values: np.ndarray) -> int:
    """How many different numbers there are; by sorting, since numpy's ``unique`` hashes slowly.

    >>> count_distinct(np.array([3, 1, 3]))
    2
    """
    ordered = np.sort(values)
    return int(np.count_nonzero(ordered[1:] != ordered[:-1])) + (len(ordered) > 0)


def count_before(values: np.ndarray) -> np.ndarray:
    """How many before each number (below 2**31) are equal to it: (n,) int64.

    >>> count_before(np.array([7, 5, 7, 7])).tolist()
    [0, 0, 1, 2]
    """
    numbers = np.arange(len(values))
    keys = np.sort((values << 32) + numbers)  # no two are equal: any sort gives this order
    value, order = keys >> 32, keys & 0xFFFFFFFF
    first = np.ones(len(values), bool)
    first[1:] = value[1:] != value[:-1]
    before = np.empty(len(values), np.int64)
    before[order] = numbers - np.maximum.accumulate(np.where(first, numbers, 0))
    return before
