"""The detector as a whole, with a small random model: no folder of golden files is needed."""

from __future__ import annotations

import dataclasses
import json
import os

import numpy as np
import pytest
import torch

from tonics.errors import ConfigError, InputError, MissingAsset
from tonics.features.detector import Undescribed, load_detector
from tonics.features.vinvl import VinVL, VinVLConfig, preprocess
from tonics.features.vinvl import detector as module
from tonics.features.vinvl.answer import stored
from tonics.features.vinvl.exact import exact_float32
from tonics.features.vinvl.model import Found
from tonics.features.vinvl.preprocess import similar_shapes

from .conftest import SMALL, SMALL_LABELS, small_state

Image = pytest.importorskip("PIL.Image")


def variant(weights, **changes):
    return VinVL.from_state_dict(weights, SMALL_LABELS, dataclasses.replace(SMALL, **changes))


def as_image(x):
    """Turn a drawn input into a photo."""
    pixels = (x.permute(1, 2, 0) + 128).clamp(0, 255).numpy().astype(np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("ignore", [True, False])
@pytest.mark.parametrize("nms_filter", [0, 1, 2])
@pytest.mark.parametrize("nms", ["torchvision", "legacy"])
def test_it_is_the_model_written_down(weights, plain, photo, nms_filter, nms, ignore):
    changes = {"nms": nms, "nms_filter": nms_filter, "ignore_box_regression": ignore}
    detector = variant(weights, **changes)
    x = photo(3, 97, 150)
    found = detector.detect_tensor(x)
    expected = plain.PlainVinVL(weights, detector.config)(x)
    assert len(found) >= 10
    assert len(set(found.labels.tolist())) > 2
    np.testing.assert_array_equal(found.labels, expected["labels"])
    for name, tolerance in (("features", 2e-4), ("boxes", 2e-3), ("scores", 5e-5)):
        np.testing.assert_allclose(getattr(found, name), expected[name], rtol=0, atol=tolerance)
    real = expected["attribute_scores"] > 0
    np.testing.assert_allclose(
        found.attribute_scores[real], expected["attribute_scores"][real], atol=5e-5
    )
    np.testing.assert_array_equal(found.attributes[real], expected["attributes"][real])
    assert real.any()


@pytest.mark.parametrize("ignore", [True, False])
def test_an_image_is_the_same_beside_a_larger_one(weights, photo, ignore):
    detector = variant(weights, ignore_box_regression=ignore)
    inputs = [photo(1, 96, 113), photo(2, 160, 97), photo(3, 96, 160)]
    together = detector.detect_tensors(inputs)
    for x, found in zip(inputs, together, strict=True):
        alone = detector.detect_tensor(x)
        np.testing.assert_array_equal(found.labels, alone.labels)
        np.testing.assert_array_equal(found.attributes, alone.attributes)
        np.testing.assert_allclose(found.boxes, alone.boxes, rtol=0, atol=1e-3)
        np.testing.assert_allclose(found.features, alone.features, rtol=1e-5, atol=1e-5)
        assert (found.width, found.height) == (x.shape[2], x.shape[1])


def test_the_padded_map_is_the_image_alone(small, photo):
    from tonics.features.vinvl.preprocess import padded

    inputs = [photo(1, 91, 113), photo(2, 160, 97)]
    c4 = small.model.backbone(padded(inputs), [(91, 113), (160, 97)])
    for k, (height, width) in enumerate([(6, 8), (10, 7)]):
        alone = small.model.backbone(inputs[k][None])[0]
        torch.testing.assert_close(c4[k, :, :height, :width], alone, rtol=0, atol=1e-5)
        assert c4[k, :, height:].abs().sum() == 0
        assert c4[k, :, :, width:].abs().sum() == 0


def test_photos_in_regions_out(small, photo):
    images = [as_image(photo(k, *size)) for k, size in enumerate([(120, 200), (77, 60), (9, 300)])]
    found = small(images)
    for image, regions in zip(images, found, strict=True):
        regions.check("drawn", small.dim)
        assert (regions.width, regions.height) == image.size
        assert len(regions) >= 10
        assert regions.attributes.shape == (len(regions), 16)
        assert (np.diff(regions.scores) <= 0).all()
        assert regions.labels.min() >= 1
    assert small([]) == []


def test_photos_of_any_shape(small):
    for size in ((1, 1), (1, 500), (400, 1), (3, 2)):
        (regions,) = small([Image.new("RGB", size, "teal")])
        regions.check(size, small.dim)


def test_one_photo_or_many_give_the_same_bytes(small, photo, same):
    images = [as_image(photo(k, 100 + k, 130)) for k in range(3)]
    for image, expected in zip(images, small(images), strict=True):
        same(small([image])[0], expected)


def test_groups_as_a_gpu_computes_them(small, photo, monkeypatch):
    """The same answers, in the order asked for, when the images are padded together."""
    sizes = [(100, 130), (130, 100), (101, 133), (90, 300), (128, 99)]
    images = [as_image(photo(k, *size)) for k, size in enumerate(sizes)]
    expected = small(images)
    monkeypatch.setattr(module, "on_cpu", lambda device: False)
    assert small.batch_size == 16
    calls = []
    detect = small._detect
    monkeypatch.setattr(small, "_detect", lambda xs, bs: calls.append(len(xs)) or detect(xs, bs))
    found = small(images, [None, None, None, np.array([[0, 0, 20, 20]]), None])
    assert sorted(calls) == [1, 2, 2]
    for k in (0, 1, 2, 4):
        np.testing.assert_array_equal(found[k].labels, expected[k].labels)
        np.testing.assert_allclose(found[k].boxes, expected[k].boxes, atol=1e-2)
    assert found[3].boxes.tolist() == [[0, 0, 20, 20]]


def test_a_lazily_opened_photo_is_read_before_threads_resize_it(
    small, photo, same, tmp_path, monkeypatch
):
    as_image(photo(0, 100, 130)).save(tmp_path / "photo.png")
    (expected,) = small([Image.open(tmp_path / "photo.png")])
    lazy, resize, unread = Image.open(tmp_path / "photo.png"), preprocess.resized_pixels, []

    def noted(image, config):
        unread.append(bool(image.tile))  # what is still to be decoded
        return resize(image, config)

    monkeypatch.setattr(module, "on_cpu", lambda device: False)
    monkeypatch.setattr(preprocess, "resized_pixels", noted)
    first, second = small([lazy, lazy])
    assert unread == [False, False]
    np.testing.assert_array_equal(first.labels, expected.labels)
    same(second, first)


def test_similar_shapes_share_a_batch():
    config = VinVLConfig(padded_batch=2)
    groups = similar_shapes([(800, 600), (600, 800), (800, 602), (810, 600), (1000, 250)], config)
    assert sorted(k for group in groups for k in group) == [0, 1, 2, 3, 4]
    assert [1] in groups
    assert [4] in groups
    assert max(map(len, groups)) == 2


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_near(weights, small, photo, precision):
    half = variant(weights, precision=precision)
    assert half.model.backbone.stem.weight.dtype == getattr(torch, precision)
    inputs = [photo(1, 96, 113), photo(2, 104, 97)]
    boxes = [np.array([[5, 5, 60, 90], [0, 0, 97, 96]], np.float32)] * 2
    for found, exact in zip(
        half.detect_tensors(inputs, boxes), small.detect_tensors(inputs, boxes), strict=True
    ):
        assert found.features.dtype == np.float32
        error = np.linalg.norm(found.features - exact.features) / np.linalg.norm(exact.features)
        assert 0 < error < (0.05 if precision == "bfloat16" else 0.01)
    for found in half.detect_tensors(inputs):
        assert len(found) >= 10


LAYER4 = "roi_heads.box.feature_extractor.head.layer4"


@pytest.mark.parametrize(
    ("keys", "factor", "ignore"),
    [
        ([f"{LAYER4}.0.bn3.bias", f"{LAYER4}.1.bn3.bias"], 4e4, True),
        (["rpn.head.conv.weight"], 1e5, True),
        (["rpn.head.cls_logits.weight"], 5e4, True),
        (["rpn.head.bbox_pred.weight"], 1e6, True),
        (["rpn.head.bbox_pred.weight"], 1e6, False),
    ],
)
def test_numbers_beyond_half_precision_are_an_error(weights, photo, keys, factor, ignore):
    huge = {
        k: torch.full_like(v, factor) if v.dim() == 1 else v * factor
        for k, v in weights.items()
        if k in keys
    }
    detector = variant(weights | huge, precision="float16", ignore_box_regression=ignore)
    with pytest.raises(Undescribed, match=r"\(image 0 of 1\); set precision"):
        detector.detect_tensor(photo(0, 96, 96))


def test_weights_beyond_half_precision_are_not_loaded(weights):
    key = "rpn.head.cls_logits.bias"
    huge = weights | {key: weights[key] + 1e5}
    with pytest.raises(
        InputError, match=r"'rpn.head.cls_logits', with its norm, is beyond torch.float16"
    ):
        variant(huge, precision="float16")
    variant(huge, precision="bfloat16")


@pytest.mark.parametrize("ignore", [True, False])
@pytest.mark.parametrize("nms_filter", [0, 1, 2])
def test_an_input_that_is_not_finite_spoils_no_other(weights, photo, same, nms_filter, ignore):
    detector = variant(weights, nms_filter=nms_filter, ignore_box_regression=ignore)
    inputs = [photo(1, 96, 113), photo(2, 120, 97), photo(3, 96, 120)]
    inputs[1][0, 50, 50] = float("nan")
    with pytest.raises(Undescribed, match=r"not finite.*\(image 1 of 3\); check") as error:
        detector.detect_tensors(inputs)
    first, none, third = error.value.answers
    assert none is None
    inputs[1] = photo(2, 120, 97)
    expected = detector.detect_tensors(inputs)
    same(first, expected[0])
    same(third, expected[2])
    inputs[1][0, 50, 50] = float("inf")
    with pytest.raises(Undescribed):
        detector.detect_tensors(inputs[1:2], [np.array([[0, 0, 90, 90]])])


def test_a_photo_without_usable_numbers_costs_no_other(small, photo, same, monkeypatch):
    images = [as_image(photo(k, 100, 130)) for k in range(3)]
    expected, detect, seen = small(images), small._detect, []

    def spoiled(inputs, boxes):
        seen.append(inputs)
        found = detect(inputs, boxes)
        if len(seen) == 2:
            found[0] = dataclasses.replace(found[0], features=found[0].features + 65505)
        return [None] if len(seen) == 3 else found

    monkeypatch.setattr(small, "_detect", spoiled)
    with pytest.raises(Undescribed, match="image 1, 2 of 3") as error:
        small(images)
    assert error.value.answers[1:] == [None, None]
    assert error.value.reason == "numbers that are not finite, or beyond float16"
    same(error.value.answers[0], expected[0])


@pytest.mark.parametrize("name", ["fp32_precision", "legacy"])
def test_how_the_caller_multiplies_is_the_callers(small, photo, same, name):
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    expected = small.detect_tensor(photo(0, 96, 96))
    before = torch.backends.fp32_precision, torch.get_float32_matmul_precision()
    try:
        if name == "legacy":
            torch.set_float32_matmul_precision("high")
        else:
            torch.backends.fp32_precision = "tf32"
        ours = matmul.fp32_precision, convolution.fp32_precision
        assert "tf32" in ours
        same(small.detect_tensor(photo(0, 96, 96)), expected)
        with exact_float32(torch.device("cuda")):
            assert (matmul.fp32_precision, convolution.fp32_precision) == ("ieee", "ieee")
        assert (matmul.fp32_precision, convolution.fp32_precision) == ours
    finally:
        torch.backends.fp32_precision = before[0]
        torch.set_float32_matmul_precision(before[1])


def test_a_device_may_be_torchs_own(weights, photo, small, same):
    detector = VinVL.from_state_dict(weights, SMALL_LABELS, SMALL, torch.device("cpu"))
    same(detector.detect_tensor(photo(0, 96, 96)), small.detect_tensor(photo(0, 96, 96)))


BOXES = np.array([[10, 20, 50, 60], [0, 0, 130, 100], [70, 30, 70, 30], [10, 20, 50, 60]], float)


def test_given_boxes_are_described_as_they_are(small, photo):
    image = as_image(photo(0, 100, 130))
    searched, given, none = small([image] * 3, [None, BOXES, np.zeros((0, 4))])
    given.check("given", small.dim)
    none.check("none", small.dim)
    np.testing.assert_array_equal(given.boxes, BOXES.astype(np.float32))
    np.testing.assert_array_equal(given.features[0], given.features[3])
    assert len(none) == 0
    assert len(searched) >= 10
    assert given.labels.min() >= 1
    again = small([image], [given.boxes[::-1]])[0]
    np.testing.assert_array_equal(again.labels, given.labels[::-1])


def test_detections_given_back_keep_their_features(small, photo):
    x = photo(0, 100, 130)
    found = small.detect_tensor(x)
    again = small.detect_tensor(x, boxes=found.boxes)
    np.testing.assert_allclose(again.features, found.features, rtol=0, atol=1e-5)
    alike = again.labels == found.labels  # some were found under their second class
    assert alike.sum() >= 5
    assert (found.attribute_scores[alike] > 0).any(axis=1).all()
    np.testing.assert_allclose(
        again.attribute_scores[alike], found.attribute_scores[alike], rtol=0, atol=1e-5
    )
    np.testing.assert_array_equal(again.attributes[alike, 0], found.attributes[alike, 0])


@pytest.mark.parametrize(
    ("boxes", "says"),
    [
        ([np.zeros((2, 5))], "shape (2, 5), expected (n, 4)"),
        ([np.zeros(4)], "shape (4,), expected (n, 4)"),
        ([[["a", 0, 0, 0]]], "no numbers"),
        ([[[0, 0, 5, 5], [9, 0, 5, 5]]], "row 1 is [9.0, 0.0, 5.0, 5.0], expected x1 <= x2"),
        ([[[0, 0, 132.5, 5]]], "inside the 130 x 100 image"),
        ([[[-2.5, 0, 5, 5]]], "row 0 is [-2.5"),
        ([[[0, 0, float("nan"), 5]]], "nan"),
        ([None, None], "2 entries for 1 images"),
    ],
)
def test_bad_boxes_are_refused(small, boxes, says):
    with pytest.raises(InputError) as error:
        small([Image.new("RGB", (130, 100))], boxes)
    assert says in str(error.value)


def test_what_leaves_the_image_by_float_noise_is_cut_off(small, photo):
    image = as_image(photo(0, 100, 130))
    loose = np.array([[-0.01, 5, 130.00009, 60], [10, -2, 50, 102]])
    (regions,) = small([image], [loose])
    tight = np.array([[0, 5, 130, 60], [10, 0, 50, 100]], np.float32)
    np.testing.assert_array_equal(regions.boxes, tight)
    np.testing.assert_array_equal(regions.features, small([image], [tight])[0].features)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (Image.new("RGB", (8, 8)), "the images are a Image, expected a list of PIL images"),
        (["photo.jpg"], "image 0 is a str, expected a PIL image; open files with PIL.Image.open"),
        ([np.zeros((8, 8, 3), np.uint8)], "image 0 is a ndarray"),
        ("photo.jpg", "the images are a str"),
        (None, "the images are a NoneType"),
    ],
)
def test_what_is_no_list_of_images_is_refused(small, images, says):
    with pytest.raises(InputError) as error:
        small(images)
    assert says in str(error.value)


