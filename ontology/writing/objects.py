"""The tables of the graph and of the tree of objects cut out of it: who is one, and who belongs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from ..senses import CONFIDENT
from ..tree import Graph, ObjectTree, cut_tree, only_children
from .duckfile import column, insert, insert_rows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_COOCCURRENCES = 200  # kept for each object


def load_graph(con: DuckDBPyConnection, graph: Graph) -> None:
    """Fill ``hypernyms`` and ``closure``, and the temporary table ``lineage``."""
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


def choose_objects(con: DuckDBPyConnection, graph: Graph, min_images: int) -> ObjectTree:
    """Choose the objects by the rule above their table in schema.sql, and number them."""
    con.execute(  # which images speak of which synset, surely enough to count
        "CREATE TEMP TABLE image_synsets AS SELECT DISTINCT p.image, m.synset "
        "FROM mentions m JOIN pairs p USING (pair) "
        "WHERE m.synset IS NOT NULL AND m.confidence >= ?",
        [CONFIDENT],
    )
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
        f"""
        SELECT s.node
        FROM temp.single s JOIN temp.lineage l ON l.ancestor = s.node
        JOIN temp.image_synsets m ON m.synset = l.synset
        ANTI JOIN temp.lineage k ON k.synset = l.synset AND k.ancestor = s.child
        GROUP BY s.node HAVING count(DISTINCT m.image) >= {int(min_images)}
        """,
    )
    return cut_tree(graph, (candidates - set(single)) | set(with_own_images))


def load_objects(con: DuckDBPyConnection, tree: ObjectTree) -> None:
    """Fill ``members`` and ``objects``; needs ``synsets``."""
    lineage = [(o, a) for o in range(len(tree.synsets)) for a in tree.lineage(o)]
    types = {"object": pa.int32(), "ancestor": pa.int32()}
    insert_rows(con, "CREATE TEMP TABLE object_lineage AS SELECT * FROM {}", lineage, types)
    con.execute(
        """
        INSERT INTO members
        SELECT l.ancestor, d.pair, bool_or(l.object = l.ancestor), bool_and(l.object = l.ancestor)
        FROM (SELECT DISTINCT m.pair, s.object
              FROM mentions m JOIN synsets s USING (synset) WHERE m.confidence >= ?) d
        JOIN temp.object_lineage l USING (object)
        GROUP BY ALL ORDER BY ALL
        """,
        [CONFIDENT],
    )
    insert(
        con,
        """
        INSERT INTO objects
        SELECT o.*, count(m.pair) FILTER (m.own), count(DISTINCT p.image) FILTER (m.own),
               count(m.pair), count(DISTINCT p.image)
        FROM {} o LEFT JOIN members m USING (object) LEFT JOIN pairs p USING (pair)
        GROUP BY ALL ORDER BY o.object
        """,
        object=pa.array(range(len(tree.synsets)), pa.int32()),
        synset=pa.array(tree.synsets, pa.string()),
        parent=pa.array(tree.parents, pa.int32()),
        depth=pa.array(tree.depths, pa.int32()),
    )


def load_cooccurrences(con: DuckDBPyConnection) -> None:
    """Count which other objects stand in the captions of each; needs ``members``."""
    con.execute(
        f"""
        INSERT INTO cooccurrences
        SELECT a.object, b.object, count(*) AS pairs,
               row_number() OVER (PARTITION BY a.object ORDER BY count(*) DESC, b.object) AS place
        FROM members a JOIN members b ON a.pair = b.pair AND b.own
        ANTI JOIN temp.object_lineage u ON u.object = a.object AND u.ancestor = b.object
        ANTI JOIN temp.object_lineage d ON d.object = b.object AND d.ancestor = a.object
        GROUP BY a.object, b.object QUALIFY place <= {_COOCCURRENCES}
        ORDER BY 1, 4
        """
    )
