"""Build ``detections.duckdb``: what detectors saw, by label and by synset.

Set-based: Python decides a synset once per label; everything per image comes in Arrow tables and is
SQL from there. A file of its own, so that a new extraction leaves the ontology as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from ..errors import writing_to
from .labels import label_sense
from .senses import CONFIDENT
from .tree import Graph, build_graph, table_merges
from .wordnet import WordNet
from .writing.duckfile import (
    column,
    content_hash,
    count,
    create_macros,
    create_tables,
    insert,
    insert_rows,
    load_meta,
    writing_database,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FORMAT = "1"
CATALOG = "detections"  # the macros name their tables by it
_HASHED = ("feature_sets", "merged", "labels", "closure", "images", "detections")
_DERIVED = ("synsets", "seen", "words")  # from those: they say nothing more
_CHUNK_ROWS = 20_000_000  # of `seen` before it is made distinct, sorted at a time
_SCHEMA = Path(__file__).with_name("detections.sql")
_MACROS = Path(__file__).with_name("detections_macros.sql")

IMAGES_SCHEMA = pa.schema([("image", pa.int64()), ("regions", pa.int32())])
DETECTIONS_SCHEMA = pa.schema(
    [
        ("image", pa.int64()),
        ("label", pa.int32()),
        ("regions", pa.int32()),
        ("score", pa.float32()),
        ("area", pa.float32()),
    ]
)


class Detected(NamedTuple):
    """Images of a feature set (``IMAGES_SCHEMA``), and their labels (``DETECTIONS_SCHEMA``)."""

    images: pa.Table
    detections: pa.Table


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSet:
    """What goes in of one feature set.

    Attributes:
        name: as in ``tonics.toml``.
        labels: by number, the name and the synset that the vocabulary gives, or nothing.
        detected: all images, some at a time, in any order, each image once.
        content_hash, vocabulary_hash: kept beside the counts.
    """

    name: str
    labels: Sequence[tuple[str, str]]
    detected: Iterable[Detected]
    content_hash: str
    vocabulary_hash: str


def build_detections(
    path: Path,
    sets: Sequence[FeatureSet],
    *,
    wordnet: WordNet,
    versions: Mapping[str, str],
    threads: int | None = None,
    memory: str = "3GB",
) -> dict[str, Any]:
    """Write the complete database at ``path`` (a temporary path; whatever is there is replaced).

    Args:
        versions: what decided the content, kept in ``meta``.
        threads, memory: limits for DuckDB; they do not change the content.

    Returns:
        Counts by name, ``content_hash``, and ``sets_without_synset``: the names of feature sets of
        whose labels none stands for a synset.

    Raises:
        NotWritable, DiskFull: the folder of ``path``.
    """
    path.unlink(missing_ok=True)
    sets = sorted(sets, key=lambda one: one.name)
    with writing_to(path), writing_database(path, CATALOG, threads, memory) as con:
        create_tables(con, _SCHEMA.read_text(encoding="utf-8"))
        _load_raw(con, sets)
        con.execute(
            "INSERT INTO images SELECT s.features, r.image, r.regions FROM temp.raw_images r "
            "JOIN temp.sets s USING (number) ORDER BY r.number, r.image"
        )
        con.execute(
            "INSERT INTO detections SELECT s.features, r.image, r.label, r.regions, r.score, "
            "r.area FROM temp.raw r JOIN temp.sets s USING (number) "
            "ORDER BY r.number, r.image, r.label"
        )
        merges = table_merges(wordnet)
        rows = sorted(merges.items())
        types = {"synset": pa.string(), "kept": pa.string()}
        insert_rows(con, "INSERT INTO merged SELECT * FROM {}", rows, types)
        _load_labels(con, sets, wordnet, merges)
        graph = _load_closure(con, wordnet, merges)
        _load_seen(con)
        _load_counts(con, sets)
        _load_words(con, graph)
        counts = {name: count(con, name) for name in (*_HASHED, *_DERIVED)}
        content = content_hash(con, CATALOG, _HASHED, FORMAT)
        own = {"format": FORMAT, "confident": str(CONFIDENT), "content_hash": content}
        load_meta(con, own, {**versions, "wordnet": wordnet.version})
        create_macros(con, CATALOG, _MACROS.read_text(encoding="utf-8"))
        unclear = column(con, "SELECT features FROM feature_sets WHERE with_synset = 0 ORDER BY 1")
    return {**counts, "content_hash": content, "sets_without_synset": unclear}


def _load_raw(con: DuckDBPyConnection, sets: Sequence[FeatureSet]) -> None:
    """Take in what was read, by the numbers of sets and labels: integers sort and join fastest."""
    insert_rows(
        con, "CREATE TEMP TABLE sets AS SELECT * FROM {}",
        [(number, one.name) for number, one in enumerate(sets)],
        {"number": pa.int32(), "features": pa.string()},
    )  # fmt: skip
    con.execute("CREATE TEMP TABLE raw_images (number INTEGER, image BIGINT, regions INTEGER)")
    con.execute(
        "CREATE TEMP TABLE raw (number INTEGER, image BIGINT, label INTEGER, regions INTEGER, "
        "score FLOAT, area FLOAT)"
    )
    for number, one in enumerate(sets):
        for detected in one.detected:
            for name, table in (("raw_images", detected.images), ("raw", detected.detections)):
                columns = {field: table[field] for field in table.column_names}
                insert(con, f"INSERT INTO temp.{name} SELECT {number}, * FROM {{}}", **columns)


def _load_labels(
    con: DuckDBPyConnection,
    sets: Sequence[FeatureSet],
    wordnet: WordNet,
    merges: Mapping[str, str],
) -> None:
    """Decide every label's synset, and count its images."""
    rows = list(_decided(sets, wordnet, merges))
    types = {
        "number": pa.int32(), "label": pa.int32(), "name": pa.string(), "synset": pa.string(),
        "method": pa.string(), "confidence": pa.float32(),
    }  # fmt: skip
    insert_rows(con, "CREATE TEMP TABLE decided AS SELECT * FROM {}", rows, types)
    con.execute(
        "INSERT INTO labels SELECT s.features, d.label, d.name, d.synset, d.method, d.confidence, "
        "coalesce(n.images, 0), coalesce(n.regions, 0) "
        "FROM temp.decided d JOIN temp.sets s USING (number) LEFT JOIN "
        "(SELECT number, label, count(*) AS images, sum(regions)::BIGINT AS regions "
        "FROM temp.raw GROUP BY ALL) n USING (number, label) ORDER BY d.number, d.label"
    )


