"""Build ``ontology.duckdb``: mentions with synsets, the graph above them, the tree of objects.

Set-based: Python decides senses once per distinct noun and walks synsets; everything per caption
is SQL. The content hash is of the tables' rows: neither the thread count nor DuckDB's file matters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ..errors import writing_to
from .connection import CATALOG, FORMAT
from .questions import run_query
from .reader import Ontology
from .senses import CONFIDENT, unresolved
from .tables import merged_synsets
from .tree import build_graph, table_merges
from .wordnet import WordNet
from .writing.duckfile import (
    column,
    content_hash,
    count,
    create_macros,
    create_tables,
    insert_parquet,
    insert_rows,
    load_meta,
    writing_database,
)
from .writing.memberships import load_classes, load_memberships, load_synsets
from .writing.mentions import load_mentions, load_senses, load_words
from .writing.objects import choose_objects, load_cooccurrences, load_graph, load_objects

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["FORMAT", "Ontology", "build_database", "run_query"]

IMAGE_COLUMNS = ("image", "image_id", "path", "width", "height")  # taken from images.parquet
PAIR_COLUMNS = ("pair", "pair_key", "image", "caption", "split")  # and from pairs.parquet
_SAID = (
    "images",
    "pairs",
    "mentions",
    "merged",
    "synsets",
    "hypernyms",
    "closure",
    "objects",
    "senses",
)
_DERIVED = (  # by SQL alone from those
    "words", "classes", "members", "cooccurrences", "synset_pairs", "synset_images",
)  # fmt: skip
_SQL = Path(__file__).parent


def build_database(
    path: Path,
    *,
    nouns: Sequence[Path],
    pairs: Path,
    images: Path,
    wordnet: WordNet,
    min_images: int,
    versions: Mapping[str, str],
    threads: int | None = None,
    memory: str = "3GB",
) -> dict[str, Any]:
    """Write the complete database at ``path`` (a temporary path; whatever is there is replaced).

    Args:
        nouns: parquet files in ``NOUNS_SCHEMA``; rows of pairs that no longer exist are left out.
        pairs, images: the dataset's ``pairs.parquet`` and ``images.parquet``.
        min_images: the least number of distinct images in the subtree of an object.
        versions: what decided the content, kept in ``meta``.
        threads, memory: limits for DuckDB; they do not change the content.

    Returns:
        Counts by name and ``content_hash``.

    Raises:
        FormatError: an input file is not what its schema promises.
        NotWritable, DiskFull: the folder of ``path``.
    """
    path.unlink(missing_ok=True)
    with writing_to(path), writing_database(path, CATALOG, threads, memory) as con:
        create_tables(con, _text("schema.sql"))
        _load_inputs(con, pairs, images)
        merges = _load_merges(con, wordnet)
        counts = load_mentions(con, nouns, wordnet, merges)
        mentioned = column(con, "SELECT DISTINCT synset FROM mentions WHERE synset IS NOT NULL")
        graph = build_graph(wordnet, mentioned, merges)
        load_graph(con, graph)
        tree = choose_objects(con, graph, min_images)
        load_memberships(con)
        load_synsets(con, graph, tree)
        load_objects(con, tree)
        load_cooccurrences(con)
        load_senses(con)
        load_words(con)
        load_classes(con)
        counts.update({name: count(con, name) for name in (*_SAID, *_DERIVED)})
        counts["senses_unresolved"] = len(unresolved(wordnet))
        content = content_hash(con, CATALOG, _SAID, FORMAT)
        own = {
            "format": FORMAT,
            "min_images": str(min_images),
            "confident": str(CONFIDENT),
            "content_hash": content,
        }
        load_meta(con, own, {**versions, "wordnet": wordnet.version})
        create_macros(con, CATALOG, _text("macros.sql"))
    return {**counts, "wordnet": wordnet.version, "content_hash": content}


def _text(name: str) -> str:
    return (_SQL / name).read_text(encoding="utf-8")


def _load_inputs(con: DuckDBPyConnection, pairs: Path, images: Path) -> None:
    insert_parquet(
        con,
        [images],
        f"INSERT INTO images SELECT {', '.join(IMAGE_COLUMNS)} FROM {{}} "
        "WHERE content_hash <> '' ORDER BY image",
    )
    insert_parquet(
        con,
        [pairs],
        f"INSERT INTO pairs SELECT {', '.join(PAIR_COLUMNS)} FROM {{}} "
        "WHERE split <> '' ORDER BY pair",  # without a split: withdrawn from the sources
    )


def _load_merges(con: DuckDBPyConnection, wordnet: WordNet) -> dict[str, str]:
    """Fill ``merged`` with what this WordNet can merge; return it."""
    merges, table = table_merges(wordnet), merged_synsets()
    rows = [(synset, kept, table[synset][1]) for synset, kept in sorted(merges.items())]
    types = {"synset": pa.string(), "kept": pa.string(), "why": pa.string()}
    insert_rows(con, "INSERT INTO merged SELECT * FROM {}", rows, types)
    return merges
