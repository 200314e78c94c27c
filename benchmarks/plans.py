"""Aim: a plan is near-linear in the pairs: four times the pairs, at most five times the seconds.

Builds one epoch with the builders ``random`` and ``ontology`` over synthetic pairs, at N and at
4 N: five captions an image, 1,000 objects in a random tree, one to three of them a caption, drawn
by a power law; one caption in 50 is a stock sentence that others say too, so that batches meet
conflicts as they do in real captions. Every build is a process of its own, whose peak memory counts
the pairs and the imports too; folding the captions is part of the time, making them up is not.

    OMP_NUM_THREADS=1 python benchmarks/plans.py
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from captions import PER_IMAGE
from measure import (
    Cost,
    in_fresh_process,
    median_cpu,
    peak_bytes,
    print_heading,
    print_table,
    ratio,
    timed,
)

from tonics.pipeline.config import Plan
from tonics.pipeline.plans.curricula import stretches
from tonics.pipeline.plans.eligible import Eligible, Objects
from tonics.pipeline.plans.epochs import Epoch, build_phase

BATCH, OBJECTS = 256, 1000


def main() -> None:
    """Build at both sizes and compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=100_000, help="N; the larger size is 4 N")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    print_heading(__doc__, "numpy", "pyarrow")
    rows = []
    for builder in ("random", "ontology"):
        sizes = (args.pairs, 4 * args.pairs)
        runs: dict[int, list[Built]] = {size: [] for size in sizes}
        for _ in range(args.rounds):
            for size in sizes:
                runs[size].append(in_fresh_process(build, builder, size))
        costs = {size: [built.cost for built in runs[size]] for size in sizes}
        for size in sizes:
            built, seconds = runs[size][0], round(median_cpu(costs[size]), 2)
            over = ratio(costs[size], costs[args.pairs])
            peak = round(built.peak_bytes / 1e6)
            rows.append([builder, size, seconds, over, peak, built.batches, built.left])
    print(f"one epoch, batches of {BATCH}, {PER_IMAGE} captions an image")
    columns = ["builder", "pairs", "CPU-s", "CPU-s over N's", "peak MB", "batches", "left over"]
    print_table(columns, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What one build took, and how many batches and rows without a place it gave."""

    cost: Cost
    peak_bytes: int
    batches: int
    left: int


def build(builder: str, pairs: int) -> Built:
    """Build one epoch."""
    eligible = make_pairs(pairs)
    phase = {"builder": builder, "share": 1.0}
    plan = Plan.model_validate(
        {"features": "none", "batch_size": BATCH, "epochs": 1, "phases": [phase]}
    )
    done: list[Epoch] = []
    cost = timed(lambda: done.extend(build_phase(eligible, plan, stretches("", plan)[0])))
    batches, left = len(done[0]), len(done[0].left)
    return Built(cost=cost, peak_bytes=peak_bytes(), batches=batches, left=left)


def make_pairs(count: int) -> Eligible:
    """Make up pairs and the tree of objects above them; the same for the same count."""
    rng = np.random.default_rng(0)
    objects = make_objects(count, rng)
    image = np.arange(count) // PER_IMAGE
    main = objects.members[objects.starts[:-1]]
    stock = rng.random(count) < 0.02
    number = np.where(stock, -rng.integers(1, 20, count), np.arange(count))
    captions = [
        f"A thing of kind {m} seen in place {n}."
        for m, n in zip(main.tolist(), number.tolist(), strict=True)
    ]
    table = pa.table({"pair": np.arange(count), "image": image, "caption": captions})
    return Eligible(table=table, image=image, objects=objects)


def make_objects(count: int, rng: np.random.Generator) -> Objects:
    """Grow a tree node by node, and give each pair one to three of its nodes."""
    parent = np.array([-1, *(int(rng.integers(n)) for n in range(1, OBJECTS))], np.int32)
    depth = np.zeros(OBJECTS, np.int32)
    for node in range(1, OBJECTS):
        depth[node] = depth[parent[node]] + 1
    often = 1 / rng.permutation(np.arange(1, OBJECTS + 1))
    named = rng.integers(1, 4, count)
    members = rng.choice(OBJECTS, named.sum(), p=often / often.sum()).astype(np.int32)
    return Objects(
        names=[f"object.{n}" for n in range(OBJECTS)],
        parent=parent,
        depth=depth,
        starts=np.concatenate([[0], np.cumsum(named)]),
        members=members,
    )


if __name__ == "__main__":
    main()
