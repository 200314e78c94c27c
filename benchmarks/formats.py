"""Importing feature files beside reading them and decoding their base64, nothing else.

    python benchmarks/formats.py [--images 1000] [--rounds 3] [--folder DIR]

Columns: MB of the file a CPU-second, and CPU-seconds over those of the plain loop of the same
round. An import finds the images, decodes, checks, rounds to float16, hashes, writes and indexes;
"survey" is the part of it that goes through the file to find the images. Then the most memory a
process takes for the import of all, and of a quarter of the file.
"""

from __future__ import annotations

import argparse
import binascii
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import compare, in_fresh_process, median_cpu, peak_bytes, print_heading, print_table
from measure import ratio as ratio_of

from tonics.features.regions import Regions
from tonics.pipeline.dataset import IMAGES_SCHEMA, Dataset
from tonics.pipeline.feature_files import Wanted
from tonics.pipeline.importing import survey_files
from tonics.pipeline.progress import Progress
from tonics.pipeline.runner import bring_up_to_date
from tonics.pipeline.surveyor import make_survey

REGIONS, DIM, WIDTH, HEIGHT = 36, 2048, 640, 480
LABELS = [f"label {k}" for k in range(1594)]
CONFIG = '[features.imported]\ndetector = "import"\n'
_BASE64 = re.compile(rb"[A-Za-z0-9+/=]{1000,}")


def main() -> None:
    """Write files of three families, then measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where to write; temporary")
    options = parser.parse_args()
    print_heading(__doc__, "numpy", "pyarrow")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        (folder / "vocabulary.txt").write_text("\n".join(LABELS))
        rows = [
            row
            for family, lines in FAMILIES.items()
            for row in _measure(folder, family, lines, options.images, options.rounds)
        ]
    columns = ["family", "what", "MB/CPU-s", "CPU-s over plain loop", "peak MB", "quarter, MB"]
    print_table(columns, rows)


def _measure(
    folder: Path, family: str, lines: Callable[[int], Iterator[bytes]], images: int, rounds: int
) -> Iterator[list[object]]:
    file = folder / family / "features.tsv"
    file.parent.mkdir()
    with file.open("wb") as out:
        out.writelines(lines(images))
    dataset = _dataset(folder / f"{family}-dataset", images)
    contenders: dict[str, Callable[[], object]] = {
        "read + base64": lambda: _plain(file),
        "survey": lambda: _survey(dataset, file),
        "import": lambda: _import(dataset, file),
    }
    costs, size = compare(contenders, rounds), file.stat().st_size / 1e6
    peak = in_fresh_process(_peak, dataset, file)
    quarter = file.with_name("quarter.tsv")
    quarter.write_bytes(b"".join(lines(images // 4)))
    less = in_fresh_process(_peak, dataset, quarter)
    for what, cost in costs.items():
        memory = [round(peak / 1e6), round(less / 1e6)] if what == "import" else [None, None]
        relative = ratio_of(cost, costs["read + base64"])
        yield [family, what, round(size / median_cpu(cost)), relative, *memory]
    shutil.rmtree(file.parent)
    shutil.rmtree(dataset.root)


def _dataset(root: Path, images: int) -> Dataset:
    """A dataset folder with numbered images, and nothing else."""
    root.mkdir()
    (root / "tonics.toml").write_text(CONFIG)
    ids = [str(number) for number in range(images)]
    columns = {
        "image": range(images),
        "image_id": ids,
        "path": ids,
        "width": [WIDTH] * images,
        "height": [HEIGHT] * images,
        "bytes": [1] * images,
        "content_hash": ids,
    }
    pq.write_table(pa.table(columns, schema=IMAGES_SCHEMA), root / "images.parquet")
    return Dataset.open(root)


def _plain(file: Path) -> None:
    with file.open("rb", buffering=1 << 20) as source:
        for line in source:
            for text in _BASE64.findall(line) if line[:64].count(b"{") else line.split(b"\t"):
                if len(text) > 1000:
                    binascii.a2b_base64(text)


def _wanted(file: Path) -> Wanted:
    named = file.parent.name == "scene_graph"
    return Wanted(files=(file,), vocabulary=file.parents[1] / "vocabulary.txt" if named else None)


def _survey(dataset: Dataset, file: Path) -> None:
    make_survey(dataset, "imported", _wanted(file), None, Progress(quiet=True))


def _import(dataset: Dataset, file: Path) -> None:
    shutil.rmtree(dataset.root / ".tonics", ignore_errors=True)
    shutil.rmtree(dataset.root / "features", ignore_errors=True)
    stage = survey_files(dataset, "imported", _wanted(file), quiet=True)
    bring_up_to_date(stage, workers=1, progress=Progress(quiet=True))


def _peak(dataset: Dataset, file: Path) -> int:
    _import(dataset, file)
    return peak_bytes()


def _regions(images: int) -> Iterator[tuple[bytes, Regions]]:
    """Made-up regions, the same few over and over."""
    rng = np.random.default_rng(0)
    corners = np.sort(rng.random((REGIONS, 2, 2)), axis=1).reshape(REGIONS, 4)
    none = np.zeros((0, 16))
    for number in range(images):
        yield (
            str(number).encode(),
            Regions(
                features=rng.random((REGIONS, DIM), np.float32),
                boxes=(corners * [WIDTH, HEIGHT, WIDTH, HEIGHT]).astype("<f4"),
                labels=rng.integers(0, len(LABELS), REGIONS),
                scores=np.linspace(1, 0.2, REGIONS, dtype="<f4"),
                attributes=none,
                attribute_scores=none,
                width=WIDTH,
                height=HEIGHT,
            ),
        )


def _base64(values: np.ndarray) -> bytes:
    return binascii.b2a_base64(np.ascontiguousarray(values, "<f4").data, newline=False)


def _oscar(images: int) -> Iterator[bytes]:
    for key, one in _regions(images):
        values = np.concatenate([one.features, one.geometry], axis=1)
        yield b"%s\t%d\t%s\n" % (key, len(one), _base64(values))


def _bottom_up(images: int) -> Iterator[bytes]:
    for key, one in _regions(images):
        cells = (key, WIDTH, HEIGHT, len(one), _base64(one.boxes), _base64(one.features))
        yield b"%s\t%d\t%d\t%d\t%s\t%s\n" % cells


def _scene_graph(images: int) -> Iterator[bytes]:
    for key, one in _regions(images):
        objects = [
            {
                "rect": [float(value) for value in one.boxes[k]],
                "bbox_id": k,
                "class": LABELS[one.labels[k]],
                "conf": float(one.scores[k]),
                "feature": _base64(one.features[k]).decode(),
            }
            for k in range(len(one))
        ]
        yield b"%s\t%s\n" % (key, json.dumps({"objects": objects, "relations": None}).encode())


FAMILIES: dict[str, Callable[[int], Iterator[bytes]]] = {
    "oscar": _oscar,
    "scene_graph": _scene_graph,
    "bottom_up": _bottom_up,
}

if __name__ == "__main__":
    main()
