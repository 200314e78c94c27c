"""Features on the device give the batches of the stream, bit for bit."""

import importlib
import logging

import numpy as np
import pytest
import torch

from tonics.errors import ImageNotFound, InputError
from tonics.train.model.encoders import load_text_encoder
from tonics.train.stream import TokenisedTexts, resident, stream
from tonics.train.stream.resident import fits, free_bytes, images_used, resident_bytes

module = importlib.import_module("tonics.train.stream.resident")  # the function hides it
NAMES = ("features", "geometry", "cu_seqlens", "texts")


def assert_same(found, expected):
    found, expected = list(found), list(expected)
    assert [b.step for b in found] == [b.step for b in expected]
    for a, b in zip(found, expected, strict=True):
        assert a.longest == b.longest
        np.testing.assert_array_equal(a.pairs, b.pairs)
        for name in NAMES:
            ours, theirs = getattr(a, name), getattr(b, name)
            if name == "texts" and not isinstance(ours, torch.Tensor):
                assert torch.equal(ours.rows.cpu(), theirs.rows)
                assert ours.longest == theirs.longest
                ours, theirs = ours.cu_seqlens, theirs.cu_seqlens
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours.cpu(), theirs), name


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"start": 9, "max_regions": 2},
        {"rank": 1, "world": 4},
        {"steps": [7, 7, 0, 15], "rank": 0, "world": 2},
    ],
)
@pytest.mark.parametrize("prefetch", [0, 3])
def test_equals_the_stream(world, options, prefetch, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_BYTES", 1000)  # many pieces
    found = resident(
        world.plan, world.store, world.texts, device="cpu", prefetch=prefetch, **options
    )
    assert_same(found, stream(world.plan, world.store, world.texts, **options))


def test_token_ids_too(world, encoder_folder):
    tokenizer, _ = load_text_encoder(str(encoder_folder))
    texts = TokenisedTexts.of_plan(tokenizer, world.plan)
    found = resident(world.plan, world.store, tokenizer, device="cpu")
    assert_same(found, stream(world.plan, world.store, texts))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_no_batch_is_waited_for(world):
    found = resident(world.plan, world.store, world.texts, device="cuda")
    first = next(found)
    torch.cuda.set_sync_debug_mode("error")
    try:
        batches = [first, *found]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert {getattr(b, n).device.type for b in batches for n in NAMES} == {"cuda"}
    assert_same(batches, stream(world.plan, world.store, world.texts))


def test_the_bytes_are_those_that_are_taken(world):
    loaded = module.ResidentFeatures(world.store, images_used(world.plan), 3, "cpu")
    taken = loaded.features.nbytes + loaded.geometry.nbytes
    assert taken == resident_bytes(world.plan, world.store, 3)
    assert taken < resident_bytes(world.plan, world.store)
    assert free_bytes("cpu") > 0


def test_what_does_not_fit_is_refused(world, monkeypatch):
    need = resident_bytes(world.plan, world.store)
    monkeypatch.setattr(module, "free_bytes", lambda device: 2 * need)
    assert fits(world.plan, world.store, "cpu")
    monkeypatch.setattr(module, "free_bytes", lambda device: 2 * need - 1)
    assert not fits(world.plan, world.store, "cpu")
    assert fits(world.plan, world.store, "cpu", max_regions=1)
    with pytest.raises(InputError, match=r"device cpu: 0\.0 GB free for .*stream\(\)"):
        resident(world.plan, world.store, world.texts, device="cpu")


def test_loading_says_how_far_it_is(world, monkeypatch, caplog):
    monkeypatch.setattr(module, "_LOG_EVERY_S", -1.0)
    monkeypatch.setattr(module, "_CHUNK_BYTES", 1000)
    with caplog.at_level(logging.INFO):
        resident(world.plan, world.store, world.texts, device="cpu").close()
    assert any("% of the features are on cpu" in line for line in caplog.messages)
    assert "the features of 64 images" in caplog.messages[-1]


def test_errors_come_before_anything_is_copied(world, big_world):
    with pytest.raises(ImageNotFound):
        resident(big_world.plan, world.store, world.texts, device="cpu")
    with pytest.raises(InputError, match="start=17"):
        resident(world.plan, world.store, world.texts, start=17, device="cpu")
