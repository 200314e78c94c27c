"""Ways to keep features of images and read a planned batch of them: ours, files, libraries.

Every way writes the same features once, from one flat file, and reads a batch of image numbers into
the same reused memory, end to end in the order asked for. A library that is not installed is left
out, and said.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from regions import made_up_regions

from tonics.features import FeatureStore, RegionBuffer
from tonics.features.detector import Label, Vocabulary
from tonics.features.writer import write_index, write_shard

DIM, SHARDS = 2048, 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Data:
    """Features of N images in one flat file: image i owns rows ``starts[i]:starts[i + 1]``."""

    folder: Path
    starts: np.ndarray

    @classmethod
    def make(cls, folder: Path, counts: np.ndarray, rng: np.random.Generator) -> Data:
        """Write the flat file, and our store beside it."""
        data = cls(folder=folder, starts=np.concatenate([[0], np.cumsum(counts)]))
        (folder / "ours").mkdir()
        with data.file.open("wb") as flat:
            for number, images in enumerate(np.array_split(np.arange(len(counts)), SHARDS)):

                def rows(images: np.ndarray = images) -> Iterator[tuple[int, Any]]:
                    for image in images.tolist():
                        regions = made_up_regions(rng, int(counts[image]), DIM)
                        regions.features.tofile(flat)
                        yield image, regions

                write_shard(folder / "ours" / f"{number:05d}.arrow", rows(), dim=DIM)
        write_index(folder / "ours", Vocabulary(labels=(Label("thing"),)))
        return data

    @property
    def file(self) -> Path:
        """The flat file."""
        return self.folder / "flat"

    def features(self) -> np.ndarray:
        """All of it, mapped."""
        return np.memmap(self.file, np.float16, "r").reshape(-1, DIM)

    def rows(self, images: np.ndarray) -> np.ndarray:
        """Row numbers of a batch."""
        parts = [np.arange(self.starts[i], self.starts[i + 1]) for i in images]
        return np.concatenate(parts)

    def each(self) -> Iterator[tuple[int, bytes]]:
        """Every image's features as bytes."""
        flat = self.features()
        for image in range(len(self.starts) - 1):
            yield image, flat[self.starts[image] : self.starts[image + 1]].tobytes()


class Way:
    """A way to keep and read features; subclasses say how.

    Attributes:
        needs: the module of a library. planned: whether it reads the images it is asked for; else
            as many others.
        begin: how many bytes after a page the memory should begin that it copies to: a copy is
            fastest when both ends begin alike.
    """

    name: ClassVar[str]
    needs: ClassVar[str] = ""
    planned: ClassVar[bool] = True
    begin: ClassVar[int] = 0

    def __init__(self, data: Data) -> None:
        self.data = data
        self.place = data.folder / type(self).__name__.lower()

    def memory(self, rows: int) -> np.ndarray:
        """Memory for so many rows, touched already."""
        whole = np.zeros(rows * DIM * 2 + 8192, np.uint8)
        start = -whole.ctypes.data % 4096 + self.begin
        return whole[start : start + rows * DIM * 2].view(np.float16).reshape(-1, DIM)

    def write(self) -> None:
        """Write all features."""

    def open(self) -> None:
        """Get ready to read."""

    def read(self, images: np.ndarray, out: np.ndarray) -> int:
        """Fill ``out`` with a batch; return how many rows that are."""
        at = 0
        for part in self.parts(images):
            rows = np.frombuffer(part, np.float16).reshape(-1, DIM)
            out[at : at + len(rows)] = rows
            at += len(rows)
        return at

    def parts(self, images: np.ndarray) -> Iterator[Any]:
        """Yield each image's features as bytes."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of files and maps."""

    def files(self) -> list[Path]:
        """What it reads."""
        return [p for p in self.place.rglob("*") if p.is_file()]


class Ours(Way):
    name = "FeatureStore.gather"

    def open(self) -> None:
        self.store = FeatureStore(self.data.folder / "ours")

    def read(self, images: np.ndarray, out: np.ndarray) -> int:
        buffer = RegionBuffer(DIM, features=out)
        return len(self.store.gather(images, out=buffer).features)

    def close(self) -> None:
        del self.store

    def files(self) -> list[Path]:
        return list((self.data.folder / "ours").iterdir())


class Memmap(Way):
    name = "numpy memmap, np.take"

    def open(self) -> None:
        self.flat = self.data.features()

    def read(self, images: np.ndarray, out: np.ndarray) -> int:
        rows = self.data.rows(images)
        np.take(self.flat, rows, axis=0, out=out[: len(rows)], mode="clip")
        return len(rows)

    def close(self) -> None:
        del self.flat

    def files(self) -> list[Path]:
        return [self.data.file]


