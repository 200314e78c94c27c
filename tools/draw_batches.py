"""Draw what curricula put into batches: a row a batch, a cell a pair, a colour an object.

python tools/draw_batches.py demo/dataset docs/batches

Objects near each other in the tree have like colours; grey is none. Within a batch (or a group of
it) pairs are drawn by colour, because their order means nothing.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from tonics.pipeline.config import Phase, Plan
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.plans import BUILDERS
from tonics.pipeline.plans.curricula import CURRICULA, stretches
from tonics.pipeline.plans.eligible import Eligible, Objects
from tonics.pipeline.plans.epochs import build_batches
from tonics.pipeline.plans.loading import load_eligible
from tonics.pipeline.stages.extract import load_store
from tonics.train.plan_files import Batches

SIZE, EPOCHS, ROWS, CELL, LABELS = 64, 10, 12, 10, 190


def main(dataset: Path, folder: Path) -> None:
    """Draw every builder, and every curriculum of several phases."""
    opened = Dataset.open(dataset)
    plan = Plan(features="grid", embeddings="captions", batch_size=SIZE, epochs=EPOCHS)
    store = load_store(opened, plan.features)
    eligible = load_eligible(opened, plan, store, {"objects", "text", "image"})
    folder.mkdir(exist_ok=True)
    drawn = {name: (Phase(builder=name),) for name, b in BUILDERS.items() if not b.pools}
    if "kmeans" in drawn:
        drawn["kmeans"] = (Phase(builder="kmeans", share=0.7), Phase(builder="random", share=0.3))
    drawn |= {n: phases for n, phases in CURRICULA.items() if len(phases) > 1 or n == "adaptive"}
    assert eligible.objects is not None
    for name, phases in drawn.items():
        wanted = plan.model_copy(update={"phases": phases})
        chosen = stretches(name, wanted)
        batches, _ = build_batches(eligible, wanted, chosen)
        steps = shown_steps(batches, pools=name == "adaptive")
        labels = [chosen[batches.phase[step]].name for step in steps]
        if name == "adaptive":
            labels = [eligible.objects.names[batches.node[step]] for step in steps]
        rows = [colours(eligible, batches, step) for step in steps]
        (folder / f"{name}.svg").write_text(svg(labels, rows), encoding="utf-8")


def shown_steps(batches: Batches, *, pools: bool) -> np.ndarray:
    """Batches evenly spaced over a plan, or the first one of evenly spaced pools."""
    steps = np.arange(len(batches.pairs))
    if pools:
        _, steps = np.unique(batches.node, return_index=True)
    return steps[np.linspace(0, len(steps) - 1, ROWS).round().astype(int)]


def colours(eligible: Eligible, batches: Batches, step: int) -> list[str]:
    """The colour of each cell of a batch."""
    objects = eligible.objects
    assert objects is not None
    rows = np.searchsorted(eligible.pair, batches.pairs[step])
    nodes = batches.groups[step].as_py() if batches.groups is not None else []
    nodes = nodes or [int(batches.node[step])]
    place = places(objects)
    groups = []
    for node, members in zip(nodes, np.split(rows, len(nodes)), strict=True):
        shown = [place[shown_object(objects, int(row), node)] for row in members]
        groups.append(sorted(shown))
    ordered = sorted(groups, key=lambda group: group[len(group) // 2])
    return [hue(at) for group in ordered for at in group]


def shown_object(objects: Objects, row: int, node: int) -> int:
    """One of a pair's deepest objects: the first that lies below the node of its group."""
    members = objects.members[objects.starts[row] : objects.starts[row + 1]].tolist()
    below = [m for m in members if node < 0 or node in lineage(objects, m)]
    found = below or members or [-1]
    return found[row % len(found)]


def lineage(objects: Objects, node: int) -> list[int]:
    """An object and all above it."""
    found = [node]
    while objects.parent[found[-1]] >= 0:
        found.append(int(objects.parent[found[-1]]))
    return found


def places(objects: Objects) -> dict[int, float]:
    """Where each object comes in a walk through the tree, by mentions: 0 to 1; -1: none."""
    below = defaultdict(list)
    for node, parent in enumerate(objects.parent.tolist()):
        below[parent].append(node)
    order, waiting = [], [0]
    while waiting:
        node = waiting.pop()
        order.append(node)
        waiting += below[node]
    own = np.bincount(objects.members, minlength=len(objects.names))[order]
    middle = (np.cumsum(own) - own / 2) / own.sum()
    return dict(zip(order, middle.tolist(), strict=True)) | {-1: -1.0}


def hue(place: float) -> str:
    """A colour for a place in the tree."""
    return (
        "#bbb" if place < 0 else f"hsl({round(place * 330)},70%,{45 + round(place * 97) % 3 * 9}%)"
    )


def svg(labels: list[str], rows: list[list[str]]) -> str:
    """One picture; cells of a colour are one path."""
    width, height = LABELS + SIZE * CELL, len(rows) * (CELL + 4)
    paths: dict[str, list[str]] = defaultdict(list)
    for y, row in enumerate(rows):
        for x, colour in enumerate(row):
            paths[colour].append(f"M{LABELS + x * CELL} {y * (CELL + 4)}h9v10h-9z")
    texts = [
        f'<text x="0" y="{y * (CELL + 4) + 9}">{label}</text>'
        for y, label in enumerate(labels)
        if y == 0 or label != labels[y - 1]
    ]
    cells = [f'<path fill="{colour}" d="{"".join(d)}"/>' for colour, d in paths.items()]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
    style = 'font-family="sans-serif" font-size="11" fill="#777"'
    return "\n".join([f"{head} {style}>", *texts, *cells, "</svg>", ""])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
