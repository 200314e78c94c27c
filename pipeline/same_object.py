"""Which held-out images show a caption's main object: the candidates of a hard choice.

The main object of a caption is found among its nouns, in the order of the text: the first whose
object at least ``candidates`` held-out images show. Where no noun's own object is shown so often,
the next object above each is tried, and so on. An object counts only if as many images of the whole
dataset have it called by its own name: nobody writes "artifact" under a photo, and its images have
nothing in common. So the choice is of the most specific object that is frequent enough, and among
those of the one the sentence begins with. A caption without such an object has no set. Images of
the same bytes are one picture here: they count once, and never stand beside each other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from ..train.evaluation.retrieval import slices
from ..train.evaluation.same_object import SAME_OBJECT_SCHEMA

_MENTIONS = (  # of confident nouns, in the order of the text
    "SELECT m.pair, s.object FROM main.mentions m JOIN main.synsets s USING (synset) "
    "WHERE m.pair IN (SELECT unnest(?)) AND m.confidence >= "
    "(SELECT CAST(value AS FLOAT) FROM main.meta WHERE key = 'confident') "
    "AND s.object IS NOT NULL ORDER BY m.pair, m.start, s.object"
)
_OBJECTS = (
    "SELECT o.synset, o.parent, s.self_images FROM main.objects o "
    "JOIN main.synsets s USING (synset) ORDER BY o.object"
)
_MEMBERS = (
    "SELECT object, pair FROM main.members WHERE pair IN (SELECT unnest(?)) ORDER BY object, pair"
)
_STEP = np.uint64(0x9E3779B97F4A7C15)  # of splitmix64: 2**64 over the golden ratio
_RANDOM = int(_STEP)  # tells the draws of the twin from those of the set
_DRAWS = 4096  # made at once


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """The captions of a query set, row by row, and what they speak of.

    Attributes:
        pairs: (M,) pair numbers. pair_hash: (M,) uint64, of their names. picture: (M,) uint64, hash
            of what each caption's image shows. Draws depend on these two, and on no number.
        main: (M,) main object of each caption, -1: none. names: synset of each object.
        members: of each object, the rows that name it or something below it.
    """

    pairs: np.ndarray
    pair_hash: np.ndarray
    picture: np.ndarray
    main: np.ndarray
    names: list[str]
    members: Callable[[int], np.ndarray]


def same_object_sets(queries: pa.Table, images: pa.Table, ontology: Path, size: int) -> pa.Table:
    """Draw the candidates of every caption that has a main object.

    Args:
        queries: columns ``QUERIES_SCHEMA``. images: the image table of the dataset.
        size: candidates, the true one included.

    Returns:
        Columns ``SAME_OBJECT_SCHEMA``, in the order of the queries. The same captions and images
        get the same candidates, whatever their numbers and the order of rows.
    """
    return draw_sets(_read(queries, images, ontology, size), size)


def draw_sets(held_out: HeldOut, size: int) -> pa.Table:
    """Draw the candidates of every caption that has a main object; as ``same_object_sets``."""
    asked = np.flatnonzero(held_out.main >= 0)
    others = np.empty((len(asked), size - 1), np.int64)
    for k in np.unique(held_out.main[asked]).tolist():
        mine = held_out.main[asked] == k
        others[mine] = _Pool(held_out, held_out.members(k)).draw(asked[mine], size - 1)
    everything = _Pool(held_out, np.arange(len(held_out.pairs)))
    columns = {
        "pair": held_out.pairs[asked],
        "object": [held_out.names[k] for k in held_out.main[asked].tolist()],
        "pairs": _lists(held_out.pairs[others]),
        "random_pairs": _lists(held_out.pairs[everything.draw(asked, size - 1, _RANDOM)]),
    }
    return pa.table(columns, SAME_OBJECT_SCHEMA)


def _lists(rows: np.ndarray) -> pa.Array:
    """A list a row."""
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(rows.ravel(), pa.int64()))


class _Pool:
    """Captions that speak of one thing, by the picture they belong to, in the order of its hash."""

    def __init__(self, held_out: HeldOut, rows: np.ndarray) -> None:
        self.held_out = held_out
        self.rows = rows[np.lexsort((held_out.pair_hash[rows], held_out.picture[rows]))]
        self.pictures, self.starts, self.counts = np.unique(
            held_out.picture[self.rows], return_index=True, return_counts=True
        )

    def draw(self, asking: np.ndarray, count: int, salt: int = 0) -> np.ndarray:
        """Draw captions of other pictures than those of captions in the pool: (n, count) rows."""
        seeds = mix(self.held_out.pair_hash[asking] ^ np.uint64(salt))
        own = np.searchsorted(self.pictures, self.held_out.picture[asking])
        found = np.empty((len(asking), count), np.int64)
        for part in slices(len(asking), _DRAWS):
            places = draw_places(seeds[part], own[part], len(self.pictures), count)
            which = mix(self.pictures[places] ^ seeds[part, None])
            which %= self.counts[places].astype(np.uint64)
            found[part] = self.rows[self.starts[places] + which.astype(np.int64)]
        return found


def draw_places(seeds: np.ndarray, own: np.ndarray, size: int, count: int) -> np.ndarray:
    """Draw different places below ``size``, none a row's own: (n, count), in the order drawn.

    Every place is as likely as every other, and a draw costs as much as its ``count`` asks for,
    whatever the size. Fewer of the same seeds are the first of more.

    Args:
        seeds: (n,) uint64, of each row. own: (n,) places. count: less than ``size``.
    """
    assert count < size, "there are as many other places as are wanted"
    found = [{place: None} for place in own.tolist()]  # in the order drawn, each once
    short, step = np.arange(len(seeds)), np.arange(2 * count, dtype=np.uint64)
    while len(short):
        drawn = mix(seeds[short, None] + step * _STEP) >> np.uint64(32)
        drawn = (drawn * np.uint64(size)) >> np.uint64(32)
        for row, places in zip(short.tolist(), drawn.tolist(), strict=True):
            found[row].update(dict.fromkeys(places))
        short = short[[len(found[row]) <= count for row in short.tolist()]]
        step += np.uint64(2 * count)
    places = [list(drawn)[1 : count + 1] for drawn in found]
    return np.array(places, np.int64).reshape(len(seeds), count)


def mix(numbers: np.ndarray) -> np.ndarray:
    """Scatter uint64 numbers (the finaliser of splitmix64).

    >>> mix(np.array([1, 2], np.uint64)).tolist()
    [10451216379200822465, 10905525725756348110]
    """
    x = numbers + _STEP
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def main_objects(
    row: np.ndarray, named: np.ndarray, parent: np.ndarray, usable: np.ndarray, rows: int
) -> np.ndarray:
    """Find the main object of every caption: (rows,), -1 for none.

    Args:
        row, named: (mentions,) which caption, and the nearest object of what it names; in the
            order of captions and their text.
        parent: (objects,) the object above, -1 for the root. usable: (objects,) bool.

    >>> parent, usable = np.array([-1, 0, 1, 0]), np.array([False, True, False, True])
    >>> main_objects(np.array([0, 0, 1, 2]), np.array([2, 3, 2, 0]), parent, usable, 4).tolist()
    [3, 1, -1, -1]
    """
    main = np.full(rows, -1)
    while len(row):
        fits = usable[named]
        first, at = np.unique(row[fits], return_index=True)
        main[first] = named[fits][at]
        named = parent[named]
        on = (main[row] < 0) & (named >= 0)
        row, named = row[on], named[on]
    return main


def _read(queries: pa.Table, images: pa.Table, ontology: Path, least: int) -> HeldOut:
    from ..ontology import Ontology

    pairs = queries.column("pair").to_numpy()
    with Ontology(ontology) as opened:
        objects = opened.query(_OBJECTS)
        mentions, members = (opened.query(sql, [pairs]) for sql in (_MENTIONS, _MEMBERS))
    picture = _pictures(queries, images)
    row, named = _rows(pairs, mentions.column("pair")), mentions.column("object").to_numpy()
    member, of = _rows(pairs, members.column("pair")), members.column("object").to_numpy()
    bounds = np.searchsorted(of, np.arange(objects.num_rows + 1))
    shown = [len(np.unique(picture[member[a:b]])) for a, b in itertools.pairwise(bounds)]
    usable = np.array(shown) >= least
    usable &= objects.column("self_images").to_numpy() >= least
    ordered = np.argsort(row, kind="stable")
    parent = objects.column("parent").to_numpy()
    return HeldOut(
        pairs=pairs,
        pair_hash=_hashes(queries.column("pair_key").to_pylist()),
        picture=picture,
        main=main_objects(row[ordered], named[ordered], parent, usable, len(pairs)),
        names=objects.column("synset").to_pylist(),
        members=lambda k: member[bounds[k] : bounds[k + 1]],
    )


def _rows(pairs: np.ndarray, asked: pa.ChunkedArray) -> np.ndarray:
    """Rows of pairs that are all in the query set."""
    order = np.argsort(pairs, kind="stable")
    return order[np.searchsorted(pairs, asked.to_numpy(), sorter=order)]


def _pictures(queries: pa.Table, images: pa.Table) -> np.ndarray:
    """Hash what each caption's image shows: its bytes, or its name where there is no file."""
    number, owner = np.unique(queries.column("image").to_numpy(), return_inverse=True)
    names = images.select(["content_hash", "image_id"]).take(pa.array(number)).to_pydict()
    shown = [h or f"id {i}" for h, i in zip(*names.values(), strict=True)]
    return _hashes(shown)[owner]


def _hashes(names: Sequence[str]) -> np.ndarray:
    hashed = (xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass")) for name in names)
    return np.fromiter(hashed, np.uint64, len(names))
