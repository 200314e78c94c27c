"""The JSON lists of objects that VinVL's programs write: class, conf, rect, attributes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..regions import MAX_ATTRIBUTES
from .row import MAX_PIXELS, BadLine, Object, shown

BAD_JSON = "not the JSON of this format"


def parse_json(text: bytes, what: str) -> Any:
    """Read JSON; NaN and Infinity pass, their place is judged with the other numbers."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadLine("bad JSON", f"{what}: {error}") from error


def objects_of(value: Any) -> list[Object]:
    """Read a list of objects."""
    if not isinstance(value, list):
        raise BadLine(BAD_JSON, f"objects are {type(value).__name__}, expected a list")
    return [_object(one, number) for number, one in enumerate(value)]


def size_of(value: Mapping[str, Any], width: str, height: str) -> tuple[int, int]:
    """Read an image's size, (0, 0) where it is not said."""
    found = value.get(width), value.get(height)
    if found == (None, None):
        return 0, 0
    try:
        size = int(found[0] or 0), int(found[1] or 0)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadLine(BAD_JSON, f"{width} and {height} are {_shown(found)}") from error
    if min(size) < 1 or max(size) > MAX_PIXELS:
        raise BadLine(BAD_JSON, f"{width} and {height} are {_shown(found)}")
    return size


def _object(value: Any, number: int) -> Object:
    if not isinstance(value, Mapping):
        raise BadLine(BAD_JSON, f"object {number} is {type(value).__name__}")
    name, box = value.get("class"), value.get("rect")
    if not isinstance(name, str):
        raise BadLine(BAD_JSON, f"object {number} has no 'class'")
    if not isinstance(box, Sequence) or len(box) != 4 or not all(map(_is_number, box)):
        raise BadLine(BAD_JSON, f"object {number} has no 'rect' of four numbers")
    attributes, scores = _attributes(value, number)
    x1, y1, x2, y2 = (_float(side, "rect", number) for side in box)
    return Object(
        name=name,
        score=_number(value.get("conf", 1.0), "conf", number),
        box=(x1, y1, x2, y2),
        attributes=attributes,
        attribute_scores=scores,
    )


def _attributes(value: Mapping[str, Any], number: int) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The first attributes, best first as they are written; without scores each counts as sure."""
    names = value.get("attributes") or []
    scores = value.get("attr_scores") or [1.0] * len(names)
    fits = isinstance(names, list) and isinstance(scores, list) and len(names) == len(scores)
    if not fits or not all(isinstance(name, str) for name in names):
        raise BadLine(BAD_JSON, f"object {number}: attributes and attr_scores do not match")
    read = tuple(_number(score, "attr_scores", number) for score in scores[:MAX_ATTRIBUTES])
    return tuple(names[:MAX_ATTRIBUTES]), read


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any, what: str, number: int) -> float:
    if not _is_number(value):
        raise BadLine(BAD_JSON, f"object {number}: {what} is {_shown(value)}")
    found = _float(value, what, number)
    if not math.isfinite(found):
        raise BadLine("NaN or infinity", f"{what} of object {number}")
    return found


def _float(value: float, what: str, number: int) -> float:
    try:
        return float(value)
    except OverflowError as error:  # a whole number of hundreds of digits
        raise BadLine(BAD_JSON, f"{what} of object {number} is {_shown(value)}") from error


def _shown(value: Any) -> str:
    return shown(repr(value).encode("utf-8", "backslashreplace"))