def test_an_input_may_be_an_array(small, photo, same):
    x = photo(0, 96, 120)
    same(small.detect_tensor(x.numpy()), small.detect_tensor(x))


@pytest.mark.parametrize(
    ("x", "says"),
    [
        ("photo.jpg", "a str, expected float32"),
        (np.zeros((3, 9, 9), np.uint8), "uint8 of shape (3, 9, 9), expected float32"),
        (np.zeros((9, 9, 3)), "of shape (9, 9, 3), expected float32 (3, H, W)"),
        (Image.new("RGB", (8, 8)), "a Image, expected float32"),
    ],
)
def test_what_is_no_input_is_refused(small, x, says):
    with pytest.raises(InputError) as error:
        small.detect_tensor(x)
    assert says in str(error.value)
    with pytest.raises(InputError, match="the inputs are a int"):
        small.detect_tensors(3)


def test_an_input_of_another_shape_is_refused(small):
    with pytest.raises(InputError, match=r"shape \(1, 3, 96, 96\), expected float32 \(3, H, W\)"):
        small.detect_tensor(torch.zeros(1, 3, 96, 96))


@pytest.fixture
def files(tmp_path, weights):
    torch.save({"model": weights}, tmp_path / "small.pth")
    (tmp_path / "labels.json").write_text(json.dumps(SMALL_LABELS))
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in SMALL.deciding().items()}
    settings = {k: v for k, v in settings.items() if v is not None}
    paths = {"checkpoint": str(tmp_path / "small.pth"), "label_map": str(tmp_path / "labels.json")}
    return settings | paths


