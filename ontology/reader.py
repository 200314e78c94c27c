"""Ask a finished ``ontology.duckdb`` in Python.

The file is opened read-only in a database of its own, so that several may be open at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import InputError
from .connection import open_files
from .questions import run_query

__all__ = ["Ontology", "run_query"]

_SYNSET = (
    "SELECT synset FROM main.synsets WHERE synset = $name "
    "UNION ALL SELECT kept FROM main.merged WHERE synset = $name"
)
_WORD = "SELECT synset, mentions FROM main.words WHERE word = lower($word)"
_LEFT_OUT = (
    "SELECT method, sum(mentions)::BIGINT FROM main.senses "
    "WHERE synset IS NULL AND lemma = lower($word) "
    "GROUP BY method ORDER BY sum(mentions) DESC, method LIMIT 1"
)
_LEFT_OUT_AS_WRITTEN = (  # a plural, for one: it takes a scan of all mentions
    "SELECT method, count(*) FROM main.mentions WHERE synset IS NULL "
    "AND lower(surface) = lower($word) GROUP BY method ORDER BY count(*) DESC, method LIMIT 1"
)
_SENSES = (
    "SELECT lemma, head, synset, method, confidence, mentions, confidence >= "
    "(SELECT CAST(value AS FLOAT) FROM main.meta WHERE key = 'confident') AS counts "
    "FROM main.senses WHERE {} = ? ORDER BY mentions DESC, lemma, head"
)
_WHY_LEFT_OUT = {
    "frame": "a frame word, which speaks of the picture or a place in it",
    "measure": "a measure word, which speaks of how much there is of something",
    "unknown": "WordNet has no such noun",
}
_UNSURE_PAIRS = (
    "SELECT DISTINCT m.pair FROM main.mentions m JOIN main.closure c ON c.descendant = m.synset "
    "WHERE c.ancestor = ? ORDER BY m.pair"
)
_CAPTIONS = (
    "SELECT pair, image, caption FROM main.pairs WHERE pair IN (SELECT unnest(?)) ORDER BY pair"
)
_SPANS = (
    'SELECT m.pair, m.start, m."end" FROM main.mentions m '
    "JOIN main.closure c ON c.descendant = m.synset "
    "WHERE c.ancestor = ? AND m.pair IN (SELECT unnest(?)) AND (? OR m.confidence >= "
    "(SELECT CAST(value AS FLOAT) FROM main.meta WHERE key = 'confident')) "
    "ORDER BY m.pair, m.start"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedCaption:
    """A caption, and where in it (start, end) something is mentioned."""

    pair: int
    image: int
    caption: str
    spans: tuple[tuple[int, int], ...]


class Ontology:
    """A finished ontology database, read-only; a context manager, usable from several threads.

    Wherever a synset is asked for, a word does as well: ``find`` says what it stands for.

    Args:
        path: the file; its name does not matter.
        attach: further database files, by the name they get in ``query``.

    Raises:
        StaleInput: there is no such file yet.
        FormatError: it is not a database this version reads.
        InputError: another program is writing to it.
    """

    def __init__(self, path: Path | str, *, attach: Mapping[str, Path] | None = None) -> None:
        self.file = Path(path)
        self.attached = frozenset(attach or {})
        self._con, self.meta = open_files(self.file, attach or {}, memory="2GB")

    def __enter__(self) -> Ontology:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the object is of no use afterwards."""
        self._con.close()

    @property
    def content_hash(self) -> str:
        """Hash of the tables' rows: what a plan made from this ontology depends on."""
        return self.meta["content_hash"]

    def objects(self) -> pa.Table:
        """Return the tree of objects, by number: the columns of table ``objects``."""
        return self._table("SELECT * FROM main.objects ORDER BY object")

    def object_parents(self) -> np.ndarray:
        """Return (objects,) int32: the parent of every object, -1 for the root (object 0)."""
        column = self._table("SELECT parent FROM main.objects ORDER BY object")["parent"]
        return np.asarray(column.to_numpy(), dtype=np.int32)

    def deepest_objects(self) -> pa.Table:
        """Return (pair int64, object int32): the most specific objects of every pair, sorted.

        A confident mention counts for the nearest object at or above its synset; of those, one that
        lies above another of the same pair is left out.
        """
        return self._table(
            "SELECT pair, object FROM main.members WHERE deepest ORDER BY pair, object"
        )

    def subtree(self, name: str) -> pa.Table:
        """Return a synset and all below it: synset, distance, definition, object, pairs."""
        return self._table("FROM main.subtree(?)", [self.find(name)])

    def path(self, name: str) -> list[str]:
        """List the synsets from ``entity.n.01`` down to this one, along the primary parents."""
        parents = dict(self._rows("SELECT synset, parent FROM main.synsets"))
        line = [self.find(name)]
        while parent := parents[line[-1]]:
            line.append(parent)
        return line[::-1]

    def pairs(self, name: str) -> np.ndarray:
        """Return (n,) int64, ascending: the pairs that mention a synset or anything below it."""
        sql = "SELECT pair FROM main.synset_pairs WHERE synset = ? ORDER BY pair"
        return np.asarray(self._table(sql, [self.find(name)])["pair"].to_numpy(), dtype=np.int64)

    def captions(self, name: str, limit: int = 10) -> list[MarkedCaption]:
        """Choose captions that mention a synset or anything below it, the same ones every time.

        They are spread over all that do, differ in their words, and are of as many images as there
        are. Where no mention is sure enough to count, unsure ones are shown.
        """
        synset = self.find(name)
        pairs = self.pairs(synset)
        unsure = not len(pairs)
        if unsure:
            pairs = self._table(_UNSURE_PAIRS, [synset])["pair"].to_numpy()
        some = _spread(pairs, 20 * limit).tolist()
        chosen = _varied(self.query(_CAPTIONS, [some]).to_pylist(), limit)
        spans = self.spans(synset, [row["pair"] for row in chosen], unsure=unsure)
        return [MarkedCaption(**row, spans=tuple(spans[row["pair"]])) for row in chosen]

    def spans(
        self, name: str, pairs: Sequence[int], *, unsure: bool = False
    ) -> dict[int, list[tuple[int, int]]]:
        """Say where captions speak of a synset or of anything below it: (start, end) by pair.

        Args:
            unsure: mentions that are not confident enough to count are told as well.
        """
        spans: dict[int, list[tuple[int, int]]] = {pair: [] for pair in pairs}
        for row in self.query(_SPANS, [self.find(name), list(pairs), unsure]).to_pylist():
            spans[row["pair"]].append((row["start"], row["end"]))
        return spans

    def find(self, name: str) -> str:
        """Return the synset that a synset's name or a word stands for in this dataset.

        A word is what most captions that use it mean by it, else a synset that lists it.

        Raises:
            InputError: the dataset does not mention it, or leaves it out; the message says why, or
                suggests what comes near.
        """
        word = " ".join(name.split())
        if rows := self._rows(_SYNSET, name=word):
            return str(rows[0][0])
        word = word.replace("_", " ")
        stands_for = [(str(synset), n) for synset, n in self._rows(_WORD, word=word)]
        listed = [synset for synset, _ in stands_for]
        if stands_for and stands_for[0][1]:
            return listed[0]
        for sql in (_LEFT_OUT, *([] if listed else [_LEFT_OUT_AS_WRITTEN])):
            for method, count in self._rows(sql, word=word):
                raise _left_out(name, method, count, listed)
        if listed:
            return listed[0]
        raise InputError(name, "no caption of this dataset mentions it", do=self._suggest(word))

    def meanings(self, word: str) -> list[dict[str, Any]]:
        """Say what captions were taken to mean by a word, the commonest first.

        Rows are lemma, head, synset, method, confidence, mentions, and whether that counts.
        """
        return self._senses("lemma", word.lower())

    def words(self, name: str) -> list[dict[str, Any]]:
        """Say which words of captions were taken to mean just this synset; rows as ``meanings``."""
        return self._senses("synset", self.find(name))

    def _senses(self, column: str, value: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.query(_SENSES.format(column), [value]).to_pylist()
        return rows

    def query(self, sql: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> pa.Table:
        """Answer a SELECT of our own, with ``?`` or ``$name`` for parameters.

        Those of users go to ``run_query``, which limits them.
        """
        return self._table(sql, params if isinstance(params, Mapping) else list(params))

    def _suggest(self, word: str) -> str:
        """Name nouns that are spelled nearly so, if any are."""
        given = word.split(".")[0].replace("_", " ").lower()
        near = self._rows(
            "SELECT lemma FROM main.senses WHERE synset IS NOT NULL GROUP BY lemma "
            "HAVING damerau_levenshtein(lemma, $given) <= greatest(1, len($given) // 3) "
            "ORDER BY damerau_levenshtein(lemma, $given), sum(mentions) DESC, lemma LIMIT 3",
            given=given,
        )
        return f"did you mean {', '.join(row[0] for row in near)}?" if near else ""

    def _table(self, sql: str, values: Any = None) -> pa.Table:
        with self._con.cursor() as cursor:
            cursor.execute("USE ontology")
            return pa.RecordBatchReader.from_stream(cursor.sql(sql, params=values)).read_all()

    def _rows(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        with self._con.cursor() as cursor:
            cursor.execute("USE ontology")
            return cursor.execute(sql, values).fetchall()


def _left_out(name: str, method: str, count: int, listed: list[str]) -> InputError:
    why = _WHY_LEFT_OUT.get(method, method)
    do = f"WordNet lists it under {listed[0]}, which you can ask for" if listed else ""
    found = f"named {count:,} time{'s' * (count > 1)}, but left out: {why}"
    return InputError(name, found, do=do)


def _spread(values: np.ndarray, count: int) -> np.ndarray:
    """At most so many of the values, at equal distances."""
    if len(values) <= count:
        return values
    return values[np.arange(count) * len(values) // count]


def _varied(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Choose rows with captions of their own: one an image, and more where images are few."""
    first: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    images, texts = set(), set()
    for row in rows:
        text = row["caption"].casefold().strip(" .")
        if text not in texts:
            (others if row["image"] in images else first).append(row)
        images.add(row["image"])
        texts.add(text)
    chosen = [first[i] for i in _spread(np.arange(len(first)), count)]
    chosen += [others[i] for i in _spread(np.arange(len(others)), count - len(chosen))]
    return sorted(chosen, key=lambda row: row["pair"])