def _decided(
    sets: Sequence[FeatureSet], wordnet: WordNet, merges: Mapping[str, str]
) -> Iterator[tuple[Any, ...]]:
    for number, one in enumerate(sets):
        for label, (name, synset) in enumerate(one.labels):
            sense = label_sense(wordnet, name, synset)
            meant = merges.get(sense.synset, sense.synset) if sense.synset else None
            yield number, label, name, meant, sense.method, sense.confidence


def _load_closure(con: DuckDBPyConnection, wordnet: WordNet, merges: Mapping[str, str]) -> Graph:
    meant = column(con, "SELECT DISTINCT synset FROM labels WHERE synset IS NOT NULL ORDER BY ALL")
    graph = build_graph(wordnet, meant, merges)
    closure = [(a, s, d) for s in meant for a, d in graph.distances(s).items()]
    insert_rows(
        con, "INSERT INTO closure SELECT * FROM {} ORDER BY ALL", closure,
        {"ancestor": pa.string(), "descendant": pa.string(), "distance": pa.int32()},
    )  # fmt: skip
    return graph


def _load_seen(con: DuckDBPyConnection) -> None:
    """Repeat what was seen for everything above it, a few synsets at a time, in their order."""
    con.execute(  # which labels speak of which synset surely enough to count
        "CREATE TEMP TABLE reach AS SELECT dense_rank() OVER (ORDER BY c.ancestor) AS node, "
        "c.ancestor AS synset, d.number, d.label "
        "FROM temp.decided d JOIN closure c ON c.descendant = d.synset WHERE d.confidence >= ?",
        [CONFIDENT],
    )
    con.execute("CREATE TEMP TABLE nodes AS SELECT DISTINCT node, synset FROM temp.reach")
    for first, last in _chunks(con):
        con.execute(
            "INSERT INTO seen SELECT n.synset, s.features, g.image, g.regions, g.score, g.area "
            "FROM (SELECT c.node, r.number, r.image, sum(r.regions)::INTEGER AS regions, "
            "max(r.score) AS score, max(r.area) AS area "
            "FROM temp.raw r JOIN temp.reach c USING (number, label) "
            "WHERE c.node BETWEEN ? AND ? GROUP BY ALL) g "
            "JOIN temp.nodes n USING (node) JOIN temp.sets s USING (number) "
            "ORDER BY g.node, g.number, g.image",
            [first, last],
        )


