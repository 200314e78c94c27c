"""Ingest: caption files and image headers become ``images.parquet`` and ``pairs.parquet``.

The shards probe images (header, size, hash of the file's bytes); the merge numbers images and
pairs. Numbers are given once (``numbering.py``); ``--rebuild ingest`` numbers afresh.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from ...artifact import Manifest, hash_file, hash_strings
from ...errors import ConfigError, InputError
from ..config import Splits
from ..dataset import IMAGES_SCHEMA, PAIRS_SCHEMA, read_table, write_table
from ..numbering import Caption, number_images, number_pairs
from ..sources import NO_CAPTION, Captioned, read_captions
from ..stage import (
    Estimate,
    Made,
    Reject,
    Shard,
    Stage,
    add_counts,
    by_reason,
    check_rejects,
    write_rejects,
)

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
    format: ClassVar[int] = 2  # 2: rows that left their source are in no split
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
    def caption_files(self) -> dict[str, str]:
        """Hashes of the caption files, taken before any of them is read.

        A file that is edited while we read it must be read again the next time.
        """
        names = [source.captions for source in self.dataset.config.ingest.sources]
        files = {name: self.dataset.root / name for name in names}
        return {name: hash_file(file) for name, file in files.items() if file.is_file()}

    @cached_property
    def rows(self) -> list[Captioned]:
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
        _ = self.caption_files  # hashed first
        return [row for source in config.sources for row in self._read(source)]

    @cached_property
    def captions(self) -> list[Captioned]:
        """The rows that are captions, or should have been."""
        found = [row for row in self.rows if row.problem != NO_CAPTION]
        if not found:
            file = self.dataset.root / self.dataset.config.ingest.sources[0].captions
            raise InputError(file, "no captions in it")
        return found

    @property
    def without_caption(self) -> int:
        """How many images the sources list and say nothing about."""
        listed = {row.image_id for row in self.rows if row.problem == NO_CAPTION}
        return len(listed.difference(row.image_id for row in self.captions))

    def _read(self, source: Any) -> Iterator[Captioned]:
        folder = source.images.strip("/")
        for row in read_captions(self.dataset.root / source.captions, source):
            path = f"{folder}/{row.path}" if folder and row.path else row.path
            yield Captioned(
                image_id=row.image_id,
                path=path,
                caption=row.caption,
                split=row.split.strip() or source.split,
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
        return {
            "caption_files": self.caption_files,
            "settings": config.model_dump(mode="json", exclude={"max_rejected"}),
        }

    def merge(self, shards: Sequence[Manifest]) -> Made:
        images = self._number_images(shards)
        captions, rejects, refused = self._judge(images)
        write_rejects(self.dataset, self.key, "stage", rejects)
        check_rejects(self, len(self.captions), by_reason(rejects))
        old = _existing(self.dataset.pairs_file, PAIRS_SCHEMA)
        pairs = number_pairs(old, captions, refused)
        write_table(self.dataset.images_file, images)
        write_table(self.dataset.pairs_file, pairs)
        ignored = self.without_caption
        return Made(
            outputs=[self.dataset.images_file, self.dataset.pairs_file],
            rejected=rejects,
            ignored={NO_CAPTION: ignored} if ignored else {},
            counts={
                "in": len(self.captions),
                "out": len(captions),
                "rejected": by_reason(rejects),
                "images": {
                    "in": sum(m.counts["in"] for m in shards),
                    "out": sum(m.counts["out"] for m in shards),
                    "rejected": add_counts(m.counts["rejected"] for m in shards),
                },
                "splits": dict(sorted(Counter(c.split for c in captions).items())),
                **_withdrawn(
                    images.num_rows - sum(m.counts["out"] for m in shards),
                    pairs.num_rows - len(captions),
                ),
            },
        )

    def discard(self) -> None:
        self.dataset.images_file.unlink(missing_ok=True)
        self.dataset.pairs_file.unlink(missing_ok=True)

    def _number_images(self, shards: Sequence[Manifest]) -> pa.Table:
        if self.dataset.pairs_file.exists() and not self.dataset.images_file.exists():
            raise InputError(
                self.dataset.images_file,
                "is gone, and pairs.parquet speaks of its image numbers",
                do="restore it; or number images and pairs afresh: 'tonics run --rebuild ingest'",
            )
        files = [o.path for m in shards for o in m.outputs if o.path.startswith(".tonics/")]
        probed = [pq.read_table(self.dataset.root / f).cast(_PROBE_SCHEMA) for f in files]
        rows = [row for table in probed for row in table.to_pylist()]
        return number_images(_existing(self.dataset.images_file, IMAGES_SCHEMA), rows)

    def _judge(self, images: pa.Table) -> tuple[list[Caption], list[Reject], dict[str, set[int]]]:
        """Accept or reject every caption, in source order; with the rejected ones' positions."""
        active = {row["image_id"]: row for row in images.to_pylist() if row["path"]}
        splits = self._splits(active)
        captions: list[Caption] = []
        rejects: list[Reject] = []
        refused: dict[str, set[int]] = {}
        positions: Counter[str] = Counter()
        said: set[tuple[str, str]] = set()
        for row in self.captions:
            text, position = row.caption.strip(), positions[row.image_id]
            positions[row.image_id] += 1
            problem = self._problem(row, text, row.image_id in active)
            if not problem and (row.image_id, text) in said:
                problem = "caption repeated for its image"
            if problem:
                where = f"{row.image_id}#{position}" if row.image_id else row.where
                detail = f"{row.where}: {row.path}"
                rejects.append(Reject(where=where, reason=problem, detail=detail))
                refused.setdefault(row.image_id, set()).add(position)
                continue
            said.add((row.image_id, text))
            captions.append(
                Caption(
                    image_id=row.image_id,
                    image=active[row.image_id]["image"],
                    position=position,
                    text=text,
                    split=splits[row.image_id],
                )
            )
        return captions, rejects, refused

    def _splits(self, active: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """The one split of every image: the first that a source says, else by content."""
        found: dict[str, str] = {}
        for row in self.captions:
            said = row.split.strip().lower()
            if said and not row.problem and self.paths[row.image_id] == row.path:
                found.setdefault(row.image_id, _SPLITS.get(said, said))
        shares = self.dataset.config.ingest.splits
        by_content = {
            image_id: split_by_hash(row["content_hash"], shares)
            for image_id, row in active.items()
            if image_id not in found
        }
        return found | by_content

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


def _withdrawn(images: int, pairs: int) -> dict[str, Any]:
    """The counts of what is withdrawn, and a sentence for whoever runs the stage."""
    counts: dict[str, Any] = {"withdrawn_images": images, "withdrawn_pairs": pairs}
    named = [
        f"{n:,} {noun}{'' if n == 1 else 's'}"
        for n, noun in ((images, "image"), (pairs, "pair"))
        if n
    ]
    if named:
        verb = "is" if images + pairs == 1 else "are"
        told = f"{', '.join(named)} {verb} no longer in the sources: withdrawn, "
        counts["notes"] = [told + f"{'its number' if verb == 'is' else 'their numbers'} kept"]
    return counts


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
