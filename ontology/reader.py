"""Ask a finished ``ontology.duckdb`` in Python.

The file is opened read-only in a database of its own, so that several may be open at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import InputError
from .connection import open_files
from .questions import run_query

__all__ = ["Ontology", "run_query"]


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

    def find(self, name: str) -> str:
        """Return the synset that a synset's name or a word stands for in this dataset.

        A word is what most captions that use it mean by it, else a synset that lists it.

        Raises:
            InputError: the dataset does not mention it; the message suggests what comes near.
        """
        word = " ".join(name.split())
        for sql in (
            "SELECT synset FROM main.synsets WHERE synset = $word",
            "SELECT synset FROM main.mentions WHERE lemma = lower($word) AND synset IS NOT NULL "
            "GROUP BY synset ORDER BY count(*) DESC, synset LIMIT 1",
            "SELECT synset FROM main.synsets WHERE list_contains(lemmas, $word) "
            "ORDER BY depth, synset LIMIT 1",
        ):
            if rows := self._rows(sql, word=word):
                return str(rows[0][0])
        raise InputError(name, "no caption of this dataset mentions it", do=self._suggest(word))

    def query(self, sql: str, params: Sequence[Any] = ()) -> pa.Table:
        """Answer a SELECT of our own (``?`` for parameters); those of users go to ``run_query``."""
        return self._table(sql, list(params))

    def _suggest(self, word: str) -> str:
        near = self._rows(
            "SELECT lemma FROM main.mentions WHERE synset IS NOT NULL GROUP BY lemma "
            "ORDER BY damerau_levenshtein(lemma, lower($word)), count(*) DESC, lemma LIMIT 3",
            word=word.split(".")[0].replace("_", " "),
        )
        listed = ", ".join(row[0] for row in near)
        return f"did you mean {listed}?" if near else "the dataset has no nouns yet"

    def _table(self, sql: str, values: Any = None) -> pa.Table:
        with self._con.cursor() as cursor:
            cursor.execute("USE ontology")
            return pa.RecordBatchReader.from_stream(cursor.sql(sql, params=values)).read_all()

    def _rows(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        with self._con.cursor() as cursor:
            cursor.execute("USE ontology")
            return cursor.execute(sql, values).fetchall()
