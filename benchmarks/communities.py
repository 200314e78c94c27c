"""Claim: `communities` are 5 times cheaper than groups of a global neighbour graph, and as tight.

Both group the same made pairs (``made_pairs.py``) into groups of 16, from neighbours of rank 30 to
130, and deal these into batches of 256; then they are measured by the mean cosine of a caption to
its nearest other in the batch (top-1) and to all others. Ours runs with objects and without, from
the stored vectors to dealt batches. The graph (``global_graph.py``) is built for several numbers of
lists, and read with several numbers of probes; groups are made greedily, and by METIS where pymetis
is installed and the pairs are few enough. The last table takes the cheapest graph that reaches our
top-1. Contenders run in processes of their own with ``--threads``; CPU-seconds are of all threads.

    pip install pymetis                                 # optional
    python benchmarks/communities.py --cache /tmp/made  # keeps captions' vectors and made pairs
    python benchmarks/communities.py --cache /tmp/made --pairs 1000000 --metis 0 --probes 1 4
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from global_graph import Index, group_by_metis, group_greedily, has_metis, neighbours, train
from made_pairs import (
    fit_noise,
    kept_in,
    load_real,
    open_made,
    print_histograms,
    tightness,
    write_made,
)
from measure import Cost, in_fresh_process, peak_bytes, print_heading, print_table, timed

from tonics.pipeline.config import Plan
from tonics.pipeline.plans.curricula import stretches
from tonics.pipeline.plans.epochs import build_phase

BATCH, GROUP, SKIP, REACH = 256, 16, 30, 130
_TIE = 0.002  # of top-1


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A contender's batches, by what they took and how alike the captions of a batch are."""

    name: str
    cost: Cost
    peak_bytes: int
    top1: float
    mean: float
    parts: str = ""


def main() -> None:
    """Run all contenders and compare them."""
    args = arguments()
    print_heading(__doc__, "numpy", "faiss-cpu", *(["pymetis"] if args.metis else []))
    if not has_metis():
        print("METIS is left out: pymetis is not installed\n")
    env = {"OMP_NUM_THREADS": str(args.threads), "OPENBLAS_NUM_THREADS": str(args.threads)}
    with kept_in(args.cache) as cache:
        real, source = load_real(cache, args.captions)
        factor = fit_noise(real)
        print(f"made between {source}")
        print_histograms(real, factor, args.pairs)
        folder = write_made(real, args.pairs, factor)
        ours = [in_fresh_process(run_ours, folder, *way, **env) for way in OURS]
        graphs = []
        for lists in (round(k * np.sqrt(args.pairs)) for k in args.lists):
            metis = args.pairs <= args.metis and has_metis()
            graphs += in_fresh_process(run_graph, folder, lists, args.probes, metis, **env)
    report(args, ours, graphs)


def arguments() -> argparse.Namespace:
    """What to run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cache", type=Path, help="a folder that keeps what is made")
    parser.add_argument("--captions", type=int, help="use only so many captions")
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lists", type=float, nargs="+", default=[1, 4], help="over sqrt(pairs)")
    parser.add_argument("--probes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--metis", type=int, default=100_000, help="METIS up to so many pairs")
    args = parser.parse_args()
    args.metis = args.metis if has_metis() else 0
    return args


OURS = (
    ("random", {}),
    ("communities", {"objects": True}),
    ("communities", {"objects": False}),
)


def run_ours(folder: Path, builder: str, params: dict[str, bool]) -> Found:
    """Build one epoch from the stored pairs."""
    phase = {"builder": builder, "params": params}
    plan = Plan.model_validate(
        {"features": "none", "embeddings": "made", "batch_size": BATCH, "epochs": 1}
        | {"phases": [phase]}
    )
    batches: list[np.ndarray] = []

    def build() -> None:
        for epoch in build_phase(open_made(folder), plan, stretches("", plan)[0]):
            batches.extend(dealt.rows for dealt in epoch.dealt)

    cost, peak = timed(build), peak_bytes()
    top1, mean = tightness(folder, np.concatenate(batches))
    words = {True: ", by object", False: ", without objects", None: ""}
    name = builder + words[params.get("objects")]
    return Found(name=name, cost=cost, peak_bytes=peak, top1=top1, mean=mean)


def run_graph(folder: Path, lists: int, probes: list[int], metis: bool) -> list[Found]:
    """Build the graph with each number of probes, and groups of it in each way."""
    kept: dict[str, np.ndarray] = {}
    box: list[object] = []

    def prepare() -> None:
        kept["vectors"] = np.load(folder / "vectors.npy").astype(np.float32)
        box.append(train(kept["vectors"], lists))

    trained = timed(prepare)
    ways = {"greedy": group_greedily} | ({"METIS": group_by_metis} if metis else {})
    found = []
    for number in probes:
        searched = timed(
            lambda n=number: kept.update(near=neighbours(box[0], kept["vectors"], n, SKIP, REACH))
        )
        for way, group in ways.items():
            rng = np.random.default_rng(0)
            grouped = timed(lambda g=group, r=rng: kept.update(groups=g(kept["near"], GROUP, r)))
            order = rng.permutation(len(kept["groups"]) // (BATCH // GROUP) * (BATCH // GROUP))
            top1, mean = tightness(folder, kept["groups"][order].reshape(-1, BATCH))
            found.append(
                Found(
                    name=f"{Index(lists=lists, probes=number)}, {way}",
                    cost=total(trained, searched, grouped),
                    peak_bytes=peak_bytes(),
                    top1=top1,
                    mean=mean,
                    parts=" + ".join(f"{c.cpu_s:.0f}" for c in (trained, searched, grouped)),
                )
            )
            print("  done:", *row_of(found[-1]), flush=True)
    return found


def total(*costs: Cost) -> Cost:
    """The sum of several costs."""
    return Cost(cpu_s=sum(c.cpu_s for c in costs), wall_s=sum(c.wall_s for c in costs))


def report(args: argparse.Namespace, ours: list[Found], graphs: list[Found]) -> None:
    """Print every contender, and ours beside the cheapest graph that is as tight."""
    print(f"{args.pairs:,} pairs, {args.threads} threads; groups of {GROUP} in batches of {BATCH}")
    columns = ["batches", "CPU-s", "train + search + group", "wall s", "peak MB", "top-1", "mean"]
    print_table(columns, [row_of(found) for found in (*ours, *graphs)])
    rows = []
    for our in ours[1:]:
        tight = [g for g in graphs if g.top1 >= our.top1 - _TIE]
        best = min(tight or graphs, key=lambda g: g.cost.cpu_s if tight else -g.top1)
        rows.append(
            [
                our.name,
                best.name if tight else f"none; the tightest: {best.name}",
                round(best.top1 - our.top1, 4),
                round(best.cost.cpu_s / our.cost.cpu_s, 1),
                round(best.cost.wall_s / our.cost.wall_s, 1),
            ]
        )
    columns = ["ours", "cheapest graph as tight", "its top-1 over ours", "CPU-s over ours"]
    print_table([*columns, "wall s over ours"], rows)


def row_of(found: Found) -> list[object]:
    """A row of the first table."""
    return [
        found.name,
        round(found.cost.cpu_s, 1),
        found.parts,
        round(found.cost.wall_s, 1),
        round(found.peak_bytes / 1e6),
        round(found.top1, 3),
        round(found.mean, 3),
    ]


if __name__ == "__main__":
    main()
