"""The tables of what is said: mentions, the senses decided for their nouns, words to ask by.

Senses are decided in Python once per distinct noun; everything per caption is SQL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ..senses import CONFIDENT, decide
from ..wordnet import WordNet
from .duckfile import insert, insert_parquet

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def load_mentions(
    con: DuckDBPyConnection, nouns: Sequence[Path], wordnet: WordNet, merges: Mapping[str, str]
) -> dict[str, Any]:
    """Decide the sense of every distinct noun and join it to the mentions; return counts.

    Args:
        nouns: parquet files in ``NOUNS_SCHEMA``.
        merges: synsets that another stands for.
    """
    con.execute(
        'CREATE TEMP TABLE nouns (pair BIGINT, start INTEGER, "end" INTEGER, surface VARCHAR, '
        "lemma VARCHAR, head VARCHAR, role VARCHAR)"
    )
    if nouns:
        columns = 'pair, start, "end", surface, lemma, head, role'
        insert_parquet(con, nouns, f"INSERT INTO temp.nouns SELECT {columns} FROM {{}}")
    distinct = con.execute(
        "SELECT DISTINCT lemma, head FROM temp.nouns SEMI JOIN pairs USING (pair) ORDER BY ALL"
    ).fetchall()
    _load_decisions(con, distinct, wordnet, merges)
    con.execute(
        """
        INSERT INTO mentions
        SELECT n.pair, n.start, n."end", n.surface, n.lemma, n.head,
               if(n.role = 'noun', d.synset, NULL),
               if(n.role = 'noun', d.method, n.role),
               if(n.role = 'noun', d.confidence, 0)
        FROM temp.nouns n JOIN temp.decided d USING (lemma, head) SEMI JOIN pairs p USING (pair)
        ORDER BY n.pair, n.start, n."end"
        """
    )
    con.execute("DROP TABLE temp.nouns")
    known, sure = con.execute(
        "SELECT count(synset), count(synset) FILTER (confidence >= ?) FROM mentions", [CONFIDENT]
    ).fetchall()[0]
    return {
        "distinct_nouns": len(distinct),
        "mentions_with_synset": known,
        "confident_mentions": sure,
    }


def _load_decisions(
    con: DuckDBPyConnection,
    distinct: Sequence[tuple[str, str]],
    wordnet: WordNet,
    merges: Mapping[str, str],
) -> None:
    """Fill the temporary table ``decided``: a row for every distinct noun."""
    senses = [decide(wordnet, lemma, head) for lemma, head in distinct]
    synsets = [merges.get(s.synset, s.synset) if s.synset else None for s in senses]
    alternatives = [
        _others(wordnet.noun_synsets(lemma), synset, merges)
        for (lemma, _), synset in zip(distinct, synsets, strict=True)
    ]
    insert(
        con,
        "CREATE TEMP TABLE decided AS SELECT * FROM {}",
        lemma=pa.array([lemma for lemma, _ in distinct], pa.string()),
        head=pa.array([head for _, head in distinct], pa.string()),
        synset=pa.array(synsets, pa.string()),
        method=pa.array([s.method for s in senses], pa.string()),
        confidence=pa.array([s.confidence for s in senses], pa.float32()),
        alternatives=pa.array(alternatives, pa.list_(pa.string())),
    )


def _others(senses: Sequence[str], taken: str | None, merges: Mapping[str, str]) -> list[str]:
    """List the senses that were not taken, each by the name it has here."""
    named = dict.fromkeys(merges.get(name, name) for name in senses)
    return [name for name in named if name != taken]


def load_senses(con: DuckDBPyConnection) -> None:
    """Count how often every decision was taken."""
    con.execute(
        """
        INSERT INTO senses
        SELECT m.lemma, m.head, m.synset, m.method, m.confidence, any_value(d.alternatives),
               count(*), count(DISTINCT m.pair), count(DISTINCT p.image)
        FROM mentions m JOIN pairs p USING (pair) JOIN temp.decided d USING (lemma, head)
        GROUP BY m.lemma, m.head, m.synset, m.method, m.confidence
        ORDER BY ALL
        """
    )


def load_words(con: DuckDBPyConnection) -> None:
    """Choose what each word stands for; needs ``synsets``."""
    con.execute(
        """
        WITH meant AS (
            SELECT lemma AS word, synset, confidence >= $least AS sure, count(*) AS n
            FROM mentions WHERE synset IS NOT NULL GROUP BY ALL
            UNION ALL
            SELECT lower(surface), synset, confidence >= $least, count(*)
            FROM mentions WHERE synset IS NOT NULL AND lower(surface) <> lemma GROUP BY ALL
            UNION ALL
            SELECT lower(unnest(lemmas)), synset, false, 0 FROM synsets
        )
        INSERT INTO words
        SELECT w.word, w.synset, sum(w.n)::BIGINT AS mentions
        FROM meant w JOIN synsets s USING (synset)
        GROUP BY w.word, w.synset
        QUALIFY row_number() OVER (
            PARTITION BY w.word
            ORDER BY bool_or(w.sure) DESC, sum(w.n) DESC, any_value(s.subtree_pairs) DESC, w.synset
        ) = 1
        ORDER BY w.word
        """,
        {"least": CONFIDENT},
    )
