"""Ingest and status of millions of pairs: CPU-seconds, and the most memory.

Makes up Conceptual Captions (``caption<TAB>url``, one caption an image), and measures, each in a
process of its own: ingest from nothing, status when nothing changed, ingest when a thousand rows
were appended and a thousand captions edited (so that all numbers are matched with those there are),
and the same from a parquet table. There are no image files: what is measured is what ingest does
with rows. With ``--tars`` it also writes tars of so many tiny images and reads them in place.

    python benchmarks/ingest.py                    # 3.3 million pairs, some minutes
    python benchmarks/ingest.py --pairs 300000 --tars 20000
"""

from __future__ import annotations

import argparse
import io
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import measure
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tonics.pipeline.dataset import Dataset
from tonics.pipeline.runner import bring_up_to_date
from tonics.pipeline.stages.ingest import IngestStage
from tonics.pipeline.status import dataset_status

WORDS = ["a", "the", "dog", "person", "with", "red", "on", "beach", "under", "actor", "sky", "new"]
IN_A_TAR = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3_300_000)
    parser.add_argument("--tars", type=int, default=0, help="images to write into tars")
    asked = parser.parse_args()
    measure.print_heading(__doc__, "pyarrow", "numpy")
    folder = Path(tempfile.mkdtemp(prefix="ingest-"))
    rows: list[list[object]] = []
    try:
        rows += [["conceptual", *row] for row in measure_table(folder / "tsv", asked.pairs, "tsv")]
        rows += [["parquet", *row] for row in measure_table(folder / "pq", asked.pairs, "parquet")]
        if asked.tars:
            rows += [["tars", *row] for row in measure_tars(folder / "tars", asked.tars)]
    finally:
        shutil.rmtree(folder)
    measure.print_table(["source", "what", "pairs", "CPU-s", "wall s", "peak MB"], rows)


def measure_table(root: Path, pairs: int, kind: str) -> Iterator[list[object]]:
    """Ingest a table, ask for its status, change it, ingest it again."""
    file = root / f"train.{kind}"
    write_config(root, file.name, 'columns = { image = "", image_id = "url" }')
    write_table(file, pairs)
    yield ["ingest from nothing", *run(ingest, root)]
    yield ["status, nothing changed", *run(status, root)]
    write_table(file, pairs + 1_000, edited=1_000)
    yield ["ingest after changes", *run(ingest, root)]


def measure_tars(root: Path, images: int) -> Iterator[list[object]]:
    """Read tars in place, then ask for their status."""
    write_config(root, "tars/*.tar", "", more='image_root = "tars"')
    write_tars(root / "tars", images)
    yield ["ingest from nothing", *run(ingest, root)]
    yield ["status, nothing changed", *run(status, root)]


def run(what: object, root: Path) -> list[object]:
    return measure.in_fresh_process(measured, what, root, OMP_NUM_THREADS="2")


def measured(what: object, root: Path) -> list[object]:
    """Call ``what``; pairs, CPU-seconds, wall seconds and the most memory, in MB."""
    pairs = 0

    def call() -> None:
        nonlocal pairs
        pairs = what(root)  # type: ignore[operator]

    cost = measure.timed(call)
    peak = round(measure.peak_bytes() / 1e6)
    return [pairs, round(cost.cpu_s, 1), round(cost.wall_s, 1), peak]


def ingest(root: Path) -> int:
    report = bring_up_to_date(IngestStage(Dataset.open(root)), workers=1)
    assert not report.fresh
    return int(report.counts["out"])


def status(root: Path) -> int:
    (row,) = [row for row in dataset_status(Dataset.open(root)) if row["stage"] == "ingest"]
    assert row["state"] == "done", row
    return int(row["out"])


def write_config(root: Path, captions: str, source: str, more: str = "image_files = false") -> None:
    root.mkdir(parents=True)
    lines = ["[ingest]", more, "[[ingest.sources]]", f'captions = "{captions}"', source]
    (root / "tonics.toml").write_text("\n".join(lines) + "\n")


def write_table(path: Path, pairs: int, edited: int = 0) -> None:
    """Captions of eight to fifteen words; the first ``edited`` are others than before."""
    words = np.array(WORDS)
    lengths = np.random.default_rng(0).integers(8, 16, pairs)
    drawn = iter(words[np.random.default_rng(1).integers(0, len(words), lengths.sum())].tolist())
    captions = [
        " ".join(next(drawn) for _ in range(length)) + f" {n}{' now' if n < edited else ''}"
        for n, length in enumerate(lengths.tolist())
    ]
    urls = [f"http://images.example.org/2014/{n % 977:03d}/photo-{n:09d}.jpg" for n in range(pairs)]
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"url": urls, "caption": captions}), path)
    else:
        lines = (f"{c}\t{u}\n" for c, u in zip(captions, urls, strict=True))
        path.write_text("".join(lines), encoding="utf-8")


def write_tars(folder: Path, images: int) -> None:
    """Tars as img2dataset writes them, of images that differ in a few pixels."""
    from PIL import Image

    folder.mkdir()
    for start in range(0, images, IN_A_TAR):
        with tarfile.open(folder / f"{start // IN_A_TAR:05d}.tar", "w") as tar:
            for n in range(start, min(start + IN_A_TAR, images)):
                file = io.BytesIO()
                Image.new("RGB", (64, 64), (n % 256, n // 256 % 256, n // 65536)).save(file, "JPEG")
                caption = f"a photo of number {n}"
                for end, data in (
                    ("jpg", file.getvalue()),
                    ("txt", caption.encode()),
                    ("json", f'{{"caption": "{caption}", "key": "{n:09d}"}}'.encode()),
                ):
                    info = tarfile.TarInfo(f"{n:09d}.{end}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


if __name__ == "__main__":
    main()