def test_loading_by_name_waits_for_the_first_photo(files, small, photo, same):
    detector = load_detector("vinvl", files)
    assert detector._model is None
    assert (detector.dim, detector.batch_size) == (128, 1)
    assert len(detector.vocabulary.labels) == 12
    assert load_detector("vinvl", files, "cuda:1").batch_size == 16
    assert detector.cpu_s_per_image < 2
    assert isinstance(detector.bytes_per_image, int)
    image = as_image(photo(0, 100, 130))
    same(detector([image])[0], small([image])[0])


@pytest.mark.parametrize("key", ["checkpoint", "label_map"])
def test_files_that_are_not_there(files, key):
    without = {k: v for k, v in files.items() if k != key}
    with pytest.raises(MissingAsset, match=f"no {key} is set; download"):
        load_detector("vinvl", without)
    with pytest.raises(MissingAsset, match=rf"{key} = '/no/where' is not there; download"):
        load_detector("vinvl", files | {key: "/no/where"})
    with pytest.raises(ConfigError, match=f"{key} = 7, expected the path"):
        load_detector("vinvl", files | {key: 7})
    with pytest.raises(ConfigError, match="unknown setting 'treshold'"):
        load_detector("vinvl", files | {"treshold": 1})


def test_the_fingerprint_names_what_decides_the_numbers(files, weights, tmp_path):
    first = load_detector("vinvl", files).fingerprint()
    assert load_detector("vinvl", files, "cuda").fingerprint() == first
    assert load_detector("vinvl", files | {"batch_size": 3}).fingerprint() == first
    other = load_detector("vinvl", files | {"nms_filter": 2}).fingerprint()
    assert {k for k in first if first[k] != other[k]} == {"settings"}
    before, after = first["settings"], other["settings"]
    assert {k for k in before if before[k] != after[k]} == {"nms_filter"}
    assert json.loads(json.dumps(first)) == first
    renamed = SMALL_LABELS | {"label_to_idx": {f"other {k}": k for k in range(1, 12)}}
    (tmp_path / "labels.json").write_text(json.dumps(renamed))
    other = load_detector("vinvl", files).fingerprint()
    assert {k for k in first if first[k] != other[k]} == {"label_map"}
    (tmp_path / "labels.json").write_text(json.dumps(SMALL_LABELS))
    key = "rpn.head.conv.bias"
    torch.save(weights | {key: weights[key] + 1}, tmp_path / "small.pth")
    other = load_detector("vinvl", files).fingerprint()
    assert {k for k in first if first[k] != other[k]} == {"weights"}


