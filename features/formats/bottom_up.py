"""The files of peteanderson80/bottom-up-attention.

Six columns: image id, width, height (in this order), num_boxes, boxes and features, both base64 of
float32. Labels and scores are not in it; the regions' order is kept.
Source: peteanderson80/bottom-up-attention, tools/generate_tsv.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from .row import FLOATS, FeatureFormat, Row, check_columns, count_of, numbers, whole_number


def matches(columns: Sequence[bytes]) -> bool:
    """Six columns, three numbers after the id."""
    return len(columns) == 6 and all(cell.strip().isdigit() for cell in columns[1:4])


def read(columns: Sequence[bytes], mate: Sequence[bytes] | None = None) -> Row:
    """Read a line."""
    check_columns(columns, 6)
    count = count_of(columns[3])
    return Row(
        width=whole_number(columns[1], "image_w"),
        height=whole_number(columns[2], "image_h"),
        boxes=numbers(columns[4], "boxes", FLOATS, count, 4),
        features=numbers(columns[5], "features", FLOATS, count, 0),
    )


FORMAT = FeatureFormat(about="bottom-up-attention", matches=matches, read=read)
