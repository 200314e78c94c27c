"""Writes a store as Oscar and VinVL read it: ``features.tsv``, ``predictions.tsv`` and indices.

See ``oscar.py`` for the columns. ``X.lineidx`` holds the byte at which each line begins,
``imageid2idx.json`` the row of each image id, from 0.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ...errors import InputError, first_ten
from ..detector import Vocabulary
from ..regions import Regions
from ..store import FeatureStore

EXPORTED_FILES = frozenset(
    [f"{name}.{end}" for name in ("features", "predictions") for end in ("tsv", "lineidx")]
    + ["imageid2idx.json"]
)


def export_oscar(
    store: FeatureStore, folder: Path, image_ids: Mapping[int, str], *, geometry: bool = True
) -> int:
    """Write a store's images, by number, into a folder that is there and empty.

    Args:
        image_ids: the name of each image number; images without one are left out.
        geometry: append the six numbers of box geometry to the features (2048 -> 2054).

    Returns:
        The number of images.

    Raises:
        InputError: two images of one name, or a name that would break a line.
    """
    images = [image for image in store.images.tolist() if image in image_ids]
    names = [image_ids[image] for image in images]
    _check_names(names)
    with _Table(folder / "features.tsv") as features, _Table(folder / "predictions.tsv") as objects:
        for image, name in zip(images, names, strict=True):
            regions, key = store[image], name.encode()
            features.write(key, str(len(regions)).encode(), _base64(regions, geometry))
            objects.write(key, predictions_of(regions, store.vocabulary).encode())
    rows = {name: row for row, name in enumerate(names)}
    (folder / "imageid2idx.json").write_text(json.dumps(rows), encoding="utf-8")
    return len(names)


class _Table:
    """A TSV file under way, and its ``.lineidx``; a context manager."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb")
        self._index: BinaryIO = path.with_suffix(".lineidx").open("wb")
        self._offset = 0

    def __enter__(self) -> _Table:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._index.close()

    def write(self, *cells: bytes) -> None:
        line = b"\t".join(cells) + b"\n"
        self._index.write(b"%d\n" % self._offset)
        self._file.write(line)
        self._offset += len(line)


def predictions_of(regions: Regions, vocabulary: Vocabulary) -> str:
    """Say boxes, labels and attributes in Oscar's JSON; attributes without a score are left out."""
    objects = []
    for region in range(len(regions)):
        one = {
            "class": vocabulary.labels[int(regions.labels[region])].name,
            "conf": float(regions.scores[region]),
            "rect": [float(value) for value in regions.boxes[region]],
        }
        if len(regions.attributes):
            scores = regions.attribute_scores[region]
            real = np.flatnonzero(scores > 0)
            names = regions.attributes[region][real].tolist()
            one["attributes"] = [vocabulary.attributes[number] for number in names]
            one["attr_scores"] = [float(score) for score in scores[real]]
        objects.append(one)
    size = {"image_h": regions.height, "image_w": regions.width}
    return json.dumps({**size, "objects": objects})


def _base64(regions: Regions, geometry: bool) -> bytes:
    values = regions.features.astype("<f4")
    if geometry:
        values = np.concatenate([values, regions.geometry.astype("<f4")], axis=1)
    return binascii.b2a_base64(np.ascontiguousarray(values).data, newline=False)


def _check_names(names: list[str]) -> None:
    seen: set[str] = set()
    twice = [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    if twice:
        expected = "every image once (choose another --ids)"
        raise InputError("image ids", f"twice: {first_ten(list(twice))}", expected=expected)
    bad = [name for name in names if name != name.strip() or not name or set(name) & set("\t\r\n")]
    if bad:
        expected = "ids without tabs, line ends, or spaces around them"
        raise InputError("image ids", first_ten(list(bad)), expected=expected)