def test_the_fingerprint_of_a_state_dict(weights, small):
    same_weights = VinVL.from_state_dict({"model": weights}, SMALL_LABELS, SMALL)
    assert same_weights.fingerprint() == small.fingerprint()
    key = "rpn.head.conv.bias"
    other = VinVL.from_state_dict(weights | {key: weights[key] + 1}, SMALL_LABELS, SMALL)
    assert other.fingerprint()["weights"] != small.fingerprint()["weights"]


def test_a_checkpoint_replaced_in_use_is_refused(files, weights, photo):
    path, image = files["checkpoint"], as_image(photo(0, 96, 96))
    key = "rpn.head.conv.bias"
    loaded, told = load_detector("vinvl", files), load_detector("vinvl", files)
    loaded([image])
    name = told.fingerprint()
    torch.save(weights | {key: weights[key] + 1}, path)
    assert loaded.fingerprint() == name  # what it computes with
    with pytest.raises(InputError, match="was replaced while it was in use"):
        told([image])
    fresh = load_detector("vinvl", files)
    fresh([image])
    assert fresh.fingerprint()["weights"] != name["weights"]


def test_a_checkpoint_replaced_while_it_is_read_is_refused(files, weights, monkeypatch):
    detector = load_detector("vinvl", files)
    read = detector._source.read

    def slow():
        state = read()
        torch.save({"model": small_state(1)}, files["checkpoint"] + ".new")
        os.replace(files["checkpoint"] + ".new", files["checkpoint"])
        return state

    monkeypatch.setattr(detector._source, "read", slow)
    with pytest.raises(InputError, match="was replaced"):
        detector.model  # noqa: B018


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("ignore", [True, False])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_gpu_finds_the_same(weights, photo, precision, ignore):
    """Photos of mixed sizes, searched and with given boxes."""
    config = dataclasses.replace(SMALL, precision=precision, ignore_box_regression=ignore)
    ours = VinVL.from_state_dict(weights, SMALL_LABELS, config, device="cuda")
    on_cpu = variant(weights, ignore_box_regression=ignore)
    sizes = [(100, 130), (130, 100), (101, 133), (90, 300), (128, 99)]
    images = [as_image(photo(k, *size)) for k, size in enumerate(sizes)]
    boxes = [None, None, np.array([[5, 5, 60, 90], [0, 0, 133, 101]]), None, None]
    exact = precision == "float32"
    for k, (found, expected) in enumerate(
        zip(ours(images, boxes), on_cpu(images, boxes), strict=True)
    ):
        found.check(f"image {k}", config.dim)
        pairs = list(matched(found, expected, 0.05 if exact else 3))
        assert len(pairs) >= (1 if exact else 0.8) * max(len(found), len(expected))
        a, b = np.array(pairs).T
        mine, theirs = (x.astype(np.float32) for x in (found.features[a], expected.features[b]))
        errors = np.linalg.norm(mine - theirs, axis=1) / np.linalg.norm(theirs, axis=1)
        # In half precision a proposal may move by a pixel, which is much of a small box.
        assert (errors.max() if exact else np.median(errors)) < (1e-3 if exact else 0.01)
        tolerance = 2e-3 if exact else 0.05
        np.testing.assert_allclose(found.scores[a], expected.scores[b], rtol=0, atol=tolerance)
        np.testing.assert_allclose(
            found.attribute_scores[a, 0], expected.attribute_scores[b, 0], rtol=0, atol=tolerance
        )


