"""Which pairs and images speak of which synset, over all hypernyms: precomputed and sorted.

So that any synset answers at once, the root as well: a sorted column is searched by its zone maps.
Strings are joined in last; until then synsets go by number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from ..senses import CONFIDENT
from ..tree import Graph, ObjectTree
from .duckfile import insert

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_FOREMOST = 5  # synsets listed for a class
# WordNet's lexical file; of its topmost synsets, which have one of their own, the file they begin.
_CLASS = "if(y.lexname = 'noun.Tops', split_part(y.synset, '.', 1), substr(y.lexname, 6))"


def load_memberships(con: DuckDBPyConnection) -> None:
    """Fill ``synset_pairs`` and ``synset_images``; needs ``mentions`` and ``closure``.

    Leaves the temporary tables ``numbers`` (synset, number) and ``said`` (pair, image, number,
    span: the first confident mention of exactly that synset, packed as start << 32 | end).
    """
    con.execute(
        """
        CREATE TEMP TABLE numbers AS
        SELECT descendant AS synset, row_number() OVER (ORDER BY descendant)::INTEGER AS number
        FROM (SELECT DISTINCT descendant FROM closure)
        """
    )
    con.execute(
        """
        CREATE TEMP TABLE said AS
        SELECT m.pair, any_value(p.image) AS image, n.number,
               min((m.start::BIGINT << 32) | m."end") AS span
        FROM mentions m JOIN temp.numbers n USING (synset) JOIN pairs p USING (pair)
        WHERE m.confidence >= ?
        GROUP BY m.pair, n.number
        """,
        [CONFIDENT],
    )
    con.execute(
        """
        CREATE TEMP TABLE spoken AS
        WITH below AS (
            SELECT a.number AS ancestor, d.number AS descendant
            FROM closure c JOIN temp.numbers a ON a.synset = c.ancestor
                           JOIN temp.numbers d ON d.synset = c.descendant
        )
        SELECT b.ancestor AS number, s.pair, any_value(s.image) AS image, min(s.span) AS span,
               bool_or(b.ancestor = s.number) AS self
        FROM temp.said s JOIN below b ON b.descendant = s.number
        GROUP BY b.ancestor, s.pair
        """
    )
    con.execute(
        """
        INSERT INTO synset_pairs
        SELECT n.synset, s.pair, (s.span >> 32)::INTEGER, (s.span & 4294967295)::INTEGER, s.self
        FROM temp.spoken s JOIN temp.numbers n USING (number)
        ORDER BY s.number, s.pair
        """
    )
    con.execute(
        """
        INSERT INTO synset_images
        SELECT n.synset, i.image, i.pairs
        FROM (SELECT number, image, count(*)::INTEGER AS pairs
              FROM temp.spoken GROUP BY number, image) i JOIN temp.numbers n USING (number)
        ORDER BY i.number, i.image
        """
    )
    con.execute("DROP TABLE temp.spoken")


def load_synsets(con: DuckDBPyConnection, graph: Graph, tree: ObjectTree) -> None:
    """Fill ``synsets``, with the counts that the memberships give."""
    synsets = list(graph.synsets.values())
    insert(
        con,
        """
        INSERT INTO synsets
        SELECT g.*, coalesce(e.pairs, 0), coalesce(e.images, 0),
               coalesce(u.pairs, 0), coalesce(v.images, 0)
        FROM {} g
        LEFT JOIN (SELECT n.synset, count(*) AS pairs, count(DISTINCT s.image) AS images
                   FROM temp.said s JOIN temp.numbers n USING (number) GROUP BY n.synset) e
            USING (synset)
        LEFT JOIN (SELECT synset, count(*) AS pairs FROM synset_pairs GROUP BY synset) u
            USING (synset)
        LEFT JOIN (SELECT synset, count(*) AS images FROM synset_images GROUP BY synset) v
            USING (synset)
        ORDER BY g.synset
        """,
        synset=pa.array([s.name for s in synsets], pa.string()),
        lemmas=pa.array([list(s.lemmas) for s in synsets], pa.list_(pa.string())),
        definition=pa.array([s.definition for s in synsets], pa.string()),
        lexname=pa.array([s.lexname for s in synsets], pa.string()),
        depth=pa.array([graph.depth[s.name] for s in synsets], pa.int32()),
        parent=pa.array([graph.parent[s.name] for s in synsets], pa.string()),
        object=pa.array([tree.nearest[s.name] for s in synsets], pa.int32()),
    )


def load_classes(con: DuckDBPyConnection) -> None:
    """Fill ``classes``: what the dataset is about; needs ``synsets``."""
    con.execute(
        f"""
        WITH counted AS (
            SELECT {_CLASS} AS class, count(DISTINCT s.image) AS images,
                   count(DISTINCT s.pair) AS pairs
            FROM temp.said s JOIN temp.numbers n USING (number) JOIN synsets y USING (synset)
            GROUP BY class
        ), placed AS (
            SELECT {_CLASS} AS class, synset,
                   row_number() OVER (PARTITION BY class
                                      ORDER BY self_images DESC, synset) AS place
            FROM synsets y WHERE self_images > 0
        )
        INSERT INTO classes
        SELECT c.class, c.images, c.pairs,
               (SELECT list(p.synset ORDER BY p.place) FROM placed p
                WHERE p.class = c.class AND p.place <= {_FOREMOST})
        FROM counted c ORDER BY c.class
        """
    )
