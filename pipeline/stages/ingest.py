"""Ingest: caption files and image headers become ``images.parquet`` and ``pairs.parquet``.

The shards probe images (header, size, hash of the file's bytes), 5,000 at a time; a tar is a shard
of its own, which is read once for its captions and its images. The merge numbers images and pairs.
Numbers are given once (``numbering.py``); ``--rebuild ingest`` numbers afresh.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...artifact import Manifest, hash_bytes, hash_file, hash_rows
from ...errors import ConfigError, InputError
from ..config import CONFIG_NAME, Source
from ..dataset import IMAGES_SCHEMA, PAIRS_SCHEMA, read_table, write_table
from ..judging import Judged, judge
from ..numbering import number_images, number_pairs
from ..sources import (
    NEVER_DOWNLOADED,
    NO_CAPTION,
    find_files,
    format_of,
    read_captions,
    read_webdataset,
)
from ..sources.listing import ROWS_SCHEMA, Kept, Listed, Reading, tabulate
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

Row = dict[str, Any]  # of _PROBE_SCHEMA

SHARD_IMAGES = 5_000
TAR_BYTES_AN_IMAGE = 50_000  # a guess, for progress only
# an image that was never downloaded has no content hash
_PROBE_SCHEMA = pa.schema([field for field in IMAGES_SCHEMA if field.name != "image"])


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionFile:
    """A caption file of a source. ``name`` is what messages and manifests call it."""

    path: Path
    name: str
    source: Source
    is_tar: bool
    reading: Reading


class ImageList:
    """Images to be probed: id, path and whether they may be absent; small when pickled."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __len__(self) -> int:
        return self.table.num_rows

    def __iter__(self) -> Iterator[tuple[str, str, bool]]:
        columns = ("image_id", "path", "optional")
        return zip(*(self.table.column(c).to_pylist() for c in columns), strict=True)

    def __reduce__(self) -> tuple[object, ...]:  # a slice would be pickled with all of its table
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.table.schema) as writer:
            writer.write_table(self.table)
        return (_unpickle, (sink.getvalue().to_pybytes(),))


def _unpickle(data: bytes) -> ImageList:
    return ImageList(pa.ipc.open_stream(data).read_all())


