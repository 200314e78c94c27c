"""Loading weights: every form a checkpoint may have, and a clear line for every other."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch

from tonics.errors import ConfigError, InputError, MissingAsset, TonicsError
from tonics.features.vinvl import VinVL, VinVLConfig
from tonics.features.vinvl.checkpoint import expected_shapes
from tonics.features.vinvl.label_map import read_vocabulary
from tonics.features.vinvl.proposals import cell_anchors

from .conftest import ANCHORS, SMALL, SMALL_LABELS

ALIAS, TWIN = "attribute.feature_extractor.", "roi_heads.box.feature_extractor."
LOGITS = "roi_heads.box.predictor.cls_score.weight"


@pytest.fixture
def x(photo):
    return photo(0, 96, 120)


@pytest.fixture
def saved(tmp_path, weights):
    path = tmp_path / "small.pth"
    torch.save({"model": weights, "iteration": 3}, path)
    return path


def with_aliases(weights):
    twins = {ALIAS + k.removeprefix(TWIN): v for k, v in weights.items() if k.startswith(TWIN)}
    return weights | twins | {ANCHORS: torch.from_numpy(cell_anchors(SMALL))}


@pytest.mark.parametrize(
    "form", ["bare", "model", "state_dict", "module.", "both", "aliases", "old", "numpy"]
)
def test_every_form_gives_the_same_regions(tmp_path, weights, small, same, x, form):
    state = with_aliases(weights) if form == "aliases" else dict(weights)
    if form in ("module.", "both"):
        state = {f"module.{k}": v for k, v in state.items()}
    if form == "numpy":
        state = {k: v.numpy() for k, v in state.items()}
        detector = VinVL.from_state_dict({"model": state}, SMALL_LABELS, SMALL)
    else:
        path = tmp_path / "small.pth"
        content = {"model": state} if form in ("model", "both", "old") else state
        content = {"epoch": 1, "state_dict": state} if form == "state_dict" else content
        torch.save(content, path, _use_new_zipfile_serialization=form != "old")
        (tmp_path / "labels.json").write_text(json.dumps(SMALL_LABELS))
        detector = VinVL.from_checkpoint(path, tmp_path / "labels.json", SMALL)
    expected = small.detect_tensor(x)
    assert len(expected) >= 10
    same(detector.detect_tensor(x), expected)


def test_the_state_dict_stays_as_it_is(weights):
    before = {k: v.clone() for k, v in weights.items()}
    VinVL.from_state_dict(weights, SMALL_LABELS, SMALL)
    assert before.keys() == weights.keys()
    assert all(weights[k].equal(v) for k, v in before.items())


def changed(weights, **changes):
    """A state dict without what is None, and with what is not."""
    return {k: v for k, v in (weights | changes).items() if v is not None}


def test_all_that_does_not_fit_is_one_line(weights):
    missing = {k: None for k in weights if "layer2.0" in k}
    wrong = {LOGITS: torch.zeros(4, 5), "fc6.weight": torch.zeros(2)}
    with pytest.raises(InputError) as error:
        VinVL.from_state_dict(changed(weights, **missing, **wrong), SMALL_LABELS, SMALL)
    line = str(error.value)
    assert "(20 missing, 1 unexpected, 1 of another shape)" in line
    assert "'backbone.body.layer2.0.conv1.weight'" in line
    assert "and 10 more" in line
    assert "unexpected: 'fc6.weight'" in line
    assert f"{LOGITS} (4, 5) not (12, 128)" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("key", "change", "says"),
    [
        (ALIAS + "head.layer4.0.conv1.weight", lambda v: v + 1e-3, "1 unlike their second copy"),
        (ALIAS + "head.layer4.0.conv1.weight", lambda v: v[:1], "1 of another shape"),
        (ANCHORS, lambda v: v[:3], "1 of another shape"),
        (ANCHORS, lambda v: v * 2, "], expected ["),
        (ANCHORS, lambda v: v + 1, "set anchor_sizes and anchor_ratios"),
        (LOGITS, lambda v: v * float("nan"), f"not finite: '{LOGITS}'"),
        (LOGITS, lambda v: "a string", f"{LOGITS!r} is a str"),
        (LOGITS, lambda v: v.numpy().astype(str), f"{LOGITS!r} is a ndarray"),
    ],
)
def test_what_is_wrong_with_one_weight(weights, key, change, says):
    state = with_aliases(weights)
    with pytest.raises(InputError) as error:
        VinVL.from_state_dict(state | {key: change(state[key])}, SMALL_LABELS, SMALL)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a checkpoint: it is empty; download it again"),
        (b"<html>not found</html>", "begins with '<html>not found<'; download it again: the file"),
        (b"PK\x03\x04 cut short", "cannot be read: cut short, damaged, or no checkpoint; down"),
        (b"\x80\x02}", "cannot be read: cut short"),
        (pickle.dumps({"model": print}), "holds more than tensors, or is damaged; download"),
    ],
)
def test_a_file_that_is_no_checkpoint(tmp_path, content, says):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        VinVL.from_checkpoint(path, SMALL_LABELS, SMALL)
    assert says in str(error.value)
    assert str(path) in str(error.value)


def test_a_checkpoint_cut_short(saved):
    saved.write_bytes(saved.read_bytes()[:-2000])
    with pytest.raises(InputError, match="cannot be read: cut short") as error:
        VinVL.from_checkpoint(saved, SMALL_LABELS, SMALL)
    assert len(str(error.value)) < len(str(saved)) + 100


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(InputError, match="is a folder, expected the path of a file"):
        VinVL.from_checkpoint(tmp_path, SMALL_LABELS, SMALL)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match=r"more than tensors.* weights_only=False\)\['model'\]"):
        VinVL.from_checkpoint(tmp_path / "evil.pth", SMALL_LABELS, SMALL)
    assert not (tmp_path / "ran").exists()


def test_a_list_is_no_state_dict(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(InputError, match="holds a list"):
        VinVL.from_checkpoint(tmp_path / "list.pth", SMALL_LABELS, SMALL)


def test_where_to_get_what_is_missing(tmp_path, saved):
    for files in ((tmp_path / "no.pth", SMALL_LABELS), (saved, tmp_path / "no.json")):
        with pytest.raises(MissingAsset, match=r"no such file; download .*VG-SGG-dicts"):
            VinVL.from_checkpoint(*files, SMALL)


@pytest.mark.parametrize(
    ("label_map", "says"),
    [
        ({}, "has no 'label_to_idx'"),
        ({"label_to_idx": ["a"]}, "has no 'label_to_idx'"),
        ({"label_to_idx": {"a": 0, "b": 1}}, "numbers from 0 to 1 for 2 names, expected 1 to 2"),
        ({"label_to_idx": {"a": 1, "b": 1}}, "expected 1 to 2, each once"),
        ({"label_to_idx": {"a": "one"}}, "invalid literal"),
        ({"label_to_idx": {"a": "1"}}, "has no 'attribute_to_idx'"),
    ],
)
def test_what_is_no_label_map(label_map, says):
    with pytest.raises(InputError) as error:
        read_vocabulary(label_map, SMALL)
    assert says in str(error.value)


def test_a_label_map_may_be_written_the_other_way_round():
    back = {
        "idx_to_label": {str(k): name for name, k in SMALL_LABELS["label_to_idx"].items()},
        "idx_to_attribute": {k: name for name, k in SMALL_LABELS["attribute_to_idx"].items()},
    }
    assert read_vocabulary(back, SMALL) == read_vocabulary(SMALL_LABELS, SMALL)
    with pytest.raises(InputError, match="idx_to_label has numbers from 0 to 1 for 2 names"):
        read_vocabulary(back | {"idx_to_label": {"0": "a", "1": "b"}}, SMALL)


def test_the_vocabulary_begins_with_background(tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps(SMALL_LABELS))
    vocabulary = read_vocabulary(path, SMALL)
    assert [label.name for label in vocabulary.labels[:2]] == ["__background__", "thing 1"]
    assert vocabulary.attributes[:2] == ("__no_attribute__", "like 1")
    path.write_text("{")
    with pytest.raises(InputError, match="not a label map"):
        read_vocabulary(path, SMALL)


def test_counts_must_agree_with_the_label_map():
    with pytest.raises(ConfigError, match="num_classes = 1595, expected 12"):
        read_vocabulary(SMALL_LABELS, VinVLConfig(num_classes=1595))


def test_another_label_map_does_not_fit_the_weights(weights):
    more = SMALL_LABELS | {"label_to_idx": {f"thing {k}": k for k in range(1, 14)}}
    with pytest.raises(TonicsError, match=r"cls_score.weight \(12, 128\) not \(14, 128\)"):
        VinVL.from_state_dict(weights, more, SMALL)


def test_an_unknown_device(weights):
    with pytest.raises(ConfigError, match="a device of this machine"):
        VinVL.from_state_dict(weights, SMALL_LABELS, SMALL, device="abacus")


@pytest.mark.shared
def test_the_published_models_keys(golden):
    listed = json.loads((golden / "state_dict_keys.json").read_text())
    expected = expected_shapes(VinVLConfig(), 1595, 525)
    assert len(expected) == 841
    assert expected == {key: tuple(shape) for key, shape in listed.items()}


@pytest.mark.shared
def test_the_published_label_map(golden):
    path = golden.parents[1] / "data" / "vocab" / "VG-SGG-dicts-vgoi6-clipped.json"
    vocabulary = read_vocabulary(path, VinVLConfig())
    assert (len(vocabulary.labels), len(vocabulary.attributes)) == (1595, 525)


def test_cell_anchors():
    anchors = cell_anchors(VinVLConfig())
    assert anchors.shape == (15, 4)
    assert anchors[5].tolist() == [-8, -8, 23, 23]
    assert np.allclose((anchors[:, :2] + anchors[:, 2:]) / 2, 7.5)