class Pread(Way):
    """One ``preadv`` an image into its place, from one or several threads."""

    def __init__(self, data: Data, threads: int = 1) -> None:
        super().__init__(data)
        self.threads = threads
        self.name = f"preadv, {threads} thread{'s' * (threads > 1)}"  # type: ignore[misc]

    def open(self) -> None:
        self.handle = os.open(self.data.file, os.O_RDONLY)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.handle, 0, 0, os.POSIX_FADV_RANDOM)
        self.pool = ThreadPoolExecutor(self.threads) if self.threads > 1 else None

    def read(self, images: np.ndarray, out: np.ndarray) -> int:
        counts = self.data.starts[images + 1] - self.data.starts[images]
        ends = np.cumsum(counts)
        spans = list(zip(images.tolist(), (ends - counts).tolist(), ends.tolist(), strict=True))
        if self.pool is None:
            self._read(spans, out)
        else:
            shares = [spans[k :: self.threads] for k in range(self.threads)]
            list(self.pool.map(lambda share: self._read(share, out), shares))
        return int(ends[-1])

    def _read(self, spans: Sequence[tuple[int, int, int]], out: np.ndarray) -> None:
        for image, start, stop in spans:
            part = out[start:stop].reshape(-1).view(np.uint8)
            at = int(self.data.starts[image]) * DIM * 2
            assert os.preadv(self.handle, [part], at) == len(part)

    def close(self) -> None:
        os.close(self.handle)
        if self.pool:
            self.pool.shutdown()

    def files(self) -> list[Path]:
        return [self.data.file]


class Lmdb(Way):
    name, needs, begin = "LMDB, buffers", "lmdb", 16  # the header of a page of values

    def write(self) -> None:
        with self._environment() as environment, environment.begin(write=True) as transaction:
            for image, part in self.data.each():
                transaction.put(image.to_bytes(8, "big"), part)

    def open(self) -> None:
        self.environment = self._environment(readonly=True, lock=False, readahead=False)

    def parts(self, images: np.ndarray) -> Iterator[Any]:
        with self.environment.begin(buffers=True) as transaction:
            for image in images.tolist():
                yield transaction.get(image.to_bytes(8, "big"))

    def close(self) -> None:
        self.environment.close()

    def _environment(self, **options: Any) -> Any:
        lmdb = importlib.import_module("lmdb")
        return lmdb.open(str(self.place), map_size=2 * self.data.file.stat().st_size, **options)


class HuggingFace(Way):
    name, needs = 'HF datasets, "arrow" format', "datasets"

    def write(self) -> None:
        datasets = importlib.import_module("datasets")
        datasets.disable_progress_bars()
        features = datasets.Features({"features": datasets.Value("large_binary")})
        made = datasets.Dataset.from_generator(
            lambda: ({"features": part} for _, part in self.data.each()),
            features=features,
            cache_dir=str(self.place / "cache"),
        )
        made.save_to_disk(self.place / "saved")

    def open(self) -> None:
        datasets = importlib.import_module("datasets")
        found = datasets.load_from_disk(self.place / "saved", keep_in_memory=False)
        self.rows = found.with_format("arrow")

    def parts(self, images: np.ndarray) -> Iterator[Any]:
        for value in self.rows[images.tolist()].column("features"):
            yield value.as_buffer()

    def close(self) -> None:
        del self.rows

    def files(self) -> list[Path]:
        return list((self.place / "saved").iterdir())


class WebDataset(Way):
    """Sequential: as many images as asked for, in the order they lie in."""

    name, needs, planned = "webdataset, in file order", "webdataset", False

    def write(self) -> None:
        webdataset = importlib.import_module("webdataset")
        self.place.mkdir()
        with webdataset.TarWriter(str(self.place / "00000.tar")) as writer:
            for image, part in self.data.each():
                writer.write({"__key__": f"{image:08d}", "bin": part})

    def open(self) -> None:
        webdataset = importlib.import_module("webdataset")
        url = str(self.place / "00000.tar")
        self.samples = iter(webdataset.WebDataset(url, shardshuffle=False).repeat())

    def parts(self, images: np.ndarray) -> Iterator[Any]:
        for _, sample in zip(images, self.samples, strict=False):
            yield sample["bin"]

    def close(self) -> None:
        self.samples.close()


class Mosaic(Way):
    name, needs = "MosaicML Streaming, LocalDataset", "streaming"

    def write(self) -> None:
        streaming = importlib.import_module("streaming")
        options: dict[str, Any] = {"columns": {"features": "bytes"}, "size_limit": 1 << 28}
        with streaming.MDSWriter(out=str(self.place), **options) as writer:
            for _, part in self.data.each():
                writer.write({"features": part})

    def open(self) -> None:
        local = importlib.import_module("streaming.base.local")
        self.rows = local.LocalDataset(str(self.place))

    def parts(self, images: np.ndarray) -> Iterator[Any]:
        for image in images.tolist():
            yield self.rows[image]["features"]

    def close(self) -> None:
        del self.rows


class Lance(Way):
    name, needs = "Lance, take", "lance"

    def write(self) -> None:
        import pyarrow as pa

        lance = importlib.import_module("lance")
        schema = pa.schema({"features": pa.large_binary()})
        batches = (
            pa.record_batch([pa.array([part], pa.large_binary())], schema=schema)
            for _, part in self.data.each()
        )
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        lance.write_dataset(reader, str(self.place), max_rows_per_group=64)

    def open(self) -> None:
        self.rows = importlib.import_module("lance").dataset(str(self.place))

    def parts(self, images: np.ndarray) -> Iterator[Any]:
        for value in self.rows.take(images.tolist(), columns=["features"]).column("features"):
            yield value.as_buffer()

    def close(self) -> None:
        del self.rows


LIBRARIES: tuple[type[Way], ...] = (Lmdb, HuggingFace, WebDataset, Mosaic, Lance)


def installed(say: Callable[[str], None] = print) -> list[type[Way]]:
    """The libraries that are here; says which are not."""
    found = []
    for way in LIBRARIES:
        try:
            importlib.import_module(way.needs)
            found.append(way)
        except ImportError as error:
            say(f"{way.name}: not measured ({error})")
    return found
