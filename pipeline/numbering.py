"""Numbers are given once: images and captions that were there keep theirs, new ones are appended.

What left its source, or is rejected now, is *withdrawn*: its row stays for the number's sake, an
image without content, a pair in no split. When it comes back it is active again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .dataset import IMAGES_SCHEMA, PAIRS_SCHEMA

_ROWS_AT_ONCE = 1_000_000
_IMAGES_AT_ONCE = 200_000
_NO_FILE = {"path": "", "width": 0, "height": 0, "bytes": 0, "content_hash": ""}


@dataclass(frozen=True, kw_only=True)
class Captions:
    """The captions of all sources, in their order: n in all, of which a are accepted.

    Attributes:
        image: (n,) number of the image, -1: none. position: (n,) place among those of its image.
        rows: (a,) which are accepted; increasing.
        caption, split: (a) texts. caption_hash: (a,) uint64.
    """

    image: np.ndarray
    position: np.ndarray
    rows: np.ndarray
    caption: pa.Array
    split: pa.Array
    caption_hash: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


def number_images(old: pa.Table, probed: pa.Table) -> pa.Table:
    """Number images; rows of ``old`` that were not probed are withdrawn.

    Args:
        probed: ``IMAGES_SCHEMA`` without numbers, every image id once.
    """
    ids = probed.column("image_id").combine_chunks()
    kept = pc.index_in(old.column("image_id"), value_set=ids)
    new = pc.invert(pc.is_in(ids, value_set=old.column("image_id").combine_chunks()))
    added = probed.filter(new)
    columns = {"image": np.arange(old.num_rows + added.num_rows)}
    columns["image_id"] = _joined(old.column("image_id"), added.column("image_id"))
    for name, nothing in _NO_FILE.items():
        before = pc.fill_null(probed.column(name).take(kept), nothing)
        columns[name] = _joined(before, added.column(name))
    return pa.table(columns).select(IMAGES_SCHEMA.names).cast(IMAGES_SCHEMA)


def number_pairs(old: pa.Table, captions: Captions, image_ids: pa.ChunkedArray) -> pa.Table:
    """Number pairs; rows of ``old`` that no caption matches are withdrawn.

    Args:
        image_ids: of all images, by number.
    """
    image = captions.image[captions.rows]
    known = _Known(old)
    k = _keys(known, captions)
    row = known.find(image, k)
    new = np.flatnonzero(row < 0)
    row[new] = known.rows + np.arange(len(new))
    source = np.arange(known.rows + len(new))  # of every row: an old one, or an accepted caption
    source[row] = known.rows + np.arange(len(captions))
    ids, digits = image_ids.take(pa.array(image[new])), pa.array(k[new]).cast(pa.string())
    columns = {
        "pair": np.arange(len(source)),
        "pair_key": _joined(old.column("pair_key"), pc.binary_join_element_wise(ids, digits, "#")),
        "image": np.concatenate([known.image, image])[source],
        "caption": _chosen(old.column("caption"), captions.caption, source),
        "split": _chosen(pa.nulls(known.rows, pa.string()).fill_null(""), captions.split, source),
        "caption_hash": np.concatenate([known.caption_hash, captions.caption_hash])[source],
    }
    return pa.table(columns).select(PAIRS_SCHEMA.names).cast(PAIRS_SCHEMA)


def _joined(*parts: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    chunks = [c for p in parts for c in (p.chunks if isinstance(p, pa.ChunkedArray) else [p])]
    return pa.chunked_array(chunks, parts[0].type)


def _chosen(
    old: pa.Array | pa.ChunkedArray, new: pa.Array | pa.ChunkedArray, source: np.ndarray
) -> pa.ChunkedArray:
    """Take texts from two columns laid end to end, in pieces that a column of texts can hold."""
    both = _joined(old.cast(pa.large_string()), new.cast(pa.large_string())).combine_chunks()
    parts = range(0, len(source), _ROWS_AT_ONCE)
    taken = [both.take(pa.array(source[at : at + _ROWS_AT_ONCE])).cast(pa.string()) for at in parts]
    return pa.chunked_array([c for t in taken for c in getattr(t, "chunks", [t])], pa.string())


class _Known:
    """The pairs there are, to be found by image and k."""

    def __init__(self, pairs: pa.Table) -> None:
        self.rows = pairs.num_rows
        self.image = pairs.column("image").to_numpy()
        self.caption_hash = pairs.column("caption_hash").to_numpy()
        parts = pc.split_pattern(pairs.column("pair_key"), "#", max_splits=1, reverse=True)
        self.k = pc.list_element(parts, 1).cast(pa.int64()).to_numpy()
        self.caption = pairs.column("caption")
        self._span = int(self.k.max(initial=0)) + 1
        keys = self.image * self._span + self.k
        self.order = np.argsort(keys, kind="stable")  # by image, then by k
        self._sorted = keys[self.order]

    def find(self, image: np.ndarray, k: np.ndarray) -> np.ndarray:
        """The rows of some pairs, -1 for those that are not there."""
        keys = image * self._span + k
        at = np.minimum(np.searchsorted(self._sorted, keys), max(self.rows - 1, 0))
        if not self.rows:
            return np.full(len(keys), -1, np.int64)
        there = (self._sorted[at] == keys) & (k < self._span)
        return np.where(there, self.order[at], -1)

    def of(self, images: np.ndarray) -> np.ndarray:
        """The rows of some images, by image, then by k."""
        return self.order[np.isin(self.image[self.order], images)]


def _keys(known: _Known, captions: Captions) -> np.ndarray:
    """(a,) the k of every accepted caption.

    Most captions are new with their image, or are where they were: only images of which something
    changed are matched caption by caption.
    """
    image, k = captions.image[captions.rows], captions.position[captions.rows]
    row = known.find(image, k)
    same = (row >= 0) & (np.append(known.caption_hash, np.uint64(0))[row] == captions.caption_hash)
    there = np.zeros(max(image.max(initial=-1), known.image.max(initial=-1)) + 1, bool)
    there[known.image] = True
    changed = np.unique(image[~same & there[image]])
    for start in range(0, len(changed), _IMAGES_AT_ONCE):
        part = changed[start : start + _IMAGES_AT_ONCE]
        _match(part, known, captions, k)
    return k


def _match(images: np.ndarray, known: _Known, captions: Captions, k: np.ndarray) -> None:
    """Put the keys of some images' captions into ``k``."""
    accepted = np.full(len(captions.image), -1, np.int64)
    accepted[captions.rows] = np.arange(len(captions))
    rows = np.flatnonzero(np.isin(captions.image, images))
    rows = rows[np.argsort(captions.image[rows], kind="stable")]
    old = known.of(images)
    said = _Texts(captions.caption, accepted[rows][accepted[rows] >= 0])
    texts = _Texts(known.caption, old)
    ends = np.searchsorted(captions.image[rows], images, side="right")
    ends_old = np.searchsorted(known.image[old], images, side="right")
    for all_mine, rows_known in zip(
        np.split(rows, ends[:-1]), np.split(old, ends_old[:-1]), strict=True
    ):
        at = accepted[all_mine]
        mine, refused = at[at >= 0], captions.position[all_mine[at < 0]].tolist()
        keys = assign_keys(
            dict(zip(known.k[rows_known].tolist(), texts.of(rows_known), strict=True)),
            dict(zip(captions.position[captions.rows[mine]].tolist(), said.of(mine), strict=True)),
            refused,
        )
        k[mine] = [keys[position] for position in captions.position[captions.rows[mine]].tolist()]


