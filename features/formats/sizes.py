"""Sizes of images from an ``hw.tsv``, as VinVL's datasets keep them.

Two columns: image id, and ``[{"height": H, "width": W}]``, the same without the list, or "H W".
Source: microsoft/scene_graph_benchmark, maskrcnn_benchmark/data/datasets/tsv_dataset.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import InputError
from .lines import lines_of
from .objects import parse_json, size_of
from .row import BadLine, columns_of

NAME = "hw.tsv"


def read_sizes(path: Path) -> dict[str, tuple[int, int]]:
    """Read (width, height) of every image id.

    Raises:
        InputError: no such file, or a line that does not say a size.
    """
    if not path.is_file():
        raise InputError(path, "no such file of image sizes")
    found = {}
    for line in lines_of(path):
        columns = columns_of(line.text)
        if columns == [b""]:
            continue
        try:
            found[line.key.decode("utf-8", "backslashreplace")] = _size(columns[-1])
        except BadLine as problem:
            expected = 'id, tab, [{"height": H, "width": W}] or "H W"'
            where = f"{path}:{line.number}"
            raise InputError(where, str(problem), expected=expected) from problem
    return found


def _size(cell: bytes) -> tuple[int, int]:
    words = cell.split()
    if len(words) == 2 and all(word.isdigit() for word in words):
        value: Any = {"height": int(words[0]), "width": int(words[1])}
    else:
        value = parse_json(cell, "size")
        value = value[0] if isinstance(value, list) and value else value
    if not isinstance(value, dict) or size_of(value, "width", "height") == (0, 0):
        raise BadLine("no size", cell[:60].decode("utf-8", "backslashreplace"))
    return size_of(value, "width", "height")
