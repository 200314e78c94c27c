"""``X.feature.tsv`` and ``X.label.tsv`` of Oscar's captioning.

Features: image key, JSON ``{"num_boxes", "features": base64 of float32}``. Labels: image key, JSON
list of ``{"class", "rect", "conf"}``. The files are joined by row. Where labels are fewer or more
than features (microsoft/Oscar#103) nobody can say which belong together.
Source: microsoft/Oscar, oscar/run_captioning.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .objects import BAD_JSON, objects_of, parse_json
from .oscar import check_objects, split_geometry
from .row import (
    FLOATS,
    BadLine,
    FeatureFormat,
    Mate,
    Object,
    Row,
    check_columns,
    count_of,
    numbers,
    shown,
)

_FEATURES, _LABELS = ".feature.tsv", ".label.tsv"


def matches(columns: Sequence[bytes]) -> bool:
    """Two columns, and one block of features in the second."""
    return len(columns) == 2 and b'"num_boxes"' in columns[1] and b'"features"' in columns[1]


def read(columns: Sequence[bytes], mate: Sequence[bytes] | None = None) -> Row:
    """Read a line and the labels of the same row."""
    check_columns(columns, 2)
    value = parse_json(columns[1], "features")
    if not isinstance(value, dict) or not isinstance(value.get("features"), str):
        raise BadLine(BAD_JSON, "no text 'features'")
    count = count_of(str(value.get("num_boxes")).encode())
    text = value["features"].encode("ascii", "replace")
    features, geometry = split_geometry(numbers(text, "features", FLOATS, count, 0))
    if mate is None:
        return Row(features=features, geometry=geometry)
    found = _labels(columns, mate)
    check_objects(found, count)
    return Row(features=features, geometry=geometry, objects=found)


def objects(columns: Sequence[bytes], mate: Sequence[bytes] | None = None) -> list[Object]:
    """Read the labels alone."""
    return _labels(columns, mate) if mate is not None else []


def _labels(columns: Sequence[bytes], mate: Sequence[bytes]) -> list[Object]:
    check_columns(mate, 2)
    if columns[0].strip() != mate[0].strip():
        detail = f"features of {shown(columns[0])}, labels of {shown(mate[0])}"
        raise BadLine("rows of two images", detail)
    return objects_of(parse_json(mate[1], "labels"))


def _beside(path: Path) -> Path:
    stem = path.name.removesuffix(_FEATURES)
    return path.with_name(stem + _LABELS if stem != path.name else path.stem + _LABELS)


FORMAT = FeatureFormat(
    about="Oscar captioning X.feature.tsv with X.label.tsv",
    matches=matches,
    read=read,
    objects=objects,
    mate=Mate(path=_beside, by_row=True),
)