class _Texts:
    """Some rows of a column of texts, taken at once."""

    def __init__(self, column: pa.Array | pa.ChunkedArray, rows: np.ndarray) -> None:
        texts = column.take(pa.array(rows)).to_pylist()
        self._by_row = dict(zip(rows.tolist(), texts, strict=True))

    def of(self, rows: np.ndarray) -> list[str]:
        return [self._by_row[row] for row in rows.tolist()]


def assign_keys(
    known: Mapping[int, str], said: Mapping[int, str], refused: Iterable[int] = ()
) -> dict[int, int]:
    """Match an image's captions with its rows, so that no caption takes another one's number.

    First by text in place, then by text anywhere; what is left is an edited caption where the row
    of its position is free, else a new one.

    Args:
        known: k -> text of the rows there are. said: position -> text, no text twice.
        refused: positions of rejected captions, which no new caption is named after.

    Returns:
        position -> k.

    >>> assign_keys({0: "a", 1: "b", 2: "c"}, {0: "a", 1: "c", 2: "d"})
    {0: 0, 1: 2, 2: 3}
    """
    keys = {position: position for position, text in said.items() if known.get(position) == text}
    free = {k: text for k, text in known.items() if k not in keys}
    k_of = {text: k for k, text in free.items()}
    for position, text in said.items():
        if position not in keys and text in k_of:
            keys[position] = k_of[text]
            del free[k_of[text]]
    used = {*known, *refused}
    for position in said:
        if position in keys:
            continue
        if position in free or position not in used:
            keys[position] = position
            free.pop(position, None)
        else:
            keys[position] = next(k for k in itertools.count() if k not in used)
        used.add(keys[position])
    return keys
