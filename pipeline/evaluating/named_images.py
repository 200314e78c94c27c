"""Which image of the dataset somebody's file means: by id, by path, by file, by COCO's number."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

# COCO_val2014_000000184613.jpg, and since 2017 000000184613.jpg
_COCO = re.compile(r"(?:COCO_\w+_)?(\d{12})")


def find_images(names: Sequence[str], images: pa.Table) -> np.ndarray:
    """Find images that are named by their id, their path or their file: (n,), -1 for none.

    A file's folder and suffix may differ. COCO's files are found by their number too, in whatever
    year's spelling, where the dataset's own ids or files are spelled as COCO spells them. A file
    name that several images have means none of them.
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
    coco = _single((n, number) for name, number in called if (n := coco_number(name)))
    return np.array([_find(name, spellings, coco) for name in names], np.int64)


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
