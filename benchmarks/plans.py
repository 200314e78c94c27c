"""Aim: a million pairs are planned in 5 minutes and 8 GB; 4 times the pairs, 5 times the seconds.

Builds one epoch with every builder over made pairs (``made_pairs.py``: vectors between real
captions, the tree of their objects), at N and at 4 N, and several epochs at N: more epochs should
cost a shuffle, not a rebuild. Every build is a process of its own, from the stored pairs to dealt
batches: reading and scaling the vectors, where the builder uses them, and folding the captions are
part of the time; parsing and embedding captions are stages of their own. One caption in 50 is a
stock sentence that others say too, so that batches meet conflicts as they do in real captions.

    python benchmarks/plans.py --cache /tmp/made                 # N = 250,000, one caption an image
    python benchmarks/plans.py --cache /tmp/made --per-image 5
    python benchmarks/plans.py --cache /tmp/made --builders communities --rounds 3
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from made_pairs import fit_noise, kept_in, load_real, open_made, tightness, write_made
from measure import (
    Cost,
    in_fresh_process,
    median_cpu,
    median_wall,
    peak_bytes,
    print_heading,
    print_table,
    ratio,
    timed,
)

from tonics.pipeline.config import Plan
from tonics.pipeline.plans import BUILDERS
from tonics.pipeline.plans.curricula import Part, Stretch
from tonics.pipeline.plans.epochs import build_phase

BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What one build took, how many batches and rows without a place it gave, how alike in one."""

    cost: Cost
    peak_bytes: int
    batches: int
    left: int
    top1: float
    mean: float


def main() -> None:
    """Build at both sizes and compare; then several epochs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cache", type=Path, help="a folder that keeps what is made")
    parser.add_argument("--captions", type=int, help="use only so many captions")
    parser.add_argument("--pairs", type=int, default=250_000, help="N; the larger size is 4 N")
    parser.add_argument("--per-image", type=int, default=1, help="captions of an image")
    parser.add_argument("--builders", nargs="+", default=sorted(BUILDERS))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    print_heading(__doc__, "numpy", "pyarrow")
    with kept_in(args.cache) as cache:
        real, source = load_real(cache, args.captions)
        print(f"made between {source}")
        sizes = (args.pairs, 4 * args.pairs)
        factor = fit_noise(real)
        folders = {size: write_made(real, size, factor, args.per_image) for size in sizes}
        compare_sizes(args, folders)
        compare_epochs(args, folders[args.pairs])


def compare_sizes(args: argparse.Namespace, folders: dict[int, Path]) -> None:
    """Build one epoch of each builder at each size."""
    rows = []
    for builder in args.builders:
        runs = in_turn(args, [(folder, builder, 1) for folder in folders.values()])
        for size, built in zip(folders, runs, strict=True):
            rows.append([builder, size, *row_of(built, runs[0])])
    images = "one caption" if args.per_image == 1 else f"{args.per_image} captions"
    print(f"one epoch, batches of {BATCH}, {images} an image, {args.threads} threads")
    columns = ["builder", "pairs", "CPU-s", "CPU-s over N's", "wall s", "peak MB", "batches"]
    print_table([*columns, "left over", "top-1", "mean"], rows)


def compare_epochs(args: argparse.Namespace, folder: Path) -> None:
    """Build one epoch and several of each builder at N."""
    rows = []
    for builder in args.builders:
        counts = (1, args.epochs)
        runs = in_turn(args, [(folder, builder, epochs) for epochs in counts])
        for epochs, built in zip(counts, runs, strict=True):
            rotation = BUILDERS[builder].rotation or "every epoch"
            rows.append([builder, rotation, epochs, *row_of(built, runs[0])[:4]])
    print(f"{args.epochs} epochs over one, {args.pairs:,} pairs")
    columns = ["builder", "different passes", "epochs", "CPU-s", "CPU-s over one's", "wall s"]
    print_table([*columns, "peak MB"], rows)


def in_turn(args: argparse.Namespace, builds: list[tuple[Path, str, int]]) -> list[list[Built]]:
    """Make every build once a round, each in a fresh process."""
    env = {"OMP_NUM_THREADS": str(args.threads), "OPENBLAS_NUM_THREADS": str(args.threads)}
    runs: list[list[Built]] = [[] for _ in builds]
    for _ in range(args.rounds):
        for run, what in zip(runs, builds, strict=True):
            run.append(in_fresh_process(build, *what, **env))
    return runs


def row_of(runs: list[Built], base: list[Built]) -> list[object]:
    """Costs and results, as the tables print them."""
    costs, first = [built.cost for built in runs], runs[0]
    return [
        round(median_cpu(costs), 1),
        ratio(costs, [built.cost for built in base]),
        round(median_wall(costs), 1),
        round(first.peak_bytes / 1e6),
        first.batches,
        first.left,
        round(first.top1, 3),
        round(first.mean, 3),
    ]


def build(folder: Path, builder: str, epochs: int) -> Built:
    """Build so many epochs of one builder from stored pairs."""
    made_by = BUILDERS[builder]
    part = Part(builder=made_by, params=made_by.params(), share=1.0)
    stretch = Stretch(name=builder, parts=(part,), epochs=range(epochs), rotation=made_by.rotation)
    plan = Plan(features="none", embeddings="made", batch_size=BATCH, epochs=epochs)
    done = []

    def run() -> None:
        eligible = open_made(folder, part.needs | part.builder.likes)
        done.extend(build_phase(eligible, plan, stretch))

    cost, peak = timed(run), peak_bytes()
    top1, mean = tightness(folder, np.concatenate([dealt.rows for dealt in done[0].dealt]))
    batches, left = sum(map(len, done)), sum(len(epoch.left) for epoch in done)
    return Built(cost=cost, peak_bytes=peak, batches=batches, left=left, top1=top1, mean=mean)


if __name__ == "__main__":
    main()
