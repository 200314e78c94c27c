"""Which held-out images show a caption's main object: the candidates of a hard choice.

The main object of a caption is found among its nouns, in the order of the text: the first whose
object at least ``candidates`` held-out images show. Where no noun's own object is shown so often,
the next object above each is tried, and so on. An object counts only if as many images of the whole
dataset have it called by its own name: nobody writes "artifact" under a photo, and its images have
nothing in common. So the choice is of the most specific object that is frequent enough, and among
those of the one the sentence begins with. A caption without such an object has no set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from ..train.evaluation.same_object import SAME_OBJECT_SCHEMA

_MENTIONS = (  # of confident nouns, in the order of the text
    "SELECT m.pair, s.object FROM main.mentions m JOIN main.synsets s USING (synset) "
    "WHERE m.confidence >= (SELECT CAST(value AS FLOAT) FROM main.meta WHERE key = 'confident') "
    "AND s.object IS NOT NULL ORDER BY m.pair, m.start, s.object"
)
_OBJECTS = (
    "SELECT o.synset, o.parent, s.self_images FROM main.objects o "
    "JOIN main.synsets s USING (synset) ORDER BY o.object"
)
_MEMBERS = "SELECT object, pair FROM main.members ORDER BY object, pair"
_RANDOM = 0x9E3779B97F4A7C15  # tells the draws of the twin from those of the set


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """The captions of a query set, row by row, and what they speak of.

    Attributes:
        pairs: (M,) pair numbers. image: (M,) which image, numbered 0 to N - 1.
        content: (N,) images of one number have the same bytes. pair_hash: (M,) and image_hash:
            (N,) uint64, of names, so that draws do not depend on numbers.
        main: (M,) main object of each caption, -1: none. names: synset of each object.
        members: of each object, the rows that name it or something below it, ascending.
    """

    pairs: np.ndarray
    image: np.ndarray
    content: np.ndarray
    pair_hash: np.ndarray
    image_hash: np.ndarray
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
        get the same candidates, whatever their numbers and whatever else is in the dataset.
    """
    held_out = _read(queries, images, ontology, size)
    asked = np.flatnonzero(held_out.main >= 0)
    everything = _Pool(held_out, np.arange(len(held_out.pairs)))
    pools = {int(k): _Pool(held_out, held_out.members(k)) for k in np.unique(held_out.main[asked])}
    rows = []
    for row in asked.tolist():
        pool = pools[int(held_out.main[row])]
        rows.append(
            {
                "pair": held_out.pairs[row],
                "object": held_out.names[held_out.main[row]],
                "pairs": held_out.pairs[pool.draw(row, size - 1)],
                "random_pairs": held_out.pairs[everything.draw(row, size - 1, _RANDOM)],
            }
        )
    return pa.Table.from_pylist(rows, SAME_OBJECT_SCHEMA)


class _Pool:
    """Images, each with the captions that speak of what the pool is about.

    An image's place in a draw is decided by a hash of its name and the caption's, so an image more
    or less in the pool changes no other image's place.
    """

    def __init__(self, held_out: HeldOut, rows: np.ndarray) -> None:
        self.held_out = held_out
        self.rows = rows[np.lexsort((held_out.pair_hash[rows], held_out.image[rows]))]
        self.images, self.starts, self.counts = np.unique(
            held_out.image[self.rows], return_index=True, return_counts=True
        )

    def draw(self, row: int, count: int, salt: int = 0) -> np.ndarray:
        """Draw captions of other images than a caption's: (count or fewer,) rows."""
        held_out = self.held_out
        asks = held_out.pair_hash[row] ^ np.uint64(salt)
        places = mix(held_out.image_hash[self.images] ^ asks)
        own = held_out.content[self.images] == held_out.content[held_out.image[row]]
        places[own] = np.iinfo(np.uint64).max
        first = np.argsort(places, kind="stable")[: min(count, len(places) - int(own.sum()))]
        which = mix(places[first]) % self.counts[first].astype(np.uint64)
        return self.rows[self.starts[first] + which.astype(np.int64)]


def mix(numbers: np.ndarray) -> np.ndarray:
    """Scatter uint64 numbers (the finaliser of splitmix64).

    >>> mix(np.array([1, 2], np.uint64)).tolist()
    [10451216379200822465, 10905525725756348110]
    """
    x = numbers + np.uint64(0x9E3779B97F4A7C15)
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

    with Ontology(ontology) as opened:
        objects, mentions = opened.query(_OBJECTS), opened.query(_MENTIONS)
        members = opened.query(_MEMBERS)
    pairs = queries.column("pair").to_numpy()
    number, image = np.unique(queries.column("image").to_numpy(), return_inverse=True)
    row, named = _rows(pairs, mentions.column("pair")), mentions.column("object").to_numpy()
    member, of = _rows(pairs, members.column("pair")), members.column("object").to_numpy()
    member, of = member[member >= 0], of[member >= 0]
    shown = np.unique(of * len(number) + image[member]) // max(len(number), 1)
    usable = np.bincount(shown, minlength=objects.num_rows) >= least
    usable &= objects.column("self_images").to_numpy() >= least
    known = row >= 0
    ordered = np.argsort(row[known], kind="stable")
    parent = objects.column("parent").to_numpy()
    bounds = np.searchsorted(of, np.arange(objects.num_rows + 1))
    names = images.take(pa.array(number))
    return HeldOut(
        pairs=pairs,
        image=image,
        content=_contents(names),
        pair_hash=_hashes(queries.column("pair_key").to_pylist()),
        image_hash=_hashes(names.column("image_id").to_pylist()),
        main=main_objects(row[known][ordered], named[known][ordered], parent, usable, len(pairs)),
        names=objects.column("synset").to_pylist(),
        members=lambda k: np.sort(member[bounds[k] : bounds[k + 1]]),
    )


def _rows(pairs: np.ndarray, asked: pa.ChunkedArray) -> np.ndarray:
    """Rows of pairs in the query set, -1 for others."""
    order, numbers = np.argsort(pairs, kind="stable"), asked.to_numpy()
    at = np.minimum(np.searchsorted(pairs, numbers, sorter=order), len(pairs) - 1)
    return np.where(pairs[order[at]] == numbers, order[at], -1)


def _contents(images: pa.Table) -> np.ndarray:
    """Number images by their bytes; one without a file is like no other."""
    hashes, ids = images.column("content_hash").to_pylist(), images.column("image_id").to_pylist()
    names = pa.array([h or f"id {i}" for h, i in zip(hashes, ids, strict=True)], pa.string())
    return np.asarray(names.dictionary_encode().indices)


def _hashes(names: Sequence[str]) -> np.ndarray:
    hashed = (xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass")) for name in names)
    return np.fromiter(hashed, np.uint64, len(names))
