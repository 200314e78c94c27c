"""Build ``ontology.duckdb``: mentions with synsets, the graph above them, the tree of objects.

Set-based: Python decides senses once per distinct noun and walks synsets; everything per caption
is SQL. The content hash is of the tables' rows: neither the thread count nor DuckDB's file matters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ..errors import FormatError, writing_to
from .duckfile import (
    column,
    content_hash,
    count,
    create_tables,
    insert,
    insert_rows,
    writing_database,
)
from .reader import Ontology, run_query
from .senses import CONFIDENT, decide
from .tree import Graph, ObjectTree, build_graph, cut_tree, only_children
from .wordnet import WordNet

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["Ontology", "build_database", "run_query"]

FORMAT = "1"
_COOCCURRENCES = 200  # kept for each object
_TABLES = (
    "synsets", "hypernyms", "closure", "images", "pairs", "mentions", "objects", "members",
    "cooccurrences",
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
    with writing_to(path), writing_database(path, "ontology", threads, memory) as con:
        create_tables(con, (_SQL / "schema.sql").read_text(encoding="utf-8"))
        _load_inputs(con, pairs, images)
        counts = _load_mentions(con, nouns, wordnet)
        graph = build_graph(
            wordnet, column(con, "SELECT DISTINCT synset FROM mentions WHERE synset IS NOT NULL")
        )
        _load_graph(con, graph)
        tree = _load_objects(con, graph, min_images)
        _load_members(con, tree)
        counts.update({name: count(con, name) for name in _TABLES})
        content = content_hash(con, "ontology", _TABLES, FORMAT)
        _load_meta(con, content, min_images, {**versions, "wordnet": wordnet.version})
        con.execute((_SQL / "macros.sql").read_text(encoding="utf-8"))
    return {**counts, "content_hash": content}


def _load_inputs(con: DuckDBPyConnection, pairs: Path, images: Path) -> None:
    _from_parquet(
        con,
        [images],
        "INSERT INTO images SELECT image, image_id, path, width, height FROM {} "
        "WHERE content_hash <> '' ORDER BY image",
    )
    _from_parquet(
        con,
        [pairs],
        "INSERT INTO pairs SELECT pair, pair_key, image, caption, split FROM {} "
        "WHERE split <> '' ORDER BY pair",  # without a split: withdrawn from the sources
    )


def _from_parquet(con: DuckDBPyConnection, files: Sequence[Path], sql: str) -> None:
    """Run a statement over parquet files, which take the place of ``{}``."""
    import duckdb

    try:
        con.execute(sql.format("read_parquet($files)"), {"files": [str(f) for f in files]})
    except (duckdb.IOException, duckdb.InvalidInputException, duckdb.BinderException) as error:
        message = str(error).split("\n")[0]
        raise FormatError(files[0], message, do="delete it and run 'tonics run' again") from error


def _load_mentions(
    con: DuckDBPyConnection, nouns: Sequence[Path], wordnet: WordNet
) -> dict[str, Any]:
    """Decide the sense of every distinct noun and join it to the mentions."""
    con.execute(
        'CREATE TEMP TABLE nouns (pair BIGINT, start INTEGER, "end" INTEGER, surface VARCHAR, '
        "lemma VARCHAR, head VARCHAR)"
    )
    if nouns:
        columns = 'pair, start, "end", surface, lemma, head'
        _from_parquet(con, nouns, f"INSERT INTO temp.nouns SELECT {columns} FROM {{}}")
    distinct = con.execute("SELECT DISTINCT lemma, head FROM temp.nouns ORDER BY ALL").fetchall()
    senses = [decide(wordnet, lemma, head) for lemma, head in distinct]
    insert(
        con,
        "CREATE TEMP TABLE decided AS SELECT * FROM {}",
        lemma=pa.array([lemma for lemma, _ in distinct], pa.string()),
        head=pa.array([head for _, head in distinct], pa.string()),
        synset=pa.array([s.synset for s in senses], pa.string()),
        method=pa.array([s.method for s in senses], pa.string()),
        confidence=pa.array([s.confidence for s in senses], pa.float32()),
    )
    con.execute(
        "INSERT INTO mentions SELECT n.pair, n.start, n.end, n.surface, n.lemma, n.head, "
        "d.synset, d.method, d.confidence "
        "FROM temp.nouns n JOIN temp.decided d USING (lemma, head) "
        "SEMI JOIN pairs p USING (pair) ORDER BY n.pair, n.start, n.end"
    )
    con.execute("DROP TABLE temp.nouns")
    con.execute(  # which images speak of which synset, surely enough to count
        "CREATE TEMP TABLE image_synsets AS SELECT DISTINCT p.image, m.synset "
        "FROM mentions m JOIN pairs p USING (pair) "
        "WHERE m.synset IS NOT NULL AND m.confidence >= ?",
        [CONFIDENT],
    )
    known, sure = con.execute(
        "SELECT count(synset), count(synset) FILTER (confidence >= ?) FROM mentions", [CONFIDENT]
    ).fetchall()[0]
    return {
        "distinct_nouns": len(distinct),
        "mentions_with_synset": known,
        "confident_mentions": sure,
    }


def _load_graph(con: DuckDBPyConnection, graph: Graph) -> None:
    edges = [
        (s.name, h, h in s.instance_hypernyms, graph.parent[s.name] == h)
        for s in graph.synsets.values()
        for h in graph.hypernyms(s.name)
    ]
    insert_rows(
        con, "INSERT INTO hypernyms SELECT * FROM {} ORDER BY ALL", edges,
        {"synset": pa.string(), "hypernym": pa.string(),
         "instance": pa.bool_(), "is_parent": pa.bool_()},
    )  # fmt: skip
    closure = [(a, s, d) for s in graph.synsets for a, d in graph.distances(s).items()]
    insert_rows(
        con, "INSERT INTO closure SELECT * FROM {} ORDER BY ALL", closure,
        {"ancestor": pa.string(), "descendant": pa.string(), "distance": pa.int32()},
    )  # fmt: skip
    lineage = [(s, a) for s in graph.synsets for a in graph.lineage(s)]
    insert_rows(
        con, "CREATE TEMP TABLE lineage AS SELECT * FROM {}", lineage,
        {"synset": pa.string(), "ancestor": pa.string()},
    )  # fmt: skip


def _load_objects(con: DuckDBPyConnection, graph: Graph, min_images: int) -> ObjectTree:
    """Choose the objects (the rule stands above the table in schema.sql) and number them."""
    kept = _choose(con, graph, min_images)
    tree = cut_tree(graph, kept)
    insert(
        con,
        "INSERT INTO synsets SELECT * FROM {} ORDER BY synset",
        synset=pa.array(list(graph.synsets), pa.string()),
        lemmas=pa.array([list(s.lemmas) for s in graph.synsets.values()], pa.list_(pa.string())),
        definition=pa.array([s.definition for s in graph.synsets.values()], pa.string()),
        lexname=pa.array([s.lexname for s in graph.synsets.values()], pa.string()),
        depth=pa.array([graph.depth[s] for s in graph.synsets], pa.int32()),
        parent=pa.array([graph.parent[s] for s in graph.synsets], pa.string()),
        object=pa.array([tree.nearest[s] for s in graph.synsets], pa.int32()),
    )
    return tree


def _choose(con: DuckDBPyConnection, graph: Graph, min_images: int) -> set[str]:
    candidates = set(
        column(
            con,
            "SELECT l.ancestor FROM temp.image_synsets m JOIN temp.lineage l USING (synset) "
            f"GROUP BY l.ancestor HAVING count(DISTINCT m.image) >= {int(min_images)}",
        )
    )
    single = only_children(graph, candidates)
    insert_rows(
        con, "CREATE TEMP TABLE single AS SELECT * FROM {}", sorted(single.items()),
        {"node": pa.string(), "child": pa.string()},
    )  # fmt: skip
    with_own_images = column(
        con,
        "SELECT s.node FROM temp.single s JOIN temp.lineage l ON l.ancestor = s.node "
        "JOIN temp.image_synsets m ON m.synset = l.synset "
        "WHERE NOT EXISTS (FROM temp.lineage k WHERE k.synset = l.synset AND k.ancestor = s.child) "
        f"GROUP BY s.node HAVING count(DISTINCT m.image) >= {int(min_images)}",
    )
    return (candidates - set(single)) | set(with_own_images)


def _load_members(con: DuckDBPyConnection, tree: ObjectTree) -> None:
    lineage = [(o, a) for o in range(len(tree.synsets)) for a in tree.lineage(o)]
    types = {"object": pa.int32(), "ancestor": pa.int32()}
    insert_rows(con, "CREATE TEMP TABLE object_lineage AS SELECT * FROM {}", lineage, types)
    con.execute(
        "INSERT INTO members SELECT l.ancestor, d.pair, bool_or(l.object = l.ancestor), "
        "bool_and(l.object = l.ancestor) FROM (SELECT DISTINCT m.pair, s.object FROM mentions m "
        "JOIN synsets s USING (synset) WHERE m.confidence >= ?) d "
        "JOIN temp.object_lineage l USING (object) GROUP BY ALL ORDER BY ALL",
        [CONFIDENT],
    )
    numbers = range(len(tree.synsets))
    columns = {
        "object": pa.array(numbers, pa.int32()),
        "synset": pa.array(tree.synsets, pa.string()),
        "parent": pa.array(tree.parents, pa.int32()),
        "depth": pa.array(tree.depths, pa.int32()),
    }
    insert(
        con,
        "INSERT INTO objects SELECT o.*, count(m.pair) FILTER (m.own), "
        "count(DISTINCT p.image) FILTER (m.own), count(m.pair), count(DISTINCT p.image) "
        "FROM {} o LEFT JOIN members m USING (object) LEFT JOIN pairs p USING (pair) "
        "GROUP BY ALL ORDER BY o.object",
        **columns,
    )
    con.execute(
        "INSERT INTO cooccurrences SELECT a.object, b.object, count(*) AS pairs, "
        "row_number() OVER (PARTITION BY a.object ORDER BY count(*) DESC, b.object) AS place "
        "FROM members a JOIN members b ON a.pair = b.pair AND b.own "
        "ANTI JOIN temp.object_lineage u ON u.object = a.object AND u.ancestor = b.object "
        "ANTI JOIN temp.object_lineage d ON d.object = b.object AND d.ancestor = a.object "
        f"GROUP BY a.object, b.object QUALIFY place <= {_COOCCURRENCES} ORDER BY 1, 4"
    )


def _load_meta(
    con: DuckDBPyConnection, content: str, min_images: int, versions: Mapping[str, str]
) -> None:
    own = {
        "format": FORMAT,
        "min_images": str(min_images),
        "confident": str(CONFIDENT),
        "content_hash": content,
    }
    rows = [*own.items(), *sorted(versions.items())]
    types = {"key": pa.string(), "value": pa.string()}
    insert_rows(con, "INSERT INTO meta SELECT * FROM {}", rows, types)
