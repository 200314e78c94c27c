"""Parquet tables with named columns, and the tables that img2dataset writes beside its images."""

from __future__ import annotations

import heapq
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import InputError
from ...features.images import SUFFIXES
from ...features.tars import Tar
from ..config import Source
from .row import NEVER_DOWNLOADED, Captioned, broken, with_captions
from .table import check_columns

_ROWS_AT_ONCE = 10_000
_FIRST_IMAGES = 50  # members or files that are looked at to learn how images are called


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Which columns of a table hold what, "" for none; ``path`` is made from ``image``."""

    image: str
    image_id: str
    caption: str
    split: str
    status: str = ""
    path: str = "{}"

    @property
    def columns(self) -> list[str]:
        named = {self.image, self.image_id, self.caption, self.split, self.status}
        return sorted(named - {""})


def read_parquet(path: Path, source: Source) -> Iterator[Captioned]:
    """Read a parquet table, some thousand rows at a time; a caption is a text or a list of texts.

    A table without a column for images that has ``key`` and ``status`` is img2dataset's: the image
    is ``KEY.jpg`` in the folder or tar of the same name beside it, the image id its key, and a row
    without success is an image that was never downloaded.

    Raises:
        InputError: it is no parquet file, or a column holds something else.
        ConfigError: a named column is not in the file.
    """
    try:
        file = pq.ParquetFile(path)
        layout = _layout(path, source, file.schema_arrow)
        number = 0
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=layout.columns):
            cells = {name: _values(batch.column(name)) for name in layout.columns}
            for i in range(batch.num_rows):
                row = {name: values[i] for name, values in cells.items()}
                yield from _captioned(path, number, layout, row)
                number += 1
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(path, f"cannot be read as parquet ({error})") from error


def is_img2dataset(path: Path) -> bool:
    """Whether a file is a table that img2dataset wrote beside its images."""
    try:
        names = pq.read_schema(path).names
    except (pa.ArrowInvalid, OSError):
        return False
    return _is_downloaded(names) and "image" not in names


def _is_downloaded(names: Sequence[str]) -> bool:
    return {"key", "status"} <= set(names)


def _layout(path: Path, source: Source, schema: pa.Schema) -> _Layout:
    columns = source.columns
    downloaded = _is_downloaded(schema.names) and columns.image not in schema.names
    named = columns.model_copy(update={"image": "key"}) if downloaded else columns
    check_columns(path, named, schema.names)
    layout = _Layout(
        image=named.image,
        image_id=named.image_id or named.image,
        caption=named.caption,
        split=named.split,
        status="status" if downloaded else "",
        path=path_beside(path) if downloaded else "{}",
    )
    _check_types(path, schema, layout)
    return layout


def _captioned(
    path: Path, number: int, layout: _Layout, row: dict[str, Any]
) -> Iterator[Captioned]:
    where = f"row {number}"
    image_id, image = row[layout.image_id], row[layout.image] if layout.image else ""
    if image_id in (None, "") or (layout.image and image in (None, "")):
        yield broken(path, where, "no image named")
        return
    missing = layout.status and row[layout.status] != "success"
    found = Captioned(
        image_id=str(image_id),
        path=layout.path.format(image) if layout.image else "",
        caption="",
        where=f"{path.name}:{where}",
        split=str(row[layout.split] or "") if layout.split else "",
        problem=NEVER_DOWNLOADED if missing else "",
    )
    yield from with_captions(found, row[layout.caption])


def _check_types(path: Path, schema: pa.Schema, layout: _Layout) -> None:
    for name in layout.columns:
        kind, expected = schema.field(name).type, "texts or whole numbers"
        if name == layout.caption:
            expected = "texts or lists of texts"
            if pa.types.is_list(kind) or pa.types.is_large_list(kind):
                kind = kind.value_type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
        if not text and (name == layout.caption or not pa.types.is_integer(kind)):
            do = "name another column in columns; images must be files, or members of tars"
            raise InputError(path, f"column {name!r} is {kind}", expected=expected, do=do)


def _values(column: pa.Array) -> list[Any]:
    """The values of a column; bytes that are not UTF-8 become surrogates."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        nested = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        kind = pa.large_list(pa.large_binary()) if nested else pa.large_binary()
        return [_decoded(value) for value in column.cast(kind).to_pylist()]


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(one) for one in value]
    return None if value is None else value.decode("utf-8", "surrogateescape")


def path_beside(path: Path) -> str:
    """The pattern of img2dataset's images, from their key, by what lies beside the table.

    Raises:
        InputError: a tar is compressed.
    """
    tar, folder = path.with_suffix(".tar"), path.with_suffix("")
    place = folder.name
    names: Iterator[str] = iter(())
    if tar.is_file():
        place, names = tar.name, (member.name for member in Tar(tar).walk())
    elif folder.is_dir():
        names = iter(heapq.nsmallest(_FIRST_IMAGES, os.listdir(folder)))
    suffixes = (Path(name).suffix for name in itertools.islice(names, _FIRST_IMAGES))
    suffix = next((s for s in suffixes if s.lower() in SUFFIXES), ".jpg")
    return f"{place.replace('{', '{{').replace('}', '}}')}/{{}}{suffix}"
