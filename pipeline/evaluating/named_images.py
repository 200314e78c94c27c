"""Which image of the dataset somebody's file means: by id, by path, by file, by COCO's number."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..dataset import Dataset
from ..sources import find_files, format_of

# COCO_val2014_000000184613.jpg, and since 2017 000000184613.jpg
_COCO = re.compile(r"(?:COCO_\w+_)?(\d{12})")


def find_images(names: Sequence[str], images: pa.Table, *, coco_ids: bool = False) -> np.ndarray:
    """Find images that are named by their id, their path or their file: (n,), -1 for none.

    Folders may differ, and a file without its suffix may be an id. COCO's files are found by their
    number too, in whatever year's spelling, where the dataset's own ids or files are spelled as
    COCO spells them. A file name that several images have means none of them.

    Args:
        coco_ids: ids of images without a file are COCO's numbers.
    """
    ids, paths = (images[name].to_pylist() for name in ("image_id", "path"))
    numbers = images["image"].to_pylist()
    files = [(Path(path).name, number) for path, number in zip(paths, numbers, strict=True) if path]
    called = [*files, *zip(ids, numbers, strict=True)]
    spellings = [
        dict(zip(ids, numbers, strict=True)),
        _single((path, number) for path, number in zip(paths, numbers, strict=True) if path),
        _single(files),
    ]
    coco = [(n, number) for name, number in called if (n := coco_number(name))]
    if coco_ids:
        rows = zip(ids, paths, numbers, strict=True)
        coco += [(name, number) for name, path, number in rows if not path and name.isdecimal()]
    by_number = _single(coco)
    return np.array([_find(name, spellings, by_number) for name in names], np.int64)


def of_coco(dataset: Dataset) -> bool:
    """Whether a source is written as COCO's or Karpathy's files are."""
    files = [
        (file, source)
        for source in dataset.config.ingest.sources
        for file in find_files(dataset.root, source.captions)
    ]
    return any(format_of(file, source) in ("coco", "karpathy") for file, source in files)


def coco_number(name: str) -> str:
    """COCO's number of an image, from its file; empty when that is not spelled as COCO does.

    >>> coco_number("val2014/COCO_val2014_000000001369.jpg"), coco_number("1369.jpg")
    ('1369', '')
    """
    match = _COCO.fullmatch(Path(name).stem)
    return str(int(match[1])) if match else ""


def _single(named: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Names that mean one image."""
    found: dict[str, int] = {}
    twice = set()
    for name, number in named:
        if found.setdefault(name, number) != number:
            twice.add(name)
    return {name: number for name, number in found.items() if name not in twice}


def _find(name: str, spellings: Sequence[Mapping[str, int]], coco: Mapping[str, int]) -> int:
    for spelled in (name, Path(name).name, Path(name).stem):
        for known in spellings:
            if spelled in known:
                return known[spelled]
    return coco.get(coco_number(name), -1)
