"""``predictions.tsv`` as scene_graph_benchmark writes it.

Two columns: image id, and JSON ``{"objects": [{"rect", "class", "conf", "feature", "attributes",
"attr_scores"}, ...]}``, a feature being base64 of float32. It says nothing of the image's size.
Source: microsoft/scene_graph_benchmark, tools/test_sg_net.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .objects import BAD_JSON, objects_of, parse_json
from .row import FLOATS, BadLine, FeatureFormat, Object, Row, check_columns, decode, shaped

_START = b'"feature": "'  # as json.dumps writes it
_MARK = "#"  # not of base64's alphabet


def matches(columns: Sequence[bytes]) -> bool:
    """Two columns, and objects with features in the second."""
    return len(columns) == 2 and columns[1].lstrip()[:1] == b"{" and b'"feature"' in columns[1]


def read(columns: Sequence[bytes], mate: Sequence[bytes] | None = None) -> Row:
    """Read a line."""
    values, cut = _objects(columns)
    texts = [_feature(value, cut, number) for number, value in enumerate(values)]
    objects = objects_of(values)
    data = [decode(text, f"feature of object {number}") for number, text in enumerate(texts)]
    return Row(features=_stack(data), objects=objects)


def objects(columns: Sequence[bytes], mate: Sequence[bytes] | None = None) -> list[Object]:
    """Read all but the features."""
    return objects_of(_objects(columns)[0])


def _objects(columns: Sequence[bytes]) -> tuple[list[Any], list[bytes]]:
    """Parse a line with its features cut out, which are nine tenths of it."""
    check_columns(columns, 2)
    text, cut = cut_features(columns[1])
    value = parse_json(text, "predictions")
    found = value.get("objects") if isinstance(value, dict) else None
    if not isinstance(found, list):
        raise BadLine(BAD_JSON, "no list 'objects'")
    return found, cut


def cut_features(text: bytes) -> tuple[bytes, list[bytes]]:
    """Put ``#0``, ``#1`` ... in the place of all features, and list them.

    Inside a JSON string every quote has a backslash before it, so that the bytes looked for can be
    nothing but a key and the start of its value.

    >>> cut_features(b'[{"feature": "AAAA", "a": 1}]')
    (b'[{"feature": "#0", "a": 1}]', [b'AAAA'])
    """
    kept: list[bytes] = []
    cut: list[bytes] = []
    at = end = 0
    while (start := text.find(_START, end)) >= 0:
        start += len(_START)
        end = text.find(b'"', start)
        if end < 0:
            break
        feature = text[start:end]
        if b"\\" in feature:  # "\/", as some programs write a slash
            continue
        kept += [text[at:start], f"{_MARK}{len(cut)}".encode()]
        cut.append(feature)
        at = end
    return b"".join([*kept, text[at:]]), cut


def _feature(value: Any, cut: Sequence[bytes], number: int) -> bytes | str:
    text = value.get("feature") if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise BadLine(BAD_JSON, f"object {number} has no 'feature'")
    mark = text.removeprefix(_MARK)
    if text.startswith(_MARK) and mark.isdecimal() and int(mark) < len(cut):
        return cut[int(mark)]
    return text  # written without the space: left where it was


def _stack(data: Sequence[bytes]) -> np.ndarray:
    """Stack the features of all objects, which must be of one length."""
    lengths = {len(one) for one in data}
    if len(lengths) > 1:
        raise BadLine("other feature size", f"features of {sorted(lengths)} bytes in one line")
    return shaped(b"".join(data), "features", FLOATS, len(data), 0)


FORMAT = FeatureFormat(
    about="scene_graph_benchmark predictions.tsv", matches=matches, read=read, objects=objects
)