class IngestStage(Stage):
    """Reads the sources of ``[ingest]``; inputs are captions."""

    kind: ClassVar[str] = "ingest"
    format: ClassVar[int] = 3  # 3: images may be members of tars, or absent
    estimate: ClassVar[Estimate] = Estimate(cpu_s=0.0005, bytes=120)

    @property
    def max_rejected(self) -> float:  # type: ignore[override]
        return self.dataset.config.ingest.max_rejected

    @property
    def folder(self) -> Path:
        return self.dataset.state / "probed"

    @property
    def places(self) -> tuple[Path, ...]:
        tables = (self.dataset.images_file, self.dataset.pairs_file)
        return (self.folder, self._kept.folder, *tables)

    # -- what there is to read

    @cached_property
    def files(self) -> list[CaptionFile]:
        """All caption files, in order."""
        config = self.dataset.config.ingest
        if not config.sources:
            raise ConfigError(
                self.dataset.root / CONFIG_NAME,
                "no [[ingest.sources]]",
                expected="at least one caption file",
                do="add one: [[ingest.sources]] captions = 'captions.json'",
            )
        if config.image_files and not self.dataset.image_root.is_dir():
            raise InputError(
                self.dataset.image_root,
                "no such image folder",
                do="check ingest.image_root in tonics.toml; for features without images, say "
                "image_files = false",
            )
        return [file for source in config.sources for file in self._files_of(source)]

    def _files_of(self, source: Source) -> Iterator[CaptionFile]:
        config = self.dataset.config.ingest
        if config.image_files and not source.columns.image:
            raise ConfigError(
                f"{self.dataset.root / CONFIG_NAME}: ingest.sources.columns.image",
                "value ''",
                expected="the column of the images' paths",
                do="or say ingest.image_files = false, for features without images",
            )
        for path in find_files(self.dataset.root, source.captions):
            is_tar = format_of(path, source) == "webdataset"
            folder = "" if "{" in source.images else source.images.strip("/")
            if is_tar and config.image_files:
                folder = self._below_root(path.parent)
            base = self.dataset.root
            name = path.relative_to(base) if path.is_relative_to(base) else path
            split, image_files = source.split, config.image_files
            yield CaptionFile(
                path=path,
                name=str(name),
                source=source,
                is_tar=is_tar,
                reading=Reading(folder=folder, split=split, image_files=image_files),
            )

    def _below_root(self, folder: Path) -> str:
        """A folder of tars, relative to image_root."""
        root = Path(os.path.abspath(self.dataset.image_root))
        absolute = Path(os.path.abspath(folder))
        if not absolute.is_relative_to(root):
            raise ConfigError(
                f"{self.dataset.root / CONFIG_NAME}: ingest.image_root",
                f"value {self.dataset.config.ingest.image_root!r}",
                expected=f"a folder that the tars are in, such as {folder}",
            )
        relative = absolute.relative_to(root).as_posix()
        return "" if relative == "." else relative

    @cached_property
    def caption_files(self) -> dict[str, str]:
        """Hashes of the caption files, taken before any of them is read; tars are shards.

        A file that is edited while we read it must be read again the next time.
        """
        return {file.name: hash_file(file.path) for file in self.files if not file.is_tar}

    @cached_property
    def _kept(self) -> Kept:
        return Kept(self.dataset.state / "sources")

    def _table(self, file: CaptionFile, columns: Sequence[str] = ROWS_SCHEMA.names) -> pa.Table:
        """The rows of a caption file (``ROWS_SCHEMA``); of a tar, those that its shard found."""
        if file.is_tar:
            return pq.read_table(_rows_file(self.folder / f"{_tar_name(file)}.parquet"))
        return self._kept.table(
            file.path,
            self.caption_files[file.name],  # hashed before anything is read
            file.source,
            file.reading,
            read_captions(file.path, file.source),
            columns,
        )

    @cached_property
    def images(self) -> pa.Table:
        """image_id, path and optional of the images that caption files other than tars name."""
        columns = ["image_id", "path", "problem", "optional"]
        tables = [self._table(file, columns) for file in self.files if not file.is_tar]
        schema = pa.schema([ROWS_SCHEMA.field(name) for name in columns])
        return Listed(pa.concat_tables([schema.empty_table(), *tables])).images

    @property
    def num_images(self) -> int:
        """How many images there are; of tars that were not read yet, about how many."""
        if not self.dataset.config.ingest.image_files:
            return self.images.num_rows
        return sum(shard.rows for shard in self.shards())

    @property
    def num_captions(self) -> int:
        """How many captions there are; of tars that were not read yet, about how many."""
        files = [file for file in self.files if not file.is_tar]
        rows = sum(self._table(file, ["problem"]).num_rows for file in files)
        return rows + sum(shard.rows for shard in self._tar_shards())

    # -- shards

    def shards(self) -> list[Shard]:
        tars = self._tar_shards()
        if not tars and not self.num_captions:
            raise self._nothing_said()
        images = self.images if self.dataset.config.ingest.image_files else self.images[:0]
        starts = range(0, images.num_rows, SHARD_IMAGES)
        parts = [ImageList(images.slice(start, SHARD_IMAGES)) for start in starts]
        named = [Shard(name=f"{i:05d}", rows=len(p), work=p) for i, p in enumerate(parts)]
        return [*named, *tars]

    def _tar_shards(self) -> list[Shard]:
        """A shard for each tar, by name."""
        sizes = {file: file.path.stat().st_size for file in self.files if file.is_tar}
        found = [
            Shard(name=_tar_name(file), rows=1 + size // TAR_BYTES_AN_IMAGE, work=file)
            for file, size in sizes.items()
        ]
        return sorted(found, key=lambda shard: shard.name)

    def _nothing_said(self) -> InputError:
        return InputError(self.files[0].path, "no captions in it")

    def identity(self, shard: Shard) -> dict[str, Any]:
        config = self.dataset.config.ingest
        if isinstance(shard.work, CaptionFile):
            file = shard.work
            return {
                "tar": {"file": file.name, "stamp": list(_stamp(str(file.path)))},
                "settings": {
                    "max_pixels": config.max_pixels,
                    "columns": file.source.columns.model_dump(),
                    "split": file.reading.split,
                    "folder": file.reading.folder,
                    "image_files": file.reading.image_files,
                },
            }
        stamps = _Stamps(str(self.dataset.image_root))
        found = np.array([stamps.of(path) for _, path, _ in shard.work], np.int64).reshape(-1, 2)
        seen = shard.work.table.append_column("bytes", pa.array(found[:, 0]))
        seen = seen.append_column("mtime_ns", pa.array(found[:, 1]))
        columns = ["image_id", "path", "bytes", "mtime_ns"]
        return {"files": hash_rows(seen, columns), "settings": {"max_pixels": config.max_pixels}}

    def make(self, shard: Shard) -> Made:
        if isinstance(shard.work, CaptionFile):
            return self._make_tar(shard.name, shard.work)
        found = []
        for image_id, path, optional in shard.work:
            one = self._probe(image_id, path)
            if isinstance(one, Reject) and optional and one.reason == "image not found":
                one = _probed(image_id, path)
            found.append(one)
        output, probed, rejects = self._write_probed(shard.name, found)
        absent = sum(not row["content_hash"] for row in probed)
        ignored = {NEVER_DOWNLOADED: absent} if absent else {}
        return Made(outputs=[output], rows=len(probed) - absent, rejected=rejects, ignored=ignored)

    def _make_tar(self, name: str, file: CaptionFile) -> Made:
        """Read a tar from its beginning to its end: captions, and images as they pass by."""
        seen: dict[str, Row | Reject] = {}

        def visit(member: str, data: bytes) -> None:
            path = "/".join(filter(None, [file.reading.folder, file.path.name, member]))
            seen[path] = self._inspect("", path, data)

        visitor = visit if file.reading.image_files else None
        rows = tabulate(read_webdataset(file.path, file.source, visitor), file.reading)
        images = Listed(rows).images if visitor else rows[:0]
        found = [_named(seen[path], image_id) for image_id, path, _ in ImageList(images)]
        output, probed, rejects = self._write_probed(name, found)
        write_table(_rows_file(output), rows)
        return Made(
            outputs=[output, _rows_file(output)],
            rows=len(probed),
            rejected=rejects,
            counts={"in": len(found)},
        )

    def _write_probed(
        self, name: str, found: Sequence[Row | Reject]
    ) -> tuple[Path, list[Row], list[Reject]]:
        """Write what is known of images; return the file, its rows, and the other images."""
        rejects = [one for one in found if isinstance(one, Reject)]
        rows = [one for one in found if not isinstance(one, Reject)]
        output = self.folder / f"{name}.parquet"
        write_table(output, pa.Table.from_pylist(rows, schema=_PROBE_SCHEMA))
        return output, rows, rejects

    def _probe(self, image_id: str, path: str) -> Row | Reject:
        from ...features.images import image_exists
        from ...features.tars import split_member

        file = f"{self.dataset.image_root}/{path}"
        tar, _ = split_member(file) or (file, "")
        if os.path.isabs(path) or not Path(os.path.realpath(tar)).is_relative_to(self._real_root):
            return Reject(where=image_id, reason="path leaves the image folder", detail=path)
        if not image_exists(file):  # False as well where the name is too long to exist
            return Reject(where=image_id, reason="image not found", detail=path)
        return self._inspect(image_id, path, None)

    @cached_property
    def _real_root(self) -> Path:
        return Path(os.path.realpath(self.dataset.image_root))

    def _inspect(self, image_id: str, path: str, data: bytes | None) -> Row | Reject:
        from ...features.images import BadImage, inspect_image

        file = self.dataset.image_root / path
        try:
            image = inspect_image(file, self.dataset.config.ingest.max_pixels, data)
        except BadImage as error:
            return Reject(where=image_id, reason=error.reason, detail=str(error))
        return _probed(image_id, path, image.width, image.height, image.bytes, image.xxh3)

    # -- merge

    def merge_identity(self) -> dict[str, Any]:
        config = self.dataset.config.ingest
        return {
            "caption_files": self.caption_files,
            "settings": config.model_dump(mode="json", exclude={"max_rejected"}),
        }

    def merge(self, shards: Sequence[Manifest]) -> Made:
        self.__dict__.pop("images", None)  # millions of names that are not needed any more
        images, judged, counts = self._judge(shards)
        rejects, out = judged.rejects, len(judged.captions)
        old = _existing(self.dataset.pairs_file, PAIRS_SCHEMA)
        pairs = number_pairs(old, judged.captions, images.column("image_id"))
        del old, judged
        write_table(self.dataset.images_file, images)
        del images
        write_table(self.dataset.pairs_file, pairs)
        self._forget(shards)
        withdrawn = _withdrawn(counts.pop("withdrawn"), pairs.num_rows - out)
        return Made(
            outputs=[self.dataset.images_file, self.dataset.pairs_file],
            rejected=rejects,
            counts={**counts, **withdrawn},
        )

    def _judge(self, shards: Sequence[Manifest]) -> tuple[pa.Table, Judged, dict[str, Any]]:
        """Number the images, and say which captions are taken in; with counts."""
        rows = pa.concat_tables([self._table(file) for file in self.files])
        listed = Listed(rows)
        if not len(listed):
            raise self._nothing_said()
        probed, absent = self._probed(shards, listed)
        images = number_images(self._old_images(), probed)
        judged = judge(listed, images, absent, self.dataset.config.ingest)
        write_rejects(self.dataset, self.key, "stage", judged.rejects)
        check_rejects(self, len(listed) - judged.ignored, by_reason(judged.rejects))
        if len(absent) and not probed.num_rows:
            do = "check ingest.image_root and the source's images in tonics.toml"
            found = f"none of {len(absent):,} images is there"
            raise InputError(self.dataset.image_root, found, do=do)
        counts = {
            **_counts(listed, judged, rows),
            "images": self._image_counts(shards, listed),
            "withdrawn": images.num_rows - probed.num_rows,
        }
        return images, judged, counts

    def discard(self) -> None:
        self.dataset.images_file.unlink(missing_ok=True)
        self.dataset.pairs_file.unlink(missing_ok=True)
        self._kept.forget(keep=False)
        for name in ("caption_files", "images"):  # read all anew
            self.__dict__.pop(name, None)

    def _forget(self, shards: Sequence[Manifest]) -> None:
        """Delete what was kept of caption files that are no longer there."""
        kept = {self.dataset.root / o.path for m in shards for o in m.outputs}
        for file in self.folder.glob("tar-*"):
            if file not in kept:
                file.unlink()
        self._kept.forget()

    def _probed(self, shards: Sequence[Manifest], listed: Listed) -> tuple[pa.Table, pa.Array]:
        """The images that are there, in order of appearance, and the ids of those that are absent.

        Without image files an image is its id, and so is its content.
        """
        images = listed.images
        if not self.dataset.config.ingest.image_files:
            return _imageless(images.column("image_id")), pa.array([], pa.string())
        outputs = [o.path for m in shards for o in m.outputs if o.path.startswith(".tonics/")]
        files = [self.dataset.root / path for path in outputs if not path.endswith(".rows.parquet")]
        tables = [pq.read_table(file).cast(_PROBE_SCHEMA) for file in files]
        probed = pa.concat_tables([_PROBE_SCHEMA.empty_table(), *tables])
        both = len({file.is_tar for file in self.files}) > 1
        at = pc.index_in(_image_keys(images, both), value_set=_image_keys(probed, both))
        probed = probed.take(pc.drop_null(at))
        there = pc.not_equal(probed.column("content_hash"), "")
        absent = probed.filter(pc.invert(there)).column("image_id")
        return probed.filter(there), absent.combine_chunks()

    def _old_images(self) -> pa.Table:
        if self.dataset.pairs_file.exists() and not self.dataset.images_file.exists():
            raise InputError(
                self.dataset.images_file,
                "is gone, and pairs.parquet speaks of its image numbers",
                do="restore it; or number images and pairs afresh: 'tonics run --rebuild ingest'",
            )
        return _existing(self.dataset.images_file, IMAGES_SCHEMA)

    def _image_counts(self, shards: Sequence[Manifest], listed: Listed) -> dict[str, Any]:
        if not self.dataset.config.ingest.image_files:
            count = listed.images.num_rows
            return {"in": count, "out": count, "rejected": {}}
        ignored = add_counts(m.counts["ignored"] for m in shards)
        return {
            "in": sum(m.counts["in"] for m in shards),
            "out": sum(m.counts["out"] for m in shards),
            "rejected": add_counts(m.counts["rejected"] for m in shards),
            **({"ignored": ignored} if ignored else {}),
        }


def _tar_name(file: CaptionFile) -> str:
    """The name of a tar's shard: its own, whatever other tars there are."""
    return f"tar-{hash_bytes(file.name.encode('utf-8', 'surrogateescape'))[:16]}"


def _named(found: Row | Reject, image_id: str) -> Row | Reject:
    """What was found of a tar's member, under its image's id."""
    if isinstance(found, Reject):
        return Reject(where=image_id, reason=found.reason, detail=found.detail)
    return {**found, "image_id": image_id}


def _rows_file(probed: Path) -> Path:
    return probed.with_suffix(".rows.parquet")


def _probed(
    image_id: str,
    path: str,
    width: int = 0,
    height: int = 0,
    size: int = 0,
    content_hash: str = "",
) -> Row:
    """A row of ``_PROBE_SCHEMA``; without numbers it is an image that was never downloaded."""
    return {
        "image_id": image_id,
        "path": path,
        "width": width,
        "height": height,
        "bytes": size,
        "content_hash": content_hash,
    }


def _imageless(image_ids: pa.ChunkedArray) -> pa.Table:
    """Rows of ``_PROBE_SCHEMA`` for images of which there are only features."""
    hashes = [
        pa.array([hash_bytes(text.encode()) for text in chunk.to_pylist()], pa.string())
        for chunk in image_ids.chunks
    ]
    zeros, nothing = np.zeros(len(image_ids), np.int64), pa.nulls(len(image_ids), pa.string())
    columns = {
        "image_id": image_ids,
        "path": nothing.fill_null(""),
        "width": zeros,
        "height": zeros,
        "bytes": zeros,
        "content_hash": pa.chunked_array(hashes, pa.string()),
    }
    return pa.table(columns).cast(_PROBE_SCHEMA)


def _image_keys(images: pa.Table, with_path: bool) -> pa.Array:
    """What tells images apart: the id; with its path where an image may have been probed twice."""
    keys = images.column("image_id")
    if with_path:
        keys = pc.binary_join_element_wise(keys, images.column("path"), "\0")
    return keys.combine_chunks()


def _counts(listed: Listed, judged: Judged, rows: pa.Table) -> dict[str, Any]:
    """The counts of captions, by what became of them."""
    splits = judged.captions.split.value_counts().to_pylist()
    alone = rows.filter(pc.equal(rows.column("problem"), NO_CAPTION)).column("image_id").unique()
    without = pc.sum(pc.invert(pc.is_in(alone, value_set=listed.ids))).as_py() or 0
    ignored = {NEVER_DOWNLOADED: judged.ignored, NO_CAPTION: without}
    return {
        "in": len(listed),
        "out": len(judged.captions),
        "rejected": by_reason(judged.rejects),
        "ignored": {reason: count for reason, count in ignored.items() if count},
        "splits": dict(sorted((s["values"], s["counts"]) for s in splits)),
    }


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


def _existing(path: Path, schema: pa.Schema) -> pa.Table:
    return read_table(path, schema) if path.exists() else schema.empty_table()


class _Stamps:
    """Size and time of change of images: what tells that they must be read again."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._tars: dict[str, tuple[int, int]] = {}

    def of(self, path: str) -> tuple[int, int]:
        """The stamp of an image, or of the tar it is in."""
        tar, found, _ = path.partition(".tar/")
        if not found:
            return _stamp(f"{self.root}/{path}")
        if tar not in self._tars:
            self._tars[tar] = _stamp(f"{self.root}/{tar}.tar")
        return self._tars[tar]


def _stamp(file: str) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds; (-1, -1) of a file that is not there."""
    try:
        stat = os.stat(file)
    except (OSError, ValueError):
        return -1, -1
    return stat.st_size, stat.st_mtime_ns
