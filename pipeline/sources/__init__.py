"""Caption files as people have them, one module a family; all yield the same ``Captioned`` rows.

A format is one function ``(path, source) -> Iterator[Captioned]`` and one row in ``FORMATS``.
Text is decoded with ``surrogateescape``: a caption that is not UTF-8 arrives with surrogates in it
and is rejected by the ingest stage, one caption and not one file at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from ...errors import InputError
from ..config import Source
from .coco import read_coco
from .conceptual import is_conceptual, read_conceptual
from .flickr import read_flickr
from .karpathy import read_karpathy
from .parquet import is_img2dataset, read_parquet
from .row import NEVER_DOWNLOADED, NO_CAPTION, Captioned
from .table import read_csv, read_jsonl, read_tsv
from .webdataset import read_webdataset

__all__ = [
    "FORMATS",
    "NEVER_DOWNLOADED",
    "NO_CAPTION",
    "Captioned",
    "find_files",
    "format_of",
    "is_img2dataset",
    "read_captions",
    "read_webdataset",
]

FORMATS: dict[str, Callable[[Path, Source], Iterator[Captioned]]] = {
    "coco": read_coco,
    "karpathy": read_karpathy,
    "flickr": read_flickr,
    "conceptual": read_conceptual,
    "csv": read_csv,
    "tsv": read_tsv,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
    "webdataset": read_webdataset,
}
_BY_SUFFIX = {
    ".jsonl": "jsonl",
    ".token": "flickr",
    ".parquet": "parquet",
    ".tar": "webdataset",
}
_START_BYTES = 1 << 20
_MOST_FILES = 1_000_000
_DO = "check ingest.sources.captions in tonics.toml (paths are relative to that file)"


def find_files(root: Path, captions: str) -> list[Path]:
    """The files that ``captions`` of a source names: one, or those of a pattern, in order.

    ``{00000..00331}`` stands for every number of the range, all of which must be there; ``*``,
    ``?`` and ``[...]`` for whatever matches. A file of exactly that name is taken as it is.

    Raises:
        InputError: there is no such file.
    """
    if (root / captions).exists():
        return [root / captions]
    found: list[Path] = []
    for name in _ranges(captions):
        if re.search(r"[*?\[]", name) and not (root / name).exists():
            base = Path(name).anchor or str(root)
            pattern = str(Path(name).relative_to(Path(name).anchor)) if Path(name).anchor else name
            matches = sorted(p for p in Path(base).glob(pattern) if p.is_file())
            if not matches:
                raise InputError(root / name, "no file matches", do=_DO)
            found += matches
        else:
            found.append(root / name)
    return found


def _ranges(name: str) -> list[str]:
    """Spell out ``{first..last}``.

    Raises:
        InputError: first is behind last, or the range is absurd.

    >>> _ranges("{08..10}.tar")
    ['08.tar', '09.tar', '10.tar']
    """
    match = re.search(r"\{(\d{1,20})\.\.(\d{1,20})\}", name)
    if match is None:
        return [name]
    first, last = match.groups()
    head, tails = name[: match.start()], _ranges(name[match.end() :])
    count = int(last) - int(first) + 1
    if not 0 < count * len(tails) <= _MOST_FILES:
        found = f"{max(count, 0) * len(tails):,} files"
        expected = f"{{first..last}} of 1 to {_MOST_FILES:,} files"
        raise InputError(name, found, expected=expected, do=_DO)
    numbers = range(int(first), int(last) + 1)
    return [f"{head}{n:0{len(first)}d}{tail}" for n in numbers for tail in tails]


def read_captions(path: Path, source: Source) -> Iterator[Captioned]:
    """Read a caption file in its own format, or in the one its name and first line suggest.

    Raises:
        InputError: there is no such file, it is empty or UTF-16, or its format cannot be told.
        ConfigError: a named column is not in the file.
    """
    return FORMATS[format_of(path, source)](path, source)


def format_of(path: Path, source: Source) -> str:
    """The format of a caption file: as the source says, or as its name and first line suggest.

    Raises:
        InputError: there is no such file, it is empty or UTF-16, or its format cannot be told.
    """
    if not path.is_file():
        raise InputError(path, "no such caption file", do=_DO)
    with path.open("rb") as file:
        start = file.read(4)
    if not start.removeprefix(b"\xef\xbb\xbf"):
        raise InputError(path, "is empty", expected="captions")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        do = f"convert it: iconv -f UTF-16 -t UTF-8 {path.name} > new-{path.name}"
        raise InputError(path, "is encoded in UTF-16", expected="UTF-8", do=do)
    return source.format if source.format != "auto" else _guess(path)


def _guess(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        start = file.read(_START_BYTES)
    first = start.partition("\n")[0][:100_000]
    if suffix == ".json":
        return "karpathy" if re.search(r'"sent(ence|id)s"\s*:', start) else "coco"
    if is_conceptual(first):
        return "conceptual"
    if suffix == ".tsv":
        return "tsv"
    if "#" in first.partition("\t")[0] and "\t" in first:
        return "flickr"
    if first.replace(" ", "").lower() in ("image,caption", "image_name|comment_number|comment"):
        return "flickr"
    if first.startswith("{"):
        return "jsonl"
    if suffix == ".csv" or "," in first:
        return "csv"
    expected = f"one of {', '.join(FORMATS)}"
    do = "name it: ingest.sources.format in tonics.toml"
    raise InputError(path, f"format not recognised from {first[:60]!r}", expected=expected, do=do)
