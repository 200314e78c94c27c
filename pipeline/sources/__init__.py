"""Caption files as people have them, one module a family; all yield the same ``Captioned`` rows.

A format is one function ``(path, source) -> Iterator[Captioned]`` and one row in ``FORMATS``.
Text is decoded with ``surrogateescape``: a caption that is not UTF-8 arrives with surrogates in it
and is rejected by the ingest stage, one caption and not one file at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ...errors import InputError
from ..config import Source
from .coco import read_coco
from .flickr import read_flickr
from .row import NO_CAPTION, Captioned
from .table import read_csv, read_jsonl, read_tsv

__all__ = ["FORMATS", "NO_CAPTION", "Captioned", "read_captions"]

FORMATS: dict[str, Callable[[Path, Source], Iterator[Captioned]]] = {
    "coco": read_coco,
    "flickr": read_flickr,
    "csv": read_csv,
    "tsv": read_tsv,
    "jsonl": read_jsonl,
}
_BY_SUFFIX = {".json": "coco", ".jsonl": "jsonl", ".token": "flickr", ".tsv": "tsv"}


def read_captions(path: Path, source: Source) -> Iterator[Captioned]:
    """Read a caption file in its own format, or in the one its name and first line suggest.

    Raises:
        InputError: there is no such file, it is empty or UTF-16, or its format cannot be told.
        ConfigError: a named column is not in the file.
    """
    if not path.is_file():
        do = "check ingest.sources.captions in tonics.toml (paths are relative to that file)"
        raise InputError(path, "no such caption file", do=do)
    with path.open("rb") as file:
        start = file.read(4)
    if not start.removeprefix(b"\xef\xbb\xbf"):
        raise InputError(path, "is empty", expected="captions")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        do = f"convert it: iconv -f UTF-16 -t UTF-8 {path.name} > new-{path.name}"
        raise InputError(path, "is encoded in UTF-16", expected="UTF-8", do=do)
    name = source.format if source.format != "auto" else _guess(path)
    return FORMATS[name](path, source)


def _guess(path: Path) -> str:
    if path.suffix.lower() in _BY_SUFFIX:
        return _BY_SUFFIX[path.suffix.lower()]
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        first = file.readline(100_000).rstrip("\n")
    if "#" in first.partition("\t")[0] and "\t" in first:
        return "flickr"
    if first.replace(" ", "").lower() in ("image,caption", "image_name|comment_number|comment"):
        return "flickr"
    if first.startswith("{"):
        return "jsonl"
    if path.suffix.lower() == ".csv" or "," in first:
        return "csv"
    expected = f"one of {', '.join(FORMATS)}"
    do = "name it: ingest.sources.format in tonics.toml"
    raise InputError(path, f"format not recognised from {first[:60]!r}", expected=expected, do=do)
