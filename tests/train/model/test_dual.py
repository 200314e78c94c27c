"""The dual encoder: pooling, shapes, gradients, temperature."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tonics.train.model.dual import DualEncoder, ModelConfig, kept_regions, segment_mean
from tonics.train.model.encoders import load_text_encoder
from tonics.train.model.tokens import tokenise

SMALL = {"feature_dim": 10, "text_dim": 7, "embedding_dim": 8, "hidden": 6}


def batch(counts=(3, 1, 4), seed=0):
    rng = torch.Generator().manual_seed(seed)
    n = sum(counts)
    cu_seqlens = torch.tensor(np.cumsum([0, *counts]), dtype=torch.int32)
    features = torch.randn(n, 10, generator=rng).half()
    geometry = torch.rand(n, 6, generator=rng)
    return features, geometry, cu_seqlens, torch.randn(len(counts), 7, generator=rng)


def model(**changes):
    torch.manual_seed(1)
    return DualEncoder(ModelConfig(**SMALL | changes))


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.booleans())
def test_segment_mean_equals_a_loop_over_images(counts, weighted):
    torch.manual_seed(sum(counts))
    rows = torch.randn(sum(counts), 3, requires_grad=True)
    cu_seqlens = torch.tensor(np.cumsum([0, *counts]), dtype=torch.int32)
    weights = torch.randint(0, 2, (len(rows),)).float() if weighted else torch.ones(len(rows))
    parts = zip(rows.split(counts), weights.split(counts), strict=True)
    loop = torch.stack([(r * w[:, None]).sum(0) / w.sum().clamp(min=1) for r, w in parts])
    found = segment_mean(rows, cu_seqlens, weights)
    torch.testing.assert_close(found, loop, atol=1e-6, rtol=1e-5)
    target = torch.randn(loop.shape)
    slow, fast = (torch.autograd.grad((x * target).sum(), rows)[0] for x in (loop, found))
    torch.testing.assert_close(fast, slow, atol=1e-6, rtol=1e-5)


def test_an_image_is_encoded_the_same_alone_as_among_others():
    net = model().eval()
    features, geometry, cu_seqlens, _ = batch()
    together = net.encode_images(features, geometry, cu_seqlens)
    for k, (a, b) in enumerate(pairwise(cu_seqlens.tolist())):
        alone = net.encode_images(features[a:b], geometry[a:b], torch.tensor([0, b - a]))
        torch.testing.assert_close(alone[0], together[k])


def test_vectors_are_float32_of_length_one_in_both_precisions():
    net = model().eval()
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            images, texts = net(*batch())
        for vectors in (images, texts):
            assert vectors.dtype == torch.float32
            torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))


def test_bfloat16_is_close_to_float32():
    net = model().eval()
    plain = torch.cat(net(*batch()))
    with torch.autocast("cpu", torch.bfloat16):
        cast = torch.cat(net(*batch()))
    assert not torch.equal(cast, plain)
    assert (cast * plain).sum(1).min() > 0.999


def test_the_scale_of_a_detectors_features_does_not_matter():
    net = model().eval()
    features, geometry, cu_seqlens, texts = batch()
    small, large = (
        torch.cat(net(features * by, geometry, cu_seqlens, texts * by)) for by in (1, 64)
    )
    torch.testing.assert_close(small, large, atol=1e-4, rtol=1e-4)


def test_the_place_of_a_region_matters():
    net = model().eval()
    features, geometry, cu_seqlens, _ = batch()
    here = net.encode_images(features, geometry, cu_seqlens)
    there = net.encode_images(features, geometry.flip(0), cu_seqlens)
    assert not torch.allclose(here, there)


def test_an_image_without_regions_does_not_break_the_batch():
    images, _ = model().train()(*batch((2, 0, 3)))
    images.sum().backward()
    assert torch.isfinite(images).all()


def test_every_parameter_gets_a_gradient():
    net = model().train()
    images, texts = net(*batch())
    ((images * texts.roll(1, 0)).sum() / net.temperature).backward()
    silent = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert silent == []


def test_dropping_regions_leaves_each_image_at_least_one():
    counts = [1, 2, 3, 40]
    cu_seqlens = torch.tensor(np.cumsum([0, *counts]), dtype=torch.int32)
    torch.manual_seed(0)
    draws = torch.stack([kept_regions(cu_seqlens, 46, 0.5) for _ in range(400)])
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert all(part.sum(1).min() >= 1 for part in draws.split(counts, dim=1))
    assert draws[:, 0].all()  # an image with one region always keeps it
    assert 0.45 < draws[:, 6:].mean() < 0.55


def test_regions_are_dropped_in_training_only():
    net = model(region_dropout=0.5, dropout=0.0)
    features, geometry, cu_seqlens, _ = batch((30, 30))
    torch.manual_seed(0)
    first, second = (net.train().encode_images(features, geometry, cu_seqlens) for _ in range(2))
    assert not torch.equal(first, second)
    first, second = (net.eval().encode_images(features, geometry, cu_seqlens) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(("pushed", "stays"), [(-9.0, 0.01), (3.0, 1.0), (-2.0, math.exp(-2))])
def test_the_temperature_stays_within_its_limits(pushed, stays):
    net = model()
    net.log_temperature.data.fill_(pushed)
    net.clamp_temperature()
    assert math.isclose(net.temperature.item(), stays, rel_tol=1e-6)


def test_the_temperature_starts_where_it_is_told():
    assert math.isclose(model(temperature=0.2).temperature.item(), 0.2, rel_tol=1e-6)


def test_fine_tuned_captions_do_not_depend_on_their_neighbours(encoder_folder):
    tokenizer, encoder = load_text_encoder(str(encoder_folder))
    shapes = SMALL | {"text_dim": 32, "text": "finetune"}
    net = DualEncoder(ModelConfig(**shapes), encoder).eval()
    captions = ["a dog", "a cat by the sofa", "the hat", "a boat by the tree 1 2 3"]
    tokens = tokenise(tokenizer, captions)
    together = net.encode_texts(tokens.packed())
    for k in range(4):
        alone = net.encode_texts(tokens.take(np.array([k])).packed())
        torch.testing.assert_close(alone[0], together[k], atol=1e-5, rtol=1e-5)
