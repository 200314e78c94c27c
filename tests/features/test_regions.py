"""Regions: what a shard may hold, and the geometry derived from it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tonics.errors import InputError
from tonics.features import RegionBatch, RegionBuffer, Regions


def test_geometry_is_boxes_in_shares_of_the_image(regions):
    one = dataclasses.replace(
        regions(0, 1), boxes=np.array([[10, 20, 50, 80]], np.float32), width=100, height=200
    )
    expected = np.array([[0.1, 0.1, 0.5, 0.4, 0.4, 0.3]], np.float32)
    assert one.geometry.dtype == np.float32
    np.testing.assert_allclose(one.geometry, expected, rtol=1e-6)


def test_geometry_of_a_batch_uses_each_images_own_size():
    batch = RegionBatch(
        images=np.arange(3),
        features=np.zeros((3, 2), np.float16),
        boxes=np.array([[0, 0, 10, 10]] * 3, np.float32),
        labels=np.zeros(3, np.uint16),
        scores=np.zeros(3, np.float32),
        cu_seqlens=np.array([0, 1, 1, 3], np.int32),
        widths=np.array([10, 999, 20], np.int32),
        heights=np.array([100, 999, 40], np.int32),
    )
    expected = [[0, 0, 1, 0.1, 1, 0.1], *[[0, 0, 0.5, 0.25, 0.5, 0.25]] * 2]
    np.testing.assert_allclose(batch.geometry, np.array(expected, np.float32), rtol=1e-6)


def test_hash_covers_every_array(regions):
    one = regions(1, 3)
    hashes = {one.xxh3()}
    for name in ("features", "boxes", "labels", "scores", "attributes", "attribute_scores"):
        changed = getattr(one, name).copy()
        changed[2] = changed[2] + 1
        hashes.add(dataclasses.replace(one, **{name: changed}).xxh3())
    assert len(hashes) == 7


def test_hash_does_not_depend_on_memory_layout(regions):
    one = regions(1, 3)
    other = dataclasses.replace(one, features=np.asfortranarray(one.features))
    assert one.xxh3() == other.xxh3()


def put(array: np.ndarray, at: object, value: float) -> np.ndarray:
    changed = array.copy()
    changed[at] = value
    return changed


REFUSED = [
    (lambda r: {"features": put(r.features, (1, 2), np.nan)}, "features of region 1 hold NaN"),
    (lambda r: {"features": put(r.features, (0, 0), np.inf)}, "features of region 0 hold NaN"),
    (lambda r: {"features": r.features.astype(np.float32)}, "features are float32 (2, 6)"),
    (lambda r: {"features": r.features[:, :5]}, "features are float16 (2, 5)"),
    (lambda r: {"features": r.features[:1]}, "boxes are float32 (2, 4), expected float32 (1, 4)"),
    (lambda r: {"boxes": put(r.boxes, (1, 0), -0.5)}, "of region 1, expected x1 <= x2"),
    (lambda r: {"boxes": put(r.boxes, (1, 2), 320.5)}, "inside the 320 x 240 image"),
    (lambda r: {"boxes": put(r.boxes, (0, 3), 240.5)}, "of region 0"),
    (lambda r: {"boxes": r.boxes[:, [2, 1, 0, 3]]}, "expected x1 <= x2"),
    (lambda r: {"boxes": put(r.boxes, (0, 0), np.nan)}, "boxes of region 0 hold NaN"),
    (lambda r: {"scores": put(r.scores, 1, np.inf)}, "scores of region 1 hold NaN"),
    (lambda r: {"labels": r.labels.astype(np.int64)}, "labels are int64"),
    (lambda r: {"attributes": r.attributes[:1]}, "attributes are uint16 (1, 16)"),
    (lambda r: {"attribute_scores": r.attribute_scores[:, :3]}, "attribute_scores are float16"),
    (lambda r: {"width": 0}, "image size 0 x 240"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_what_a_shard_must_not_hold_is_refused(regions, change, message):
    good = regions(3, 2)
    good.check("image 4", 6)
    bad = dataclasses.replace(good, **change(good))
    with pytest.raises(InputError) as error:
        bad.check("image 4", 6)
    assert str(error.value).startswith("image 4: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_box_may_touch_the_border_and_have_no_area(regions):
    boxes = np.array([[0, 0, 320, 240], [320, 240, 320, 240]], np.float32)
    dataclasses.replace(regions(3, 2), boxes=boxes).check("image 4", 6)


def test_more_regions_than_an_int16_counts_are_refused():
    n = 2**15
    many = Regions(
        features=np.zeros((n, 1), np.float16),
        boxes=np.zeros((n, 4), np.float32),
        labels=np.zeros(n, np.uint16),
        scores=np.zeros(n, np.float32),
        attributes=np.zeros((0, 16), np.uint16),
        attribute_scores=np.zeros((0, 16), np.float16),
        width=1,
        height=1,
    )
    with pytest.raises(InputError, match="32768 regions, expected at most 32767"):
        many.check("image 4", 1)


def test_buffer_grows_but_keeps_memory_that_was_given():
    own = RegionBuffer(4)
    own.reserve(10)
    kept = own.features
    own.reserve(3)
    assert own.features is kept
    given = np.empty((5, 4), np.float16)
    fixed = RegionBuffer(4, features=given)
    fixed.reserve(5)
    assert fixed.features is given
    with pytest.raises(InputError, match="room for 5 regions, expected 6 or more"):
        fixed.reserve(6)
    with pytest.raises(InputError, match=r"float16 \(capacity, 3\)"):
        RegionBuffer(3, features=given)
