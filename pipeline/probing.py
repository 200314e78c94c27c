"""Looking at images without decoding them: what is there, what it is, and whether it changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..artifact import hash_bytes, hash_rows
from ..features.tars import split_member
from .dataset import IMAGES_SCHEMA, write_table
from .stage import Reject

Row = dict[str, Any]  # of PROBE_SCHEMA
# an image that was never downloaded has no content hash
PROBE_SCHEMA = pa.schema([field for field in IMAGES_SCHEMA if field.name != "image"])


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


@dataclass(frozen=True)
class Prober:
    """Probes the images below a folder."""

    image_root: Path
    max_pixels: int

    def probe(self, image_id: str, path: str) -> Row | Reject:
        """Look at an image: a row of ``PROBE_SCHEMA``, or why it cannot be used."""
        from ..features.images import image_exists

        file = f"{self.image_root}/{path}"
        tar, _ = split_member(file) or (file, "")
        if os.path.isabs(path) or not Path(os.path.realpath(tar)).is_relative_to(self._real_root):
            return Reject(where=image_id, reason="path leaves the image folder", detail=path)
        if not image_exists(file):  # False as well where the name is too long to exist
            return Reject(where=image_id, reason="image not found", detail=path)
        return self.inspect(image_id, path)

    def probe_listed(self, image_id: str, path: str, optional: bool) -> Row | Reject:
        """As ``probe``; an image that is absent, and may be, is a row without a content hash."""
        found = self.probe(image_id, path)
        absent = isinstance(found, Reject) and found.reason == "image not found"
        return _row(image_id, path) if optional and absent else found

    def inspect(self, image_id: str, path: str, data: bytes | None = None) -> Row | Reject:
        """Read the header of an image that is there, and hash it."""
        from ..features.images import BadImage, inspect_image

        try:
            image = inspect_image(self.image_root / path, self.max_pixels, data)
        except BadImage as error:
            return Reject(where=image_id, reason=error.reason, detail=str(error))
        return _row(image_id, path, image.width, image.height, image.bytes, image.xxh3)

    @cached_property
    def _real_root(self) -> Path:
        return Path(os.path.realpath(self.image_root))


def named(found: Row | Reject, image_id: str) -> Row | Reject:
    """What was found of an image, under its id."""
    if isinstance(found, Reject):
        return Reject(where=image_id, reason=found.reason, detail=found.detail)
    return {**found, "image_id": image_id}


def write_probed(path: Path, found: Sequence[Row | Reject]) -> tuple[list[Row], list[Reject]]:
    """Write what is known of images; return the rows, and the images that cannot be used."""
    rejects = [one for one in found if isinstance(one, Reject)]
    rows = [one for one in found if not isinstance(one, Reject)]
    write_table(path, pa.Table.from_pylist(rows, schema=PROBE_SCHEMA))
    return rows, rejects


def hash_stamps(images: ImageList, image_root: Path) -> str:
    """Hash of images' names, sizes and times of change: what tells that they must be read again.

    Of an image in a tar, size and time are the tar's.
    """
    of_tars: dict[str, tuple[int, int] | None] = {}  # by folder in the tar; None: it is no tar
    found = []
    for _, path, _ in images:
        file = f"{image_root}/{path}"
        folder = file.rpartition("/")[0]
        if folder not in of_tars:
            split = split_member(file)
            of_tars[folder] = stamp(split[0]) if split else None
        found.append(of_tars[folder] or stamp(file))
    numbers = np.array(found, np.int64).reshape(-1, 2)
    seen = images.table.append_column("bytes", pa.array(numbers[:, 0]))
    seen = seen.append_column("mtime_ns", pa.array(numbers[:, 1]))
    return hash_rows(seen, ["image_id", "path", "bytes", "mtime_ns"])


def stamp(file: str) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds; (-1, -1) of a file that is not there."""
    try:
        stat = os.stat(file)
    except (OSError, ValueError):
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def imageless(image_ids: pa.ChunkedArray) -> pa.Table:
    """Rows of ``PROBE_SCHEMA`` for images of which there are only features."""
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
    return pa.table(columns).cast(PROBE_SCHEMA)


def image_keys(images: pa.Table) -> pa.Array:
    """What tells probed images apart: id and path, for several tars may use the same ids."""
    keys = [pc.cast(images.column(name), pa.large_string()) for name in ("image_id", "path")]
    return pc.binary_join_element_wise(*keys, pa.scalar("\0", pa.large_string())).combine_chunks()


def _row(
    image_id: str,
    path: str,
    width: int = 0,
    height: int = 0,
    size: int = 0,
    content_hash: str = "",
) -> Row:
    """A row of ``PROBE_SCHEMA``; without numbers it is an image that was never downloaded."""
    return {
        "image_id": image_id,
        "path": path,
        "width": width,
        "height": height,
        "bytes": size,
        "content_hash": content_hash,
    }