def _chunks(con: DuckDBPyConnection) -> Iterator[tuple[int, int]]:
    """Cut the synsets into runs (first, last) of bounded rows."""
    sizes = con.execute(
        "SELECT c.node, sum(l.images)::BIGINT FROM temp.reach c JOIN temp.sets s USING (number) "
        "JOIN labels l ON l.features = s.features AND l.label = c.label "
        "GROUP BY c.node ORDER BY c.node"
    ).fetchall()
    first, rows = 1, 0
    for node, size in sizes:
        if rows and rows + size > _CHUNK_ROWS:
            yield first, node - 1
            first, rows = node, 0
        rows += size
    if sizes:
        yield first, len(sizes)


def _load_counts(con: DuckDBPyConnection, sets: Sequence[FeatureSet]) -> None:
    con.execute(
        "INSERT INTO synsets SELECT m.synset, s.features, coalesce(n.images, 0), "
        "coalesce(n.regions, 0) FROM (SELECT DISTINCT synset, number FROM temp.reach) m "
        "JOIN temp.sets s USING (number) LEFT JOIN "
        "(SELECT synset, features, count(*) AS images, sum(regions)::BIGINT AS regions "
        "FROM seen GROUP BY ALL) n USING (synset, features) ORDER BY m.synset, s.features"
    )
    hashes = [(one.name, one.content_hash, one.vocabulary_hash) for one in sets]
    insert_rows(
        con,
        "INSERT INTO feature_sets SELECT h.features, count(i.image), "
        "count(*) FILTER (i.regions = 0), coalesce(sum(i.regions), 0)::BIGINT, "
        "(SELECT count(*) FROM labels l WHERE l.features = h.features), "
        "(SELECT count(l.synset) FROM labels l WHERE l.features = h.features), "
        "h.content_hash, h.vocabulary_hash FROM {} h LEFT JOIN images i USING (features) "
        "GROUP BY ALL ORDER BY h.features",
        hashes,
        dict.fromkeys(("features", "content_hash", "vocabulary_hash"), pa.string()),
    )


def _load_words(con: DuckDBPyConnection, graph: Graph) -> None:
    """Choose what each word stands for: as the surest label has it, else as WordNet lists it."""
    listed = [(lemma, s.name) for s in graph.synsets.values() for lemma in s.lemmas]
    insert_rows(
        con,
        """
        INSERT INTO words
        WITH meant AS (
            SELECT replace(lower(name), '_', ' ') AS word, synset, confidence, images
            FROM labels WHERE synset IS NOT NULL
            UNION ALL
            SELECT lower(g.word), g.synset, 0, s.images
            FROM {} g JOIN (SELECT synset, sum(images) AS images FROM synsets GROUP BY synset) s
            USING (synset)
        )
        SELECT word, synset FROM meant GROUP BY word, synset
        QUALIFY row_number() OVER (
            PARTITION BY word ORDER BY max(confidence) DESC, sum(images) DESC, synset
        ) = 1
        ORDER BY word
        """,
        listed,
        {"word": pa.string(), "synset": pa.string()},
    )
