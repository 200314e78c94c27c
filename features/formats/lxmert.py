"""The files of LXMERT, and those of JingbiaoMei's VinVL_FE, which look alike.

Ten columns: image id, height, width (in this order), objects_id, objects_conf, attrs_id,
attrs_conf, num_boxes, boxes, features: base64 of int64 ids and float32 numbers. LXMERT's ids begin
at 0, without a background, with one attribute a region; VinVL_FE's begin at 1, with sixteen.
Source: airsplay/lxmert, src/utils.py (load_obj_tsv); JingbiaoMei/VinVL_FE.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..regions import MAX_ATTRIBUTES
from .row import (
    FLOATS,
    INTEGERS,
    BadLine,
    FeatureFormat,
    Row,
    check_columns,
    count_of,
    decode,
    numbers,
    whole_number,
)


def matches(columns: Sequence[bytes], attributes: int = 1) -> bool:
    """Ten columns, and so many attributes a region."""
    if len(columns) != 10 or not columns[7].strip().isdigit():
        return False
    try:
        found = len(decode(columns[5].strip(), "attrs_id")) // 8
    except BadLine:
        return attributes == 1
    count = int(columns[7])
    sixteen = count > 0 and found == count * MAX_ATTRIBUTES
    return sixteen == (attributes == MAX_ATTRIBUTES)


def read(
    columns: Sequence[bytes],
    mate: Sequence[bytes] | None = None,
    first_number: int = 0,
    attributes: int = 1,
) -> Row:
    """Read a line.

    Args:
        first_number: the id of the first real label and attribute.
        attributes: how many there are a region.
    """
    check_columns(columns, 10)
    count = count_of(columns[7])
    return Row(
        height=whole_number(columns[1], "img_h"),
        width=whole_number(columns[2], "img_w"),
        labels=numbers(columns[3], "objects_id", INTEGERS, count, 1)[:, 0] - first_number,
        scores=numbers(columns[4], "objects_conf", FLOATS, count, 1)[:, 0],
        attributes=numbers(columns[5], "attrs_id", INTEGERS, count, attributes) - first_number,
        attribute_scores=numbers(columns[6], "attrs_conf", FLOATS, count, attributes),
        boxes=numbers(columns[8], "boxes", FLOATS, count, 4),
        features=numbers(columns[9], "features", FLOATS, count, 0),
    )


FORMAT = FeatureFormat(about="LXMERT", matches=matches, read=read, first_number=0)
