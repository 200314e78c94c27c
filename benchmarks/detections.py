"""Aim: what detectors saw in 123,000 images in 60 s and 2 GB, and its questions in 50 ms.

Makes a feature store of made-up regions, 36 an image (features of 8 numbers: they are never read),
whose labels are ImageNet's, a few of them frequent and most rare, as detectors' are. The stage
``detections`` runs at a quarter of the images and at all of them, each in a process of its own;
a plain loop that counts by label and by every synset above it runs over the first 2,000 images.
Then the questions are asked of the larger database, head nodes included, with the file open and
through the door that ``tonics sql`` uses, which opens it anew.

    python benchmarks/detections.py
    python benchmarks/detections.py --images 3300000 --folder /a/large/disk
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
from measure import (
    Cost,
    compare,
    in_fresh_process,
    peak_bytes,
    print_heading,
    print_questions,
    print_table,
    timed,
)

from tonics.artifact import Manifest, Output
from tonics.features import FeatureStore, Regions
from tonics.features.grid import imagenet_vocabulary
from tonics.features.regions import MAX_ATTRIBUTES
from tonics.features.writer import write_index, write_shard
from tonics.ontology.wordnet import open_wordnet
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.graph import stages_of
from tonics.pipeline.stage import manifest_file

DIM, REGIONS, SHARD, PLAIN = 8, 36, 20_000, 2_000
QUESTIONS = {
    "images that show a dog": "FROM images_showing('dog.n.01') LIMIT 100",
    "images that show an entity (the root)": "FROM images_showing('entity.n.01') LIMIT 100",
    "how many show an entity": "SELECT count(*) FROM images_showing('entity.n.01')",
    "how many show an animal": "SELECT count(*) FROM images_showing('animal.n.01')",
    "the surest 100 of artifact": "FROM images_showing('artifact.n.01') "
    "ORDER BY score DESC LIMIT 100",
    "how large entities are": "SELECT avg(area), median(area) FROM images_showing('entity.n.01')",
    "labels of dog": "FROM labels_of('dog.n.01')",
    "labels of entity": "FROM labels_of('entity.n.01') LIMIT 100",
    "what an image shows": "FROM shown_in(17)",
    "the 100 synsets seen most": "FROM synsets ORDER BY images DESC, synset LIMIT 100",
    "labels never seen": "FROM labels WHERE images = 0 LIMIT 100",
}


def main() -> None:
    """Build twice, count plainly, then ask."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=123_000)
    parser.add_argument("--rounds", type=int, default=5, help="times each question is asked")
    parser.add_argument("--folder", type=Path, help="where to make the files")
    args = parser.parse_args()

    print_heading(__doc__, "duckdb", "numpy", "pyarrow")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        sizes = (args.images // 4, args.images)
        rows = [build_at(Path(folder) / str(size), size) for size in sizes]
        columns = ["images", "regions", "rows of seen", "CPU-s", "wall s", "peak MB", "file MB"]
        ratios = [[*row, round(row[3] / rows[0][3], 2)] for row in rows]
        print_table([*columns, "CPU-s over the first's"], ratios)
        plain = timed(partial(count_plainly, Path(folder) / str(sizes[0])))
        print_plain(plain, rows[-1][3] / rows[-1][0])
        ask(Path(folder) / str(args.images) / "detections.duckdb", args.rounds)


def build_at(folder: Path, size: int) -> list[float]:
    """Make a dataset of so many images and build its database; return a row of the table."""
    write_dataset(folder, size)
    cost, peak, counts = in_fresh_process(build, folder)
    file = (folder / "detections.duckdb").stat().st_size
    seconds = [round(cost.cpu_s, 1), round(cost.wall_s, 1)]
    megabytes = [round(peak / 1e6), round(file / 1e6)]
    return [size, size * REGIONS, counts["seen"], *seconds, *megabytes]


def build(folder: Path) -> tuple[Cost, int, dict[str, int]]:
    """Run the stage on a folder; return what it took, the peak and its counts."""
    made = []
    stage = stages_of(Dataset.open(folder))["detections"]
    (shard,) = stage.shards()
    stage.identity(shard)  # reads WordNet's files, once
    cost = timed(lambda: made.append(stage.make(shard)))
    return cost, peak_bytes(), dict(made[0].counts)


def write_dataset(folder: Path, size: int) -> None:
    """Write a feature store, and the manifest by which the stage knows it."""
    (folder / "features" / "grid").mkdir(parents=True)
    config = '[[ingest.sources]]\ncaptions = "none.jsonl"\n[features.grid]\n'
    (folder / "tonics.toml").write_text(config)
    dataset = Dataset.open(folder)
    store = dataset.features("grid")
    for number, start in enumerate(range(0, size, SHARD)):
        rows = make_rows(number, range(start, min(start + SHARD, size)))
        write_shard(store / f"{number:05d}.arrow", rows, dim=DIM)
    write_index(store, imagenet_vocabulary())
    Manifest(
        stage="extract/grid",
        shard="stage",
        identity={},
        outputs=(Output.of(dataset.root, store / "vocabulary.json"),),
        counts={"out": size, "content_hash": FeatureStore(store).content_hash},
    ).write(manifest_file(dataset, "extract/grid"))


def make_rows(seed: int, images: range) -> Iterator[tuple[int, Regions]]:
    """Invent regions: label k comes as often as 1 / (k + 10), k in an order drawn once."""
    rng, n = np.random.default_rng(seed), REGIONS
    weights = 1 / (np.arange(1000) + 10)
    frequent = np.random.default_rng(1).permutation(1000).astype(np.uint16)
    labels = frequent[rng.choice(1000, (len(images), n), p=weights / weights.sum())]
    scores = -np.sort(-rng.random((len(images), n), np.float32))
    corners = np.sort(rng.random((len(images), n, 2, 2), np.float32), axis=2) * [640, 480]
    boxes = corners.reshape(len(images), n, 4).astype(np.float32)
    features = np.zeros((n, DIM), np.float16)
    none = np.zeros((0, MAX_ATTRIBUTES), np.uint16), np.zeros((0, MAX_ATTRIBUTES), np.float16)
    for row, image in enumerate(images):
        yield image, Regions(
            features=features, boxes=boxes[row], labels=labels[row], scores=scores[row],
            attributes=none[0], attribute_scores=none[1], width=640, height=480,
        )  # fmt: skip


def count_plainly(folder: Path) -> None:
    """Count by image and label, and by image and synset above, region by region."""
    store, wordnet = FeatureStore(folder / "features" / "grid"), open_wordnet()
    above = [wordnet.ancestors(label.synset) for label in store.vocabulary.labels]
    labels: dict[tuple[int, int], list[float]] = defaultdict(lambda: [0, 0, 0])
    synsets: dict[tuple[str, int], list[float]] = defaultdict(lambda: [0, 0, 0])
    for image in range(PLAIN):
        regions = store[image]
        sides = regions.boxes[:, 2:] - regions.boxes[:, :2]
        areas = sides.prod(axis=1) / (regions.width * regions.height)
        rows = zip(regions.labels.tolist(), regions.scores.tolist(), areas.tolist(), strict=True)
        for label, score, area in rows:
            places = [labels[image, label], *(synsets[synset, image] for synset in above[label])]
            for place in places:
                place[:] = place[0] + 1, max(place[1], score), max(place[2], area)


def print_plain(plain: Cost, cpu_s_per_image: float) -> None:
    """Compare the stage with the plain loop, an image."""
    rate = plain.cpu_s / PLAIN
    rows = [
        ["the stage, all images, with the file", round(1e6 * cpu_s_per_image), 1.0],
        [
            f"plain loop, {PLAIN:,} images, no file",
            round(1e6 * rate),
            round(rate / cpu_s_per_image, 1),
        ],
    ]
    print_table(["counting", "CPU-us an image", "over the stage's"], rows)


def ask(file: Path, rounds: int) -> None:
    """Time the questions with the file open, and with a new connection each time."""
    with duckdb.connect(str(file), read_only=True) as con:
        calls = {q: lambda s=s: con.execute(s).fetchall() for q, s in QUESTIONS.items()}
        opened = compare(calls, rounds)
    anew = compare({q: lambda s=s: _ask_anew(file, s) for q, s in QUESTIONS.items()}, rounds)
    print_questions(opened, anew, limit_ms=50)


def _ask_anew(file: Path, sql: str) -> object:
    """Ask with a connection of its own."""
    with duckdb.connect(str(file), read_only=True) as con:
        return con.execute(sql).fetchall()


if __name__ == "__main__":
    main()
