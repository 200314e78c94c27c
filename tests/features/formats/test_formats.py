"""Every family of feature files: recognised, read right, and refused line by line."""

from __future__ import annotations

import base64
import gc
import json
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tonics.errors import InputError
from tonics.features import Regions
from tonics.features.formats import FORMATS, format_of, read_features
from tonics.features.formats.lines import lines_of
from tonics.features.formats.names import Names, read_names
from tonics.features.formats.objects import size_of
from tonics.features.formats.row import BadLine, Object

FAMILIES = list(FORMATS)
SIZE = (64, 48)


@pytest.fixture
def seen(feature_files: ModuleType) -> list[Any]:
    """Five images, one of them without regions."""
    return [feature_files.Seen(key=f"img{k}", count=(3, 1, 0, 4, 2)[k], seed=k) for k in range(5)]


def _names(files: ModuleType, *, background: bool = False) -> Names:
    from tonics.features.detector import Label

    first = int(background)
    labels = [Label("__background__")] * first + [Label(name) for name in files.NAMES]
    attributes = ["__no_attribute__"] * first + list(files.ATTRIBUTES)
    return Names(
        labels=labels,
        attributes=attributes,
        first_label=first,
        first_attribute=first,
        fixed=True,
    )


def _read(path: Path, **options: Any) -> list[tuple[int, str, Any]]:
    sizes = {f"img{k}": SIZE for k in range(9)}
    return list(read_features(path, sizes=sizes, **options))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_recognised_and_read(
    family: str, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    path = feature_files.write_family(tmp_path, family, seen)
    assert format_of(path) == family
    names = None if family == "bottom_up" else _names(feature_files)
    found = _read(path, names=names)
    assert [(n, key) for n, key, _ in found] == [(k + 1, f"img{k}") for k in range(5)]
    for one, (_, _, regions) in zip(seen, found, strict=True):
        assert isinstance(regions, Regions), regions
        regions.check(one.key, feature_files.DIM)
        np.testing.assert_array_equal(regions.features, one.features.astype(np.float16))
        np.testing.assert_array_equal(regions.boxes, one.boxes)
        assert (regions.width, regions.height) == SIZE
        if family != "bottom_up":
            np.testing.assert_array_equal(regions.labels, one.labels)
            np.testing.assert_array_equal(regions.scores, one.scores)


@pytest.mark.parametrize("family", ["scene_graph", "oscar", "vinvl_fe", "lxmert"])
def test_attributes_come_without_their_filler(
    family: str, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    path = feature_files.write_family(tmp_path, family, seen[:1])
    regions = _read(path, names=_names(feature_files))[0][2]
    kept = 1 if family == "lxmert" else 2
    assert (regions.attribute_scores > 0).sum(axis=1).tolist() == [kept] * 3
    np.testing.assert_array_equal(regions.attributes[:, :kept], seen[0].attributes[:, :kept])
    assert not regions.attributes[:, kept:].any()


@pytest.mark.parametrize("family", ["scene_graph", "lxmert", "vinvl_fe"])
def test_a_background_keeps_number_0(
    family: str, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    path = feature_files.write_family(tmp_path, family, seen[:1])
    regions = _read(path, names=_names(feature_files, background=True))[0][2]
    np.testing.assert_array_equal(regions.labels, seen[0].labels + 1)
    assert regions.attributes[:, 0].tolist() == (seen[0].attributes[:, 0] + 1).tolist()


def test_names_are_numbered_as_they_come(
    tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    path, names = feature_files.write_family(tmp_path, "oscar", seen), Names()
    found = _read(path, names=names)
    for one, (_, _, regions) in zip(seen, found, strict=True):
        said = [names.labels[k].name for k in regions.labels]
        assert said == [feature_files.NAMES[k] for k in one.labels]
    first = feature_files.NAMES[seen[0].labels[0]]
    assert names.labels[0].name == first


@pytest.mark.parametrize(("family", "first"), [("lxmert", 0), ("vinvl_fe", 1)])
def test_numbers_without_a_vocabulary_stay_as_they_are(
    family: str, first: int, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    path = feature_files.write_family(tmp_path, family, seen[:1])
    regions = _read(path)[0][2]
    np.testing.assert_array_equal(regions.labels, seen[0].labels + first)


def test_oscar_without_predictions_takes_boxes_from_the_geometry(
    tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    lines = [feature_files.oscar(one) for one in seen]
    path = feature_files.write_lines(tmp_path / "features.tsv", lines)
    regions = _read(path)[0][2]
    np.testing.assert_allclose(regions.boxes, seen[0].boxes, atol=1e-4)
    assert not regions.labels.any()


def test_features_without_geometry_are_accepted_with_predictions(
    tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    path = feature_files.write_family(tmp_path, "oscar", seen)
    feature_files.write_lines(path, [feature_files.oscar(one, geometry=False) for one in seen])
    regions = _read(path)[0][2]
    assert regions.features.shape == (3, feature_files.DIM)
    feature_files.write_lines(tmp_path / "predictions.tsv", [])
    assert str(_read(path)[0][2]).startswith("no boxes and labels for it")


def test_predictions_may_be_a_plain_list_and_in_any_order(
    tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    path = feature_files.write_family(tmp_path, "oscar", seen)
    lines = [f"{one.key}\t{json.dumps(feature_files.objects(one))}" for one in reversed(seen)]
    feature_files.write_lines(tmp_path / "predictions.tsv", lines)
    for one, (_, _, regions) in zip(seen, _read(path), strict=True):
        np.testing.assert_array_equal(regions.boxes, one.boxes)


def test_json_that_others_write_is_read_too(
    tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    line = feature_files.scene_graph(seen[0])
    key, text = line.split("\t")
    compact = json.dumps(json.loads(text), separators=(",", ":"))
    escaped = text.replace("/", "\\/")
    path = feature_files.write_lines(
        tmp_path / "predictions.tsv", [line, f"{key}\t{compact}", f"{key}\t{escaped}\r"]
    )
    one, *others = (regions for _, _, regions in _read(path))
    for other in others:
        np.testing.assert_array_equal(other.features, one.features)


def _cell(line: str, column: int, text: str) -> str:
    cells = line.split("\t")
    cells[column] = text
    return "\t".join(cells)


def _floats(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()


def _bad_lines(files: ModuleType, one: Any) -> dict[str, tuple[str, str]]:
    """Reason -> (family, a line that has to be rejected for it)."""
    good = files.bottom_up(one)
    huge, nan, far = one.features.copy(), one.features.copy(), one.boxes.copy()
    huge[1, 2], nan[0, 0], far[0, 2] = 70_000, np.nan, one.width + 9
    return {
        "wrong column count": ("bottom_up", good + "\tmore"),
        "bad base64": ("bottom_up", _cell(good, 5, "!" + good.split("\t")[5])),
        "length does not fit num_boxes": ("bottom_up", _cell(good, 3, "2")),
        "bad number": ("bottom_up", _cell(good, 3, "three")),
        "other feature size": ("bottom_up", _cell(good, 5, _floats(one.features[:, :7]))),
        "NaN or infinity": ("bottom_up", _cell(good, 5, _floats(nan))),
        "feature beyond float16": ("bottom_up", _cell(good, 5, _floats(huge))),
        "box outside the image": ("bottom_up", _cell(good, 4, _floats(far))),
        "image size not known": ("scene_graph", _cell(files.scene_graph(one), 0, "elsewhere")),
        "bad JSON": ("scene_graph", files.scene_graph(one)[:-2]),
        "not the JSON of this format": ("scene_graph", f'{one.key}\t{{"objects": [{{}}]}}'),
        "label not in the vocabulary": ("lxmert", _cell(files.lxmert(one), 3, _integers(one, 3))),
        "attribute not in the vocabulary": (
            "lxmert",
            _cell(files.lxmert(one), 5, _integers(one, 9)),
        ),
        "geometry does not fit the boxes": ("oscar", _swapped(files, one)),
        "another number of objects than features": ("oscar", files.oscar(_more(files, one))),
    }


def _integers(one: Any, number: int) -> str:
    return base64.b64encode(np.full(one.count, number, "<i8").tobytes()).decode()


def _swapped(files: ModuleType, one: Any) -> str:
    values = np.concatenate([one.features, one.geometry[:, [1, 0, 3, 2, 5, 4]]], axis=1)
    return f"{one.key}\t{one.count}\t{_floats(values)}"


def _more(files: ModuleType, one: Any) -> Any:
    return files.Seen(key=one.key, count=one.count + 1, seed=5)


REASONS = [
    "wrong column count",
    "bad base64",
    "length does not fit num_boxes",
    "bad number",
    "other feature size",
    "NaN or infinity",
    "feature beyond float16",
    "box outside the image",
    "image size not known",
    "bad JSON",
    "not the JSON of this format",
    "label not in the vocabulary",
    "attribute not in the vocabulary",
    "geometry does not fit the boxes",
    "another number of objects than features",
]


@pytest.mark.parametrize("reason", REASONS)
def test_a_bad_line_is_rejected_by_its_number_and_the_others_are_read(
    reason: str, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    family, line = _bad_lines(feature_files, seen[0])[reason]
    path = feature_files.write_family(tmp_path, family, seen)
    lines = path.read_text().splitlines()
    feature_files.write_lines(path, [*lines[:3], line, *lines[4:]])
    if family == "oscar":
        mates = [feature_files.predictions(one) for one in [seen[0], *seen[1:]]]
        feature_files.write_lines(tmp_path / "predictions.tsv", mates)
    names = None if family == "bottom_up" else _names(feature_files)
    found = _read(path, names=names)
    bad = [(number, problem) for number, _, problem in found if isinstance(problem, BadLine)]
    assert [number for number, _ in bad] == [4], bad
    assert bad[0][1].reason == reason


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rect", f"[0, 0, 1, {'9' * 400}]"), ("conf", "9" * 400),
        ("attr_scores", f"[{'9' * 400}, 0.5]"),
    ],
)  # fmt: skip
def test_odd_numbers_in_json_cost_a_line(
    key: str, value: str, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    image_id, text = feature_files.scene_graph(seen[0]).split("\t")
    said = json.loads(text)
    said["objects"][0][key] = "HERE"
    line = f"{image_id}\t" + json.dumps(said).replace('"HERE"', value)
    path = feature_files.write_family(tmp_path, "scene_graph", seen)
    lines = path.read_text().splitlines()
    feature_files.write_lines(path, [line, *lines[1:]])
    bad = [problem for _, _, problem in _read(path) if isinstance(problem, BadLine)]
    assert [problem.reason for problem in bad] == ["not the JSON of this format"]
    assert len(str(bad[0])) < 150


@pytest.mark.parametrize("side", ["Infinity", "2147483648", "NaN", "9" * 400, "-1"])
def test_odd_sizes_in_json_cost_a_line(side: str) -> None:
    with pytest.raises(BadLine, match="image_w and image_h are ") as error:
        size_of(json.loads(f'{{"image_w": {side}, "image_h": 4}}'), "image_w", "image_h")
    assert len(str(error.value)) < 150


@pytest.mark.parametrize("family", ["bottom_up", "lxmert"])
def test_a_side_beyond_int32_costs_a_line(
    family: str, tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    path = feature_files.write_family(tmp_path, family, seen)
    lines = path.read_text().splitlines()
    feature_files.write_lines(path, [_cell(lines[0], 1, "2147483648"), *lines[1:]])
    assert getattr(_read(path)[0][2], "reason", "") == "bad number"


def test_more_names_than_numbers_cost_a_line() -> None:
    names = Names()
    names.collect([_object(f"l{k}", f"a{k}") for k in range(65_536)])
    names.collect([_object("l0", "a65535")])
    with pytest.raises(BadLine, match="too many labels"):
        names.collect([_object("new", "a0")])
    with pytest.raises(BadLine, match="too many attributes"):
        names.collect([_object("l0", "new")])
    assert (len(names.labels), len(names.attributes)) == (65_536, 65_536)
    with pytest.raises(BadLine, match="not in the vocabulary"):
        names.label("new")


def _object(name: str, attribute: str) -> Object:
    box = (0.0, 0.0, 1.0, 1.0)
    return Object(name=name, score=1.0, box=box, attributes=(attribute,), attribute_scores=(1.0,))


@pytest.mark.parametrize("names", [Names.without_names(1), Names.without_names(0)])
def test_numbers_that_wrap_around_are_no_labels(names: Names) -> None:
    most = np.iinfo(np.int64).max
    for number in (most, -1, 65_536):
        with pytest.raises(BadLine, match="label not in the vocabulary"):
            names.number_labels(np.array([0, number], np.int64))
    end = 65_536 - names.first_label
    assert names.number_labels(np.array([end - 1], np.int64)).tolist() == [65_535]


def test_an_empty_second_file_with_an_index_has_no_lines(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(b"")
    (tmp_path / "a.lineidx").write_bytes(b"")
    assert list(lines_of(tmp_path / "a.tsv", ids_only=True)) == []


def test_labels_of_another_row_are_not_used(
    tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    path = feature_files.write_family(tmp_path, "oscar_captioning", seen)
    labels = tmp_path / "x.label.tsv"
    lines = labels.read_text().splitlines()
    feature_files.write_lines(labels, [lines[1], lines[0], lines[2]])
    reasons = [getattr(r, "reason", "") for _, _, r in _read(path)]
    assert reasons == ["rows of two images"] * 2 + [""] + ["no boxes and labels for it"] * 2


def test_a_box_just_outside_is_cut_off(tmp_path: Path, feature_files: ModuleType) -> None:
    one = feature_files.Seen(key="img0", count=2)
    one.boxes[0] = [-1.5, 0, 64.5, 48]
    path = feature_files.write_family(tmp_path, "bottom_up", [one])
    assert _read(path)[0][2].boxes[0].tolist() == [0, 0, 64, 48]


def test_rounding_to_float16_is_to_the_nearest(tmp_path: Path, feature_files: ModuleType) -> None:
    one = feature_files.Seen(key="img0", count=200)
    one.features[:] *= 10.0 ** np.random.default_rng(1).uniform(-9, 4, one.features.shape)
    path = feature_files.write_family(tmp_path, "bottom_up", [one])
    kept = _read(path)[0][2].features.astype(np.float64)
    off = np.abs(kept - one.features)
    assert (off <= np.maximum(np.abs(one.features) * 2**-11, 2**-25)).all()
    assert off.max() > 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty$"),
        (
            b"\xff\xd8\xff\xe0\0\x10JFIF\0\n",
            "is not text, expected a file with a line for every image$",
        ),
        (b"PK\3\4\0\0\x08\x08archive/data.pkl", "is not text"),
        (b"\x1f\x8b\x08", "is compressed with gzip; unpack it first"),
        (b"a\n", "a first line of 1 column, which no"),
        (b"a\tb\n", "a first line of 2 columns"),
        (b'img\t{"image_h": 1, "objects": []}\n', "a first line of 2 columns"),
    ],
)
def test_a_file_of_no_family_is_one_line(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "features.tsv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        format_of(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('dog\n{"caption": "a dog"}\n', "line 2 is '{"),
        ("\n", "0 lines"),
        ("word " * 100, "line 1 is 'word"),
        ("dog\n" * 70_000, "70,000 lines"),
    ],
)
def test_a_text_that_is_no_vocabulary_is_refused(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=f"not a vocabulary .*{says}.*a name a line"):
        read_names(path, None)


def test_predictions_of_oscar_lead_to_its_features(
    tmp_path: Path, feature_files: ModuleType, seen: list[Any]
) -> None:
    feature_files.write_family(tmp_path, "oscar", seen)
    with pytest.raises(InputError, match=r"give features\.tsv"):
        format_of(tmp_path / "predictions.tsv")


def test_vocabulary_files(tmp_path: Path, feature_files: ModuleType) -> None:
    text = tmp_path / "objects_vocab.txt"
    text.write_text("yolk\nstop sign,stopsign\n")
    plain = read_names(text, None)
    assert [label.name for label in plain.labels] == ["yolk", "stop sign"]
    assert (plain.first_label, plain.label("stop sign")) == (0, 1)
    json_file = tmp_path / "map.json"
    json_file.write_text(
        json.dumps({"label_to_idx": {"cat": 2, "dog": 1}, "attribute_to_idx": {"red": 1}})
    )
    vinvl = read_names(json_file, None)
    assert [label.name for label in vinvl.labels] == ["__background__", "dog", "cat"]
    assert (vinvl.first_label, vinvl.first_attribute) == (1, 1)
    json_file.write_text("[]")
    with pytest.raises(InputError, match="not a vocabulary"):
        read_names(json_file, None)
    with pytest.raises(InputError, match="no such vocabulary file"):
        read_names(tmp_path / "none.txt", None)


@pytest.mark.shared
def test_the_reference_s_own_file(shared: Path) -> None:
    golden = (
        shared.parent / "golden" / "vinvl" if shared.name == "data" else shared / "golden/vinvl"
    )
    path = golden / "tsv_tiny" / "predictions.tsv"
    names = read_names(golden / "labelmap_tiny.json", None)
    expected = np.load(golden / "golden_tiny.npz")
    rows = list(read_features(path, sizes={"woman_fish": (4096, 2730)}, names=names))
    assert [(number, key) for number, key, _ in rows] == [(1, "woman_fish")]
    regions = rows[0][2]
    assert isinstance(regions, Regions)
    assert len(regions) == 19
    features = expected["fe_box_features"].astype(np.float16)
    np.testing.assert_array_equal(regions.features, features)
    np.testing.assert_array_equal(regions.labels, expected["fe_labels"])
    np.testing.assert_allclose(regions.scores, expected["fe_scores"], rtol=1e-6)
    np.testing.assert_allclose(regions.boxes, expected["fe_boxes_orig"], rtol=1e-6)
    real = expected["fe_attr_scores"] > 0
    np.testing.assert_array_equal(regions.attributes[real], expected["fe_attr_labels"][real])
    np.testing.assert_array_equal(
        regions.attribute_scores, expected["fe_attr_scores"].astype(np.float16)
    )


def test_reading_closes_its_files(
    tmp_path: Path, feature_files: ModuleType, seen: list[Any], recwarn: pytest.WarningsRecorder
) -> None:
    warnings.simplefilter("always", ResourceWarning)
    reading = read_features(feature_files.write_family(tmp_path, "oscar", seen))
    next(reading)
    reading.close()
    del reading
    gc.collect()
    assert not [str(w.message) for w in recwarn if "predictions.tsv" in str(w.message)]
