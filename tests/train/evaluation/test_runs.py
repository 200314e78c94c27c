"""Evaluating a run: what is scored, and what is refused."""

import shutil

import numpy as np
import pyarrow as pa
import pytest

from tonics.artifact import read_json, write_json
from tonics.errors import FormatError, ImageNotFound, InputError, PlanMismatch
from tonics.train.config import TrainConfig
from tonics.train.evaluation import embed_images, embed_texts, evaluate, load_model
from tonics.train.evaluation.retrieval import recall
from tonics.train.trainer import train


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "first"
    config = TrainConfig(embedding_dim=16, hidden=16, lr=3e-3, max_regions=3)
    train(config, world.plan, world.store, world.texts, folder)
    return folder


def test_the_report(run, world):
    found = evaluate(run, world.store, world.texts, world.queries())
    assert found["plan"] == "tiny"
    assert found["plan_id"] == world.plan.plan_id
    assert found["features"] == world.store.content_hash
    assert (found["images"], found["captions"]) == (64, 128)
    assert set(found["i2t"]) == {"queries", "r1", "r5", "r10", "median_rank", "tie_rate"}
    recalls = [found[way][k] for way in ("i2t", "t2i") for k in ("r1", "r5", "r10")]
    assert found["rsum"] == pytest.approx(sum(recalls), abs=0.05)
    assert found == evaluate(run, world.store, world.texts, world.queries())


def test_the_report_equals_scoring_by_hand_whatever_the_order_of_rows(run, world):
    model = load_model(run)
    queries = world.queries()
    order = np.random.default_rng(0).permutation(len(queries))
    shuffled = queries.take(pa.array(order))
    images = world.images
    image_vectors = embed_images(model, world.store, images, max_regions=3)
    pairs = queries.column("pair").to_numpy()
    text_vectors = embed_texts(model, world.texts, pairs)
    owner = np.searchsorted(images, queries.column("image").to_numpy())
    by_hand = recall(image_vectors, text_vectors, owner)
    found = evaluate(run, world.store, world.texts, shuffled)
    assert found["rsum"] == round(by_hand.rsum, 2)
    assert found["t2i"]["r1"] == round(by_hand.t2i.r1, 2)


def test_vectors_do_not_depend_on_what_else_is_embedded(run, world):
    model = load_model(run)
    together = embed_images(model, world.store, world.images)
    assert together.shape == (64, 16)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    alone = embed_images(model, world.store, world.images[7:8])
    np.testing.assert_allclose(alone[0], together[7], atol=1e-6)
    assert embed_images(model, world.store, world.images[:0]).shape == (0, 16)


def test_the_regions_limit_of_the_run_is_kept(run, world, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    text = (copy / "config.json").read_text()
    (copy / "config.json").write_text(text.replace('"max_regions": 3', '"max_regions": 1'))
    one = evaluate(copy, world.store, world.texts, world.queries())
    three = evaluate(run, world.store, world.texts, world.queries())
    assert one["rsum"] != three["rsum"]


def test_what_cannot_be_evaluated(run, world, tmp_path):
    none = world.queries().slice(0, 0)
    with pytest.raises(InputError, match="no pair to evaluate on"):
        evaluate(run, world.store, world.texts, none)
    with pytest.raises(InputError, match=r"no config\.json in this folder"):
        evaluate(tmp_path, world.store, world.texts, world.queries())
    with pytest.raises(InputError, match="frozen, and there are no caption vectors"):
        evaluate(run, world.store, None, world.queries())
    strange = pa.table({"pair": [10, 1], "image": [int(world.images[0])] * 2, "caption": ["", ""]})
    with pytest.raises(PlanMismatch, match="no caption for pairs 1"):
        evaluate(run, world.store, world.texts, strange)
    absent = pa.table({"pair": [10], "image": [10**6], "caption": ["a dog"]})
    with pytest.raises(ImageNotFound, match="1000000"):
        evaluate(run, world.store, world.texts, absent)


def test_an_unfinished_or_damaged_run(run, world, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(FormatError, match="not this run's weights"):
        load_model(copy)
    weights.unlink()
    with pytest.raises(InputError, match="the run is not finished"):
        load_model(copy)
    text = (copy / "config.json").read_text()
    (copy / "config.json").write_text(text.replace('"version": 2', '"version": 9'))
    with pytest.raises(FormatError, match="version 9"):
        load_model(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["model"].pop("feature_dim"), "config.json: model: no feature_dim"),
        (lambda c: c["model"].update(heads=2), "config.json: model: unknown key heads, expected"),
        (lambda c: c.update(model=3), "config.json: model: 3, expected a table"),
        (lambda c: c.pop("train"), "config.json: no train"),
        (lambda c: c["identity"].pop("plan_id"), "config.json: identity: no plan_id"),
    ],
)
def test_a_run_whose_description_was_changed(run, world, tmp_path, change, message):
    copy = shutil.copytree(run, tmp_path / "copy")
    config = read_json(copy / "config.json")
    change(config)
    write_json(copy / "config.json", config)
    with pytest.raises(FormatError) as said:
        evaluate(copy, world.store, world.texts, world.queries())
    assert message in str(said.value)
    assert "\n" not in str(said.value)


def test_features_of_another_width(run, world):
    """A store whose vectors do not fit the model is refused in words, not by torch."""
    wide = _Wide(world.store)
    with pytest.raises(InputError, match="features of 17 numbers, expected 16"):
        evaluate(run, wide, world.texts, world.queries())


class _Wide:
    def __init__(self, store):
        self.store, self.dim, self.content_hash = store, 17, "x"

    def gather(self, images, max_regions=None):
        raise AssertionError("must be refused before anything is read")
