"""Ingest: caption files and image headers become ``images.parquet`` and ``pairs.parquet``.

The shards probe images (header, size, hash of the file's bytes), 5,000 at a time; a tar is a shard
of its own, which is read once for its captions and its images. The merge numbers images and pairs.
Numbers are given once (``numbering.py``); ``--rebuild ingest`` numbers afresh.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...artifact import Manifest, hash_file
from ...errors import InputError
from ..caption_files import CaptionFile, caption_files
from ..dataset import IMAGES_SCHEMA, PAIRS_SCHEMA, read_table, write_table
from ..judging import Judged, judge
from ..numbering import number_images, number_pairs
from ..probing import (
    PROBE_SCHEMA,
    ImageList,
    Prober,
    Row,
    hash_stamps,
    image_keys,
    imageless,
    named,
    stamp,
    write_probed,
)
from ..sources import NEVER_DOWNLOADED, NO_CAPTION, read_captions, read_webdataset
from ..sources.listing import ROWS_SCHEMA, Kept, Listed, tabulate
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
TAR_BYTES_AN_IMAGE = 50_000  # a guess, for progress only


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
        return caption_files(self.dataset)

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
            return pq.read_table(_rows_file(self._probed_file(file.shard)))
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
        probes = [Shard(name=f"{i:05d}", rows=len(p), work=p) for i, p in enumerate(parts)]
        return [*probes, *tars]

    def _tar_shards(self) -> list[Shard]:
        """A shard for each tar, by name."""
        files = {file.shard: file for file in self.files if file.is_tar}
        sizes = {name: file.path.stat().st_size for name, file in files.items()}
        return [
            Shard(name=name, rows=1 + sizes[name] // TAR_BYTES_AN_IMAGE, work=files[name])
            for name in sorted(files)
        ]

    def _nothing_said(self) -> InputError:
        return InputError(self.files[0].path, "no captions in it")

    def identity(self, shard: Shard) -> dict[str, Any]:
        config = self.dataset.config.ingest
        if isinstance(shard.work, CaptionFile):
            file = shard.work
            return {
                "tar": {"file": file.name, "stamp": list(stamp(str(file.path)))},
                "settings": {"max_pixels": config.max_pixels, **file.settings},
            }
        seen = hash_stamps(shard.work, self.dataset.image_root)
        return {"files": seen, "settings": {"max_pixels": config.max_pixels}}

    def make(self, shard: Shard) -> Made:
        if isinstance(shard.work, CaptionFile):
            return self._make_tar(shard.work)
        prober = self._prober
        found = [prober.probe_listed(*image) for image in shard.work]
        output = self._probed_file(shard.name)
        probed, rejects = write_probed(output, found)
        absent = sum(not row["content_hash"] for row in probed)
        ignored = {NEVER_DOWNLOADED: absent} if absent else {}
        return Made(outputs=[output], rows=len(probed) - absent, rejected=rejects, ignored=ignored)

    @property
    def _prober(self) -> Prober:
        return Prober(self.dataset.image_root, self.dataset.config.ingest.max_pixels)

    def _probed_file(self, shard: str) -> Path:
        return self.folder / f"{shard}.parquet"

    def _make_tar(self, file: CaptionFile) -> Made:
        """Read a tar from its beginning to its end: captions, and images as they pass by."""
        prober = self._prober
        seen: dict[str, Row | Reject] = {}

        def visit(member: str, data: bytes) -> None:
            path = "/".join(filter(None, [file.reading.folder, file.path.name, member]))
            seen[path] = prober.inspect("", path, data)

        visitor = visit if file.reading.image_files else None
        rows = tabulate(read_webdataset(file.path, file.source, visitor), file.reading)
        images = Listed(rows).images if visitor else rows[:0]
        found = [named(seen[path], image_id) for image_id, path, _ in ImageList(images)]
        output = self._probed_file(file.shard)
        probed, rejects = write_probed(output, found)
        write_table(_rows_file(output), rows)
        return Made(
            outputs=[output, _rows_file(output)],
            rows=len(probed),
            rejected=rejects,
            counts={"in": len(found)},
        )

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
        self.dataset.pairs_file.unlink(missing_ok=True)  # first: pairs alone are refused
        self.dataset.images_file.unlink(missing_ok=True)
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
            return imageless(images.column("image_id")), pa.array([], pa.string())
        outputs = [o.path for m in shards for o in m.outputs if o.path.startswith(".tonics/")]
        files = [self.dataset.root / path for path in outputs if not path.endswith(".rows.parquet")]
        tables = [pq.read_table(file).cast(PROBE_SCHEMA) for file in files]
        probed = pa.concat_tables([PROBE_SCHEMA.empty_table(), *tables])
        at = pc.index_in(image_keys(images), value_set=image_keys(probed))
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


def _rows_file(probed: Path) -> Path:
    return probed.with_suffix(".rows.parquet")


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
