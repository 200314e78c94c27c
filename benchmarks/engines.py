"""Claim: an engine costs seconds to start and milliseconds a shard, beside shards of minutes.

Extracts the same made-up photos (640x480) with the ``grid`` detector in this process, with two
processes and with two actors of a Ray that is started for it, and says when the first shard was
begun, how long all took, and what the shards' makers say they took in CPU-seconds. Then lets each
engine make shards that hold nothing: one writes a file of a few bytes, its manifest and its lock,
all flushed to the disk. Stores are compared: every engine must have written the same bytes.

    OMP_NUM_THREADS=1 python benchmarks/engines.py
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from measure import print_heading, print_table
from PIL import Image

from tonics.artifact import atomic_file
from tonics.pipeline.config import Config, Runtime
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.engines import Engine, open_engine
from tonics.pipeline.graph import stages_of
from tonics.pipeline.progress import Meter
from tonics.pipeline.runner import bring_up_to_date
from tonics.pipeline.stage import Made, Shard, Stage, row_shards

ENGINES = {
    "this process": Runtime(workers=1),
    "2 processes": Runtime(workers=2),
    "2 Ray actors": Runtime(engine="ray", workers=2),
}


def main() -> None:
    """Run every engine on the same photos, then on empty shards."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--shards", type=int, default=200, help="Empty ones.")
    args = parser.parse_args()

    print_heading(__doc__, "ray", "torch", "numpy")
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        make_photos(photos, args.images)
        rows, stores = [], set()
        for number, (name, runtime) in enumerate(ENGINES.items()):
            dataset = ingested(Path(folder) / str(number), photos, args.images // 8, runtime)
            with open_engine(runtime) as engine:
                done = run(engine, stages_of(dataset)["extract/grid"])
                few = run(engine, Empty(dataset, "few", count=2))
                many = run(engine, Empty(dataset, "many", count=args.shards))
            stores.add(done.content)
            each = 1000 * (many.wall_s - few.wall_s) / (args.shards - 2)
            figures = (done.first_s, done.wall_s, done.cpu_s)
            rows.append([name, *(round(value, 1) for value in figures), round(each, 1)])
    assert len(stores) == 1, "engines differ in what they write"
    print(f"{args.images} images in 8 shards; {args.shards} empty shards")
    columns = ["engine", "first shard after s", "wall s", "CPU-s of the makers"]
    print_table([*columns, "wall ms an empty shard"], rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a stage took: until its first shard was begun, in all, and its makers by their word."""

    first_s: float
    wall_s: float
    cpu_s: float
    content: str


def run(engine: Engine, stage: Stage) -> Done:
    """Make all shards of a stage."""
    started, begun = time.perf_counter(), []
    meter = Meter(0, stage.unit, lambda pace: begun.append(time.perf_counter()))
    made = sorted(engine.map(stage, stage.shards(), meter.reached), key=lambda m: m.shard)
    return Done(
        first_s=begun[0] - started,
        wall_s=time.perf_counter() - started,
        cpu_s=sum(m.cost["cpu_s"] for m in made),
        content="".join(m.content() for m in made),
    )


class Empty(Stage):
    """Shards with next to nothing in them."""

    kind: ClassVar[str] = "empty"

    def __init__(self, dataset: Dataset, name: str, count: int = 0) -> None:
        super().__init__(dataset, name)
        self.count = count

    @property
    def folder(self) -> Path:
        return self.dataset.root / self.name

    def shards(self) -> list[Shard]:
        return row_shards(self.count, 1)

    def identity(self, shard: Shard) -> dict[str, Any]:
        return {"rows": shard.name}

    def make(self, shard: Shard) -> Made:
        output = self.folder / f"{shard.name}.txt"
        with atomic_file(output) as tmp:
            tmp.write_text(shard.name)
        return Made(outputs=[output], rows=1)


def make_photos(folder: Path, count: int) -> None:
    """Write photos of coarse noise, and a caption for each."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8))
        coarse.resize((640, 480)).save(folder / f"{number:05d}.jpg")
        lines.append(json.dumps({"image": f"{number:05d}.jpg", "caption": f"photo {number}"}))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")


def ingested(root: Path, photos: Path, shard_images: int, runtime: Runtime) -> Dataset:
    """A dataset of the photos, ready to be extracted with an engine."""
    root.mkdir()
    (root / "tonics.toml").write_text("")
    config = Config.model_validate(
        {
            "ingest": {
                "image_root": str(photos),
                "sources": [{"captions": str(photos / "captions.jsonl")}],
            },
            "features": {"grid": {"shard_images": shard_images}},
        }
    )
    bring_up_to_date(stages_of(Dataset(root, config))["ingest"], workers=1)
    return Dataset(root, config.model_copy(update={"runtime": runtime}))


if __name__ == "__main__":
    main()
