"""Ingest: caption files and image headers become ``images.parquet`` and ``pairs.parquet``.

The shards probe images (header, size, hash of the file's bytes); the merge numbers images and
pairs. Numbers are given once: rows that were there keep theirs, new ones are appended, and a row
that left its source stays (``--rebuild ingest`` numbers afresh).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from ...artifact import Manifest, hash_file, hash_strings
from ...errors import ConfigError, InputError
from ..config import Splits
from ..dataset import IMAGES_SCHEMA, PAIRS_SCHEMA, caption_hash, read_table, write_table
from ..sources import Captioned, read_captions
from ..stage import Estimate, Made, Reject, Shard, Stage, by_reason, check_rejects

SHARD_IMAGES = 5_000
_PROBE_SCHEMA = pa.schema([field for field in IMAGES_SCHEMA if field.name != "image"])
_SPLITS = {
    "restval": "train",  # Karpathy's name for the COCO validation images he trains on
    "training": "train",
    "dev": "val",
    "valid": "val",
    "validation": "val",
    "testing": "test",
}


class IngestStage(Stage):
    """Reads the sources of ``[ingest]``; inputs are captions."""

    kind: ClassVar[str] = "ingest"
    estimate: ClassVar[Estimate] = Estimate(cpu_s=0.0005, bytes=120)

    @property
    def max_rejected(self) -> float:  # type: ignore[override]
        return self.dataset.config.ingest.max_rejected

    @property
    def folder(self) -> Path:
        return self.dataset.state / "probed"

    @property
    def places(self) -> tuple[Path, ...]:
        return (self.folder, self.dataset.images_file, self.dataset.pairs_file)

    @cached_property
    def captions(self) -> list[Captioned]:
        """All rows of all sources, in order, with image paths relative to image_root."""
        config = self.dataset.config.ingest
        if not config.sources:
            raise ConfigError(
                self.dataset.root / "tonics.toml",
                "no [[ingest.sources]]",
                expected="at least one caption file",
                do="add one: [[ingest.sources]] captions = 'captions.json'",
            )
        if not self.dataset.image_root.is_dir():
            raise InputError(
                self.dataset.image_root,
                "no such image folder",
                do="check ingest.image_root in tonics.toml",
            )
        rows = [row for source in config.sources for row in self._read(source)]
        if not rows:
            raise InputError(config.sources[0].captions, "no captions in it")
        return rows

    def _read(self, source: Any) -> Iterator[Captioned]:
        folder = source.images.strip("/")
        for row in read_captions(self.dataset.root / source.captions, source):
            path = f"{folder}/{row.path}" if folder and row.path else row.path
            yield Captioned(
                image_id=row.image_id,
                path=path,
                caption=row.caption,
                split=row.split or source.split,
                where=row.where,
                problem=row.problem or _bad_name(f"{row.image_id}{path}"),
            )

    @cached_property
    def paths(self) -> dict[str, str]:
        """The path of every image id, in order of first appearance."""
        found: dict[str, str] = {}
        for row in self.captions:
            if not row.problem:
                found.setdefault(row.image_id, row.path)
        return found

    def shards(self) -> list[Shard]:
        images = list(self.paths.items())
        return [
            Shard(name=f"{i:05d}", rows=len(part), work=part)
            for i, start in enumerate(range(0, len(images), SHARD_IMAGES))
            for part in [images[start : start + SHARD_IMAGES]]
        ]

    def identity(self, shard: Shard) -> dict[str, Any]:
        seen = (f"{image_id}\0{path}\0{_stamp(self._file(path))}" for image_id, path in shard.work)
        max_pixels = self.dataset.config.ingest.max_pixels
        return {"files": hash_strings(seen), "settings": {"max_pixels": max_pixels}}

    def make(self, shard: Shard) -> Made:
        probed = [self._probe(image_id, path) for image_id, path in shard.work]
        rows = [row for row in probed if not isinstance(row, Reject)]
        rejects = [row for row in probed if isinstance(row, Reject)]
        output = self.folder / f"{shard.name}.parquet"
        write_table(output, pa.Table.from_pylist(rows, schema=_PROBE_SCHEMA))
        return Made(outputs=[output], rows=len(rows), rejected=rejects)

    def _probe(self, image_id: str, path: str) -> dict[str, Any] | Reject:
        from ...features.images import BadImage, probe_image

        root, file = self.dataset.image_root, self._file(path)
        if not file.resolve().is_relative_to(root.resolve()):
            return Reject(where=image_id, reason="path leaves the image folder", detail=path)
        if not os.path.isfile(file):  # False as well where the name is too long to exist
            return Reject(where=image_id, reason="image not found", detail=path)
        try:
            width, height = probe_image(file, self.dataset.config.ingest.max_pixels)
        except BadImage as error:
            return Reject(where=image_id, reason=error.reason, detail=str(error))
        return {
            "image_id": image_id,
            "path": path,
            "width": width,
            "height": height,
            "bytes": file.stat().st_size,
            "content_hash": hash_file(file),
        }

    def _file(self, path: str) -> Path:
        return self.dataset.image_root / path

    def merge_identity(self) -> dict[str, Any]:
        config = self.dataset.config.ingest
        names = [source.captions for source in config.sources]
        files = {name: self.dataset.root / name for name in names}
        return {
            "caption_files": {n: hash_file(file) for n, file in files.items() if file.is_file()},
            "settings": config.model_dump(mode="json", exclude={"max_rejected"}),
        }

    def merge(self, shards: Sequence[Manifest]) -> Made:
        if not (self.dataset.images_file.exists() and self.dataset.pairs_file.exists()):
            self.discard()  # the numbers of one table mean nothing without the other
        images = self._number_images(shards)
        pairs, rejects, kept = self._number_pairs(images)
        check_rejects(self, len(self.captions), by_reason(rejects))
        write_table(self.dataset.images_file, images)
        write_table(self.dataset.pairs_file, pairs)
        splits = Counter(pairs.column("split").to_pylist())
        return Made(
            outputs=[self.dataset.images_file, self.dataset.pairs_file],
            rows=pairs.num_rows,
            rejected=rejects,
            counts={
                "in": len(self.captions),
                "images": images.num_rows,
                "no_longer_in_sources": kept,
                "splits": dict(sorted(splits.items())),
            },
        )

    def discard(self) -> None:
        self.dataset.images_file.unlink(missing_ok=True)
        self.dataset.pairs_file.unlink(missing_ok=True)

    def _number_images(self, shards: Sequence[Manifest]) -> pa.Table:
        files = [o.path for m in shards for o in m.outputs if o.path.startswith(".tonics/")]
        probed = [pq.read_table(self.dataset.root / f).cast(_PROBE_SCHEMA) for f in files]
        rows = {row["image_id"]: row for table in probed for row in table.to_pylist()}
        old = _existing(self.dataset.images_file, IMAGES_SCHEMA)
        numbered = [rows.pop(row["image_id"], row) for row in old]
        numbered += rows.values()
        return pa.Table.from_pylist(
            [{**row, "image": number} for number, row in enumerate(numbered)], schema=IMAGES_SCHEMA
        )

    def _number_pairs(self, images: pa.Table) -> tuple[pa.Table, list[Reject], int]:
        rows = {row["pair_key"]: row for row in _existing(self.dataset.pairs_file, PAIRS_SCHEMA)}
        before = set(rows)
        rejects, seen = [], set()
        for row in self._pairs(images):
            if isinstance(row, Reject):
                rejects.append(row)
                continue
            seen.add(row["pair_key"])
            rows[row["pair_key"]] = {**row, "pair": rows.get(row["pair_key"], {}).get("pair")}
        for number, row in enumerate(rows.values()):
            row["pair"] = number
        table = pa.Table.from_pylist(list(rows.values()), schema=PAIRS_SCHEMA)
        return table, rejects, len(before - seen)

    def _pairs(self, images: pa.Table) -> Iterator[dict[str, Any] | Reject]:
        """Yield a pair or a reject for every caption, in source order."""
        number = dict(zip(images["image_id"].to_pylist(), images["image"].to_pylist(), strict=True))
        hashes = images["content_hash"].to_pylist()
        split_of: dict[str, str] = {}
        positions: Counter[str] = Counter()
        said: set[tuple[str, str]] = set()
        for row in self.captions:
            caption = row.caption.strip()
            position = positions[row.image_id]
            positions[row.image_id] += 1
            key = f"{row.image_id}#{position}"
            problem = self._problem(row, caption, row.image_id in number)
            if not problem and (row.image_id, caption) in said:
                problem = "caption repeated for its image"
            if problem:
                where = key if row.image_id else row.where
                yield Reject(where=where, reason=problem, detail=f"{row.where}: {row.path}")
                continue
            said.add((row.image_id, caption))
            image = number[row.image_id]
            if row.image_id not in split_of:
                split_of[row.image_id] = self._split(row.split, hashes[image])
            yield {
                "pair_key": key,
                "image": image,
                "caption": caption,
                "split": split_of[row.image_id],
                "caption_hash": caption_hash(caption),
            }

    def _problem(self, row: Captioned, caption: str, has_image: bool) -> str:
        limit = self.dataset.config.ingest.max_caption_chars
        if row.problem:
            return row.problem
        if _has_surrogates(caption):
            return "not UTF-8"
        if not caption:
            return "empty caption"
        if len(caption) > limit:
            return f"caption longer than {limit} characters"
        if self.paths[row.image_id] != row.path:
            return "image id listed twice"
        return "" if has_image else "its image was rejected"

    def _split(self, said: str, content_hash: str) -> str:
        if said:
            return _SPLITS.get(said.strip().lower(), said.strip().lower())
        return split_by_hash(content_hash, self.dataset.config.ingest.splits)


def split_by_hash(content_hash: str, splits: Splits) -> str:
    """Choose a split from an image's content, so that copies of it stay on one side.

    >>> split_by_hash("00" * 16, Splits(test=0.1)), split_by_hash("ff" * 16, Splits(test=0.1))
    ('test', 'train')
    """
    at = int(content_hash[:13], 16) / 16**13
    if at < splits.test:
        return "test"
    return "val" if at < splits.test + splits.val else "train"


def _bad_name(name: str) -> str:
    """Say why no file can have a name, or nothing."""
    if _has_surrogates(name):
        return "not UTF-8"
    return "not a file name" if "\0" in name else ""


def _has_surrogates(text: str) -> bool:
    """Whether a text held bytes that are not UTF-8 (or half a character, in JSON)."""
    return any("\ud800" <= c <= "\udfff" for c in text)


def _existing(path: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    return read_table(path, schema).to_pylist() if path.exists() else []


def _stamp(file: Path) -> str:
    """Size and time of change: what tells that a file must be read again."""
    try:
        stat = file.stat()
    except OSError:
        return "absent"
    return f"{stat.st_size} {stat.st_mtime_ns}"
