"""From what a line says to what the store keeps: numbers for names, float16, boxes that fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..regions import MAX_ATTRIBUTES, Regions
from .names import Names
from .row import BadLine, Object, Row

# Boxes that leave the image by less are rounding (of sizes, of +1 conventions) and are cut off.
BOX_SLACK_PX = 2.0
# Geometry that was kept in float16 is off by up to 0.0005; another order of the six by far more.
GEOMETRY_TOLERANCE = 1e-3
_HALF_INFINITY = 0x7C00


def to_regions(
    row: Row, names: Names, dim: int, width: int = 0, height: int = 0
) -> tuple[Regions, bool]:
    """Turn a row into regions.

    Args:
        dim: D of the store.
        width, height: the image's size, for rows that do not say it; 0: not known.

    Returns:
        The regions, and whether a box was cut off at the image's border.

    Raises:
        BadLine: the row cannot be used.
    """
    width, height = (row.width, row.height) if row.width and row.height else (width, height)
    if width < 1 or height < 1:
        raise BadLine("image size not known", "give it with --sizes")
    if len(row) and row.features.shape[1] != dim:
        detail = f"{row.features.shape[1]} numbers a region, the first row has {dim}"
        raise BadLine("other feature size", detail)
    boxes, clipped = _boxes(row, np.array([width, height], np.float32))
    labels, scores, attributes, attribute_scores = _said(row, names)
    _check_finite("scores", scores)
    _check_finite("attribute scores", attribute_scores)
    regions = Regions(
        features=_half(row.features, dim),
        boxes=boxes,
        labels=labels,
        scores=scores,
        attributes=attributes,
        attribute_scores=attribute_scores,
        width=width,
        height=height,
    )
    return regions, clipped


def _half(features: np.ndarray, dim: int) -> np.ndarray:
    """Round to float16, to the nearest; what does not fit is refused."""
    with np.errstate(over="ignore", invalid="ignore"):
        half = features.astype(np.float16)
    bits = half.view(np.uint16) & 0x7FFF
    if bits.size and int(bits.max()) >= _HALF_INFINITY:
        _check_finite("features", features)
        detail = f"{float(np.abs(features).max()):g}, float16 ends at 65504"
        raise BadLine("feature beyond float16", detail)
    return half if len(half) else np.zeros((0, dim), np.float16)


def _boxes(row: Row, size: np.ndarray) -> tuple[np.ndarray, bool]:
    """Find the boxes, compare them with the geometry, and fit them into the image."""
    if row.objects is not None:
        boxes = np.array([one.box for one in row.objects], np.float32).reshape(-1, 4)
    elif row.boxes is not None:
        boxes = row.boxes.astype(np.float32)
    elif row.geometry is not None:
        boxes = row.geometry[:, :4] * np.tile(size, 2)
    else:
        detail = "features without geometry, and no second file that has boxes"
        raise BadLine("no boxes", detail)
    _check_finite("boxes", boxes)
    if row.geometry is not None:
        _check_geometry(row.geometry, boxes, size)
    return _inside(boxes, size)


def _check_geometry(geometry: np.ndarray, boxes: np.ndarray, size: np.ndarray) -> None:
    _check_finite("geometry", geometry)
    low, high = boxes[:, :2] / size, boxes[:, 2:] / size
    off = np.abs(geometry - np.concatenate([low, high, high - low], axis=1)).max(axis=1, initial=0)
    if off.size and off.max() > GEOMETRY_TOLERANCE:
        region = int(off.argmax())
        detail = f"region {region}: off by {off[region]:.3g} of the image's side"
        raise BadLine("geometry does not fit the boxes", detail)


def _inside(boxes: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, bool]:
    low = np.clip(boxes[:, :2], 0, size)
    high = np.maximum(np.clip(boxes[:, 2:], 0, size), low)
    fitted = np.concatenate([low, high], axis=1)
    moved = np.abs(fitted - boxes).max(axis=1, initial=0)
    if moved.size and moved.max() > BOX_SLACK_PX:
        region = int(moved.argmax())
        detail = f"region {region}: {boxes[region].tolist()} in {size[0]:.0f} x {size[1]:.0f}"
        raise BadLine("box outside the image", detail)
    return fitted, bool(moved.any())


def _said(row: Row, names: Names) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels (n,) uint16, scores (n,) float32, attributes and their scores (n or 0, 16)."""
    n = len(row)
    if row.objects is not None:
        labels = np.array([names.label(one.name) for one in row.objects], np.uint16)
        scores = np.array([one.score for one in row.objects], np.float32)
        return labels, scores, *_named_attributes(row.objects, names)
    scores = np.ones(n, np.float32) if row.scores is None else row.scores.astype(np.float32)
    if row.labels is None:
        return np.zeros(n, np.uint16), scores, *_no_attributes()
    return names.number_labels(row.labels), scores, *_numbered_attributes(row, names)


def _named_attributes(objects: Sequence[Object], names: Names) -> tuple[np.ndarray, np.ndarray]:
    if not any(one.attributes for one in objects):
        return _no_attributes()
    numbers = np.zeros((len(objects), MAX_ATTRIBUTES), np.uint16)
    scores = np.zeros((len(objects), MAX_ATTRIBUTES), np.float16)
    for region, one in enumerate(objects):
        pairs = zip(one.attributes, one.attribute_scores, strict=True)
        for place, (name, score) in enumerate(pairs):
            if score > 0:  # the others are filler
                numbers[region, place] = names.attribute(name)
                scores[region, place] = score
    return numbers, scores


def _numbered_attributes(row: Row, names: Names) -> tuple[np.ndarray, np.ndarray]:
    if row.attributes is None or row.attribute_scores is None or not len(row):
        return _no_attributes()
    with np.errstate(over="ignore", invalid="ignore"):
        said = row.attribute_scores.astype(np.float16)
    kept = min(row.attributes.shape[1], MAX_ATTRIBUTES)
    numbers = np.zeros((len(row), MAX_ATTRIBUTES), np.uint16)
    scores = np.zeros((len(row), MAX_ATTRIBUTES), np.float16)
    scores[:, :kept] = said[:, :kept]
    real = said[:, :kept] > 0
    numbers[:, :kept][real] = names.number_attributes(row.attributes[:, :kept][real])
    return numbers, scores


def _no_attributes() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((0, MAX_ATTRIBUTES), np.uint16), np.zeros((0, MAX_ATTRIBUTES), np.float16)


def _check_finite(what: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise BadLine("NaN or infinity", f"in the {what}")
