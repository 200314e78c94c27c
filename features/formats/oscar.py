"""``features.tsv`` of Oscar and VinVL, and the ``predictions.tsv`` beside it.

Features: image id, num_boxes, base64 of float32 (num_boxes, D); with 2054 numbers the last six are
the geometry (see ``Row``). Predictions: image id, JSON ``{"image_h", "image_w", "objects":
[{"class", "conf", "rect"}, ...]}`` or just the list. Rows are found by image id.
Source: microsoft/Oscar, oscar/datasets/oscar_tsv.py and oscar/run_retrieval.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .objects import BAD_JSON, objects_of, parse_json, size_of
from .row import (
    FLOATS,
    GEOMETRY,
    BadLine,
    FeatureFormat,
    Mate,
    Object,
    Row,
    check_columns,
    count_of,
    numbers,
)

_EIGHT = 8  # features of every detector are a multiple of it: six numbers too many are the geometry


def matches(columns: Sequence[bytes]) -> bool:
    """Three columns, the second a number."""
    return len(columns) == 3 and columns[1].strip().isdigit()


def read(columns: Sequence[bytes], mate: Sequence[bytes] | None = None) -> Row:
    """Read a line, with its predictions where there are any."""
    check_columns(columns, 3)
    count = count_of(columns[1])
    features, geometry = split_geometry(numbers(columns[2], "features", FLOATS, count, 0))
    if mate is None:
        return Row(features=features, geometry=geometry)
    found, (width, height) = _predictions(mate)
    check_objects(found, count)
    return Row(features=features, geometry=geometry, objects=found, width=width, height=height)


def objects(columns: Sequence[bytes], mate: Sequence[bytes] | None = None) -> list[Object]:
    """Read the predictions alone."""
    return _predictions(mate)[0] if mate is not None else []


def split_geometry(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Part features from the geometry behind them.

    >>> [part.shape for part in split_geometry(np.zeros((36, 2054), np.float32))]
    [(36, 2048), (36, 6)]
    """
    if values.shape[1] <= GEOMETRY or values.shape[1] % _EIGHT != GEOMETRY:
        return values, None
    return values[:, :-GEOMETRY], values[:, -GEOMETRY:]


def check_objects(objects: Sequence[Object], count: int) -> None:
    """Refuse boxes and labels of another number of regions."""
    if len(objects) != count:
        detail = f"{len(objects)} objects for {count} features"
        raise BadLine("another number of objects than features", detail)


def _predictions(columns: Sequence[bytes]) -> tuple[list[Object], tuple[int, int]]:
    check_columns(columns, 2)
    value = parse_json(columns[1], "predictions")
    if isinstance(value, list):
        return objects_of(value), (0, 0)
    if not isinstance(value, dict):
        raise BadLine(BAD_JSON, "predictions are no list and no object")
    return objects_of(value.get("objects")), size_of(value, "image_w", "image_h")


def _beside(path: Path) -> Path:
    return path.with_name("predictions.tsv")


FORMAT = FeatureFormat(
    about="Oscar features.tsv with predictions.tsv",
    matches=matches,
    read=read,
    objects=objects,
    mate=Mate(path=_beside, by_row=False),
)