def matched(found, expected, reach):
    """Pair detections of the same label whose boxes are nearer than ``reach`` pixels, each once.

    Boxes that were cut to nothing at a border are equal: then the nearest score decides.
    """
    near = np.abs(found.boxes[:, None] - expected.boxes[None]).max(axis=2) < reach
    near &= found.labels[:, None] == expected.labels[None]
    apart = np.abs(found.scores[:, None] - expected.scores[None])
    pairs = sorted(zip(*np.nonzero(near), strict=True), key=lambda pair: apart[pair])
    ours, theirs = set(), set()
    for k, j in pairs:
        if k not in ours and j not in theirs:
            ours.add(k)
            theirs.add(j)
            yield k, j


def test_boxes_travel_between_the_photo_and_its_input(small, photo):
    image = as_image(photo(0, 50, 65))  # resized to 96 x 124
    given = small([image], [np.array([[6.5, 10, 65, 25]])])[0]
    from tonics.features.vinvl.preprocess import resized_pixels, to_input

    x = to_input(resized_pixels(image, SMALL), SMALL)
    assert x.shape == (3, 96, 124)
    expected = small.detect_tensor(x, np.array([[12.4, 19.2, 124, 48]]))
    np.testing.assert_allclose(given.features, expected.features, rtol=2e-3, atol=1e-3)
    found, raw = small([image])[0], small.detect_tensor(x)
    scale = np.array([65 / 124, 50 / 96] * 2, np.float32)
    np.testing.assert_allclose(found.boxes, raw.boxes * scale, rtol=0, atol=1e-4)


def test_a_box_thinner_than_nothing_gets_no_width():
    one = {"labels": torch.ones(1, dtype=torch.int64), "scores": torch.ones(1)}
    found = Found(
        features=torch.full((1, 8), 65504.0),
        boxes=torch.tensor([[30.0, 5, 29.5, 9]]),
        attributes=torch.zeros(1, 16, dtype=torch.int64),
        attribute_scores=torch.zeros(1, 16),
        sound=torch.tensor(True),
        **one,
    )
    regions = stored(found, torch.zeros(3, 40, 80), (160, 80), None)
    regions.check("thin", 8)
    assert regions.boxes.tolist() == [[60, 10, 60, 18]]
    found.features[0, 0] = 65505
    assert stored(found, torch.zeros(3, 40, 80), (160, 80), None) is None
