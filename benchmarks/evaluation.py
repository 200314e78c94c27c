"""Aim: COCO 5K (5,000 images, 25,000 captions) is scored exactly in at most 1 GB of memory.

Made-up vectors, of which a right caption is somewhat nearer than others, are scored by ours and by
a plain evaluation: the whole score matrix, sorted both ways. Each runs in processes of its own,
which print their peak memory (libraries and vectors included) and CPU-seconds; the ranks must be
the same but for scores within float32's last digits of one another. Then same-object candidates
are drawn, 20 to a choice, for captions of few and of many images: a draw should cost the same.

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --images 1000 --captions 5 --dim 512
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
from measure import (
    Cost,
    compare,
    in_fresh_process,
    median_cpu,
    median_wall,
    peak_bytes,
    print_heading,
    print_table,
    ratio,
    timed,
)

from tonics.pipeline.same_object import HeldOut, draw_sets, mix
from tonics.train.evaluation.retrieval import ranks

LIMIT = 1_000_000_000
CANDIDATES = 20
Found = tuple[Cost, int, np.ndarray, np.ndarray]  # cost, peak bytes, ranks of both directions


def main() -> None:
    """Score the same vectors both ways, in turn."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--captions", type=int, default=5, help="of each image")
    parser.add_argument("--dim", type=int, default=1024, help="numbers of a vector")
    parser.add_argument("--held-out", type=int, nargs=2, default=(1200, 60_000), help="images")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    print_heading(__doc__, "numpy", "torch")
    size = (args.images, args.captions, args.dim)
    contenders = {"ours": ours, "whole matrix, argsort": plain}
    found: dict[str, list[Found]] = {name: [] for name in contenders}
    for _ in range(args.rounds):
        for name, score in contenders.items():
            found[name].append(in_fresh_process(score, *size))
    print(f"{args.images:,} images x {args.captions} captions, {args.dim} numbers a vector")
    base = [cost for cost, *_ in found["whole matrix, argsort"]]
    rows = []
    for name, results in found.items():
        costs, peak = [cost for cost, *_ in results], max(result[1] for result in results)
        figures = [round(peak / 1e6), round(peak / LIMIT, 2), round(median_cpu(costs), 1)]
        rows.append([name, *figures, round(median_wall(costs), 1), ratio(costs, base)])
    columns = ["", "peak MB", "over 1 GB", "CPU-s", "wall s", "CPU-s over argsort's"]
    print_table(columns, rows)
    for way, number in (("i2t", 2), ("t2i", 3)):
        mine, theirs = (results[0][number] for results in found.values())
        other = np.flatnonzero(mine != theirs)
        most = int(np.abs(mine - theirs).max())
        print(f"{way}: {len(other)} of {len(mine):,} ranks differ, by at most {most}")
    print_draws(args.held_out, args.rounds)


def print_draws(sizes: tuple[int, int], rounds: int) -> None:
    """Draw the candidates of a caption of each image, of few and of many images."""
    held_out = {f"{images:,} images": one_object(images) for images in sizes}
    calls = {name: partial(draw_sets, one, CANDIDATES) for name, one in held_out.items()}
    costs = {
        name: [Cost(cpu_s=c.cpu_s / images, wall_s=c.wall_s / images) for c in found]
        for (name, found), images in zip(compare(calls, rounds).items(), sizes, strict=True)
    }
    few = costs[f"{sizes[0]:,} images"]
    rows = [[name, round(median_cpu(c) * 1e6, 1), ratio(c, few)] for name, c in costs.items()]
    print(f"\nsame-object choices, {CANDIDATES} candidates and as many at random")
    print_table(["held out", "CPU-us a caption", f"CPU-s a caption over {sizes[0]:,}'s"], rows)


def one_object(images: int) -> HeldOut:
    """A caption an image, all of one object."""
    names, everything = mix(np.arange(images, dtype=np.uint64)), np.arange(images)
    return HeldOut(
        pairs=everything,
        pair_hash=names,
        picture=mix(names),
        main=np.zeros(images, np.int64),
        names=["dog.n.01"],
        members=lambda _: everything,
    )


def ours(images: int, captions: int, dim: int) -> Found:
    """The evaluator."""
    vectors, result = made_up(images, captions, dim), []
    cost = timed(lambda: result.append(ranks(*vectors)))
    return cost, peak_bytes(), result[0].i2t, result[0].t2i


def plain(images: int, captions: int, dim: int) -> Found:
    """All scores at once, sorted by row and by column."""
    (image, text, owner), result = made_up(images, captions, dim), []

    def score() -> None:
        scores = image @ text.T
        order = np.argsort(-scores, axis=1)
        i2t = (owner[order] == np.arange(images)[:, None]).argmax(1)
        order = np.argsort(-scores.T, axis=1)
        t2i = (order == owner[:, None]).argmax(1)
        result.append((i2t, t2i))

    cost = timed(score)
    return cost, peak_bytes(), *result[0]


def made_up(images: int, captions: int, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit float32 vectors of images and captions, and whose each caption is."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((images, dim), np.float32)
    owner = np.repeat(np.arange(images), captions)
    text = rng.standard_normal((len(owner), dim), np.float32)
    text += image[owner] * np.float32(4 / np.sqrt(dim))
    for vectors in (image, text):
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return image, text, owner


if __name__ == "__main__":
    main()
