"""Extract: the images of a dataset become a feature store, ``features/NAME``."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa

from ...artifact import Manifest, atomic_file, hash_rows
from ...errors import ConfigError, InputError, StaleInput, TonicsError
from ...features import FeatureStore
from ...features.detector import FILE_SETTINGS, Detector, Undescribed, load_detector
from ...features.images import BadImage, image_exists, open_image
from ...features.regions import Regions
from ...features.schema import SHARD_VERSION
from ...features.writer import write_index, write_shard
from ..config import CONFIG_NAME, Features
from ..dataset import Dataset
from ..engines.machine import device_of, torch_threads
from ..stage import Estimate, Made, Reject, Shard, Stage, row_shards


class Batch(NamedTuple):
    """Decoded images and their rows: of so many ``taken``, all but the rejected."""

    taken: int
    rows: list[dict[str, Any]]
    images: list[Any]
    rejects: list[Reject]


class ExtractStage(Stage):
    """Runs a detector over the images; inputs are images."""

    kind: ClassVar[str] = "extract"
    format: ClassVar[int] = SHARD_VERSION
    renewable: ClassVar[frozenset[str] | None] = frozenset({"rows"})
    unit: ClassVar[str] = "images"
    uses_device: ClassVar[bool] = True

    @property
    def config(self) -> Features:
        """The section ``[features.NAME]``."""
        return self.dataset.config.features[self.name]

    @property
    def max_rejected(self) -> float:  # type: ignore[override]
        return self.config.max_rejected

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("ingest",)

    @property
    def folder(self) -> Path:
        return self.dataset.features(self.name)

    @cached_property
    def images(self) -> pa.Table:
        """images.parquet"""
        return self.dataset.images()

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the detector's numbers: not the device."""
        return self._detector_on("cpu").fingerprint()

    @property
    def _detector_identity(self) -> dict[str, Any]:
        return {"name": self.config.detector, **self.fingerprint}

    @property
    def detector(self) -> Detector:
        """The detector, loaded once a process."""
        return self._detector_on(device_of(self.dataset))

    def _detector_on(self, device: str) -> Detector:
        name, settings, files = self.config.detector, dict(self.config.settings), []
        for key in FILE_SETTINGS.get(name, ()):
            if isinstance(value := settings.get(key), str) and value:
                settings[key] = str(self.dataset.root / Path(value).expanduser())
                files.append(_look(settings[key]))
        try:
            return _detector(name, json.dumps(settings, sort_keys=True), device, tuple(files))
        except InputError as error:
            where = f"{self.dataset.root / CONFIG_NAME}: features.{self.name}: {error.where}"
            kind = type(error)
            raise kind(where, error.found, expected=error.expected, do=error.do) from error

    @property
    def estimate(self) -> Estimate:  # type: ignore[override]
        """The detector's general figures, for a CPU."""
        known = self._detector_on("cpu")
        return Estimate(cpu_s=known.cpu_s_per_image, bytes=known.bytes_per_image)

    def check(self) -> None:
        if not self.dataset.config.ingest.image_files and self.config.detector != "import":
            raise ConfigError(
                f"{self.dataset.root / CONFIG_NAME}: features.{self.name}.detector",
                f"value {self.config.detector!r} needs images, and ingest.image_files = false",
                expected="'import'",
                do="fill the set with 'tonics features import', or name the images in [ingest]",
            )
        assert self.fingerprint

    def shards(self) -> list[Shard]:
        return row_shards(self.images.num_rows, self.config.shard_images)

    def identity(self, shard: Shard) -> dict[str, Any]:
        start, stop = shard.work
        columns = ["image", "image_id", "content_hash"]
        return {
            "rows": hash_rows(self.images.slice(start, stop - start), columns),
            "detector": self._detector_identity,
            "settings": {
                "shard_images": self.config.shard_images,
                "max_pixels": self.dataset.config.ingest.max_pixels,
            },
        }

    def prepare(self) -> None:
        with torch_threads(1):
            assert getattr(self.detector, "model", self.detector)  # VinVL loads its weights here

    def make(self, shard: Shard) -> Made:
        start, stop = shard.work
        rows = self.images.slice(start, stop - start).to_pylist()
        present = [row for row in rows if row["content_hash"]]
        rejects: list[Reject] = []
        output = self.folder / f"{shard.name}.arrow"
        if self.detector.fingerprint() != self.fingerprint:
            do = "run the same command again"
            raise StaleInput(self.key, "the detector's files were replaced meanwhile", do=do)
        with torch_threads(1), atomic_file(output) as tmp:
            count = write_shard(tmp, self._detect(present, rejects), dim=self.detector.dim)
        withdrawn = len(rows) - len(present)
        ignored = {"withdrawn from the sources": withdrawn} if withdrawn else {}
        return Made(outputs=[output], rows=count, rejected=rejects, ignored=ignored)

    def _detect(
        self, rows: Sequence[dict[str, Any]], rejects: list[Reject]
    ) -> Iterator[tuple[int, Regions]]:
        """Decode and detect in batches that depend on the shard and the device alone."""
        batches = self._batches(rows, self.detector.batch_size)
        if device_of(self.dataset) != "cpu":
            batches = _one_ahead(batches)
        for batch in batches:
            answers = self._answers(batch) if batch.images else []
            for row, regions in zip(batch.rows, answers, strict=True):
                if regions is not None:
                    yield row["image"], regions
            rejects += batch.rejects
            self.advance(batch.taken, len(batch.rejects))

    def _batches(self, rows: Sequence[dict[str, Any]], size: int) -> Iterator[Batch]:
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            batch = Batch(len(some), [], [], [])
            for row in some:
                image = self._open(row, batch.rejects)
                if image is not None:
                    batch.rows.append(row)
                    batch.images.append(image)
            yield batch

    def _answers(self, batch: Batch) -> Sequence[Regions | None]:
        """Detect; images without usable numbers become rejects, not the end of the run."""
        try:
            return self.detector(batch.images)
        except Undescribed as error:
            for row, regions in zip(batch.rows, error.answers, strict=True):
                if regions is None:
                    batch.rejects.append(
                        Reject(where=row["image_id"], reason=error.reason, detail=error.do)
                    )
            return error.answers

    def _open(self, row: dict[str, Any], rejects: list[Reject]) -> Any:
        path = self.dataset.image_root / row["path"]
        try:
            return open_image(path, self.dataset.config.ingest.max_pixels)
        except BadImage as error:
            if not image_exists(path):
                do = "put it back, or run 'tonics ingest' if it is gone for good"
                raise InputError(path, "was there at ingest and is gone", do=do) from error
            rejects.append(Reject(where=row["image_id"], reason=error.reason, detail=str(error)))
            return None

    def tells_of_cost(self, made: Manifest) -> bool:
        return bool(made.identity.get("detector") == self._detector_identity)

    def merge(self, shards: Sequence[Manifest]) -> Made:
        rows = zip(
            self.images["image"].to_pylist(), self.images["image_id"].to_pylist(), strict=True
        )
        write_index(self.folder, self.detector.vocabulary, image_ids=dict(rows))
        store = FeatureStore(self.folder)
        regions = int(store.num_regions(store.images).sum())
        return Made(
            outputs=[self.folder / "index.arrow", self.folder / "vocabulary.json"],
            counts={"regions": regions, "dim": store.dim, "content_hash": store.content_hash},
        )


def load_store(dataset: Dataset, name: str) -> FeatureStore:
    """Open a feature set of the dataset.

    Raises:
        TonicsError: it has not been made.
    """
    folder = dataset.features(name)
    if not (folder / "index.arrow").exists():
        raise TonicsError(folder, "no feature store here", do=f"run 'tonics extract {name}'")
    return FeatureStore(folder)


def _one_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Decode the next batch while a GPU works on this one."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def _look(path: str) -> tuple[int, int] | None:
    """Size and time of a file: where they differ, it is to be loaded anew."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


@functools.lru_cache(maxsize=2)
def _detector(name: str, settings: str, device: str, files: tuple[object, ...]) -> Detector:
    """Load a detector once a process, as long as its files look the same."""
    return load_detector(name, json.loads(settings), device)
