"""The dual encoder: pooling, shapes, gradients, temperature."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from tonics.train.model import POOLINGS
from tonics.train.model.dual import DualEncoder, ModelConfig
from tonics.train.model.encoders import load_text_encoder
from tonics.train.model.packed import Packed
from tonics.train.model.pooling import GPO
from tonics.train.model.tokens import tokenise
from tonics.train.stream import Batch

SMALL = {"feature_dim": 10, "text_dim": 7, "embedding_dim": 8, "hidden": 6}


def batch(counts=(3, 1, 4), seed=0, words=None):
    """A batch of images with so many regions; captions are vectors, or states of so many tokens."""
    rng = torch.Generator().manual_seed(seed)
    n = sum(counts)
    features = torch.randn(n, 10, generator=rng).half()
    geometry = torch.rand(n, 6, generator=rng)
    texts = torch.randn(sum(words) if words else len(counts), 7, generator=rng)
    return Batch(
        step=0,
        pairs=np.arange(len(counts)),
        features=features,
        geometry=geometry,
        cu_seqlens=bounds(counts),
        longest=max(counts),
        texts=packed(texts.half(), words) if words else texts,
    )


def bounds(counts):
    return torch.tensor(np.cumsum([0, *counts]), dtype=torch.int32)


def packed(rows, counts):
    return Packed(rows=rows, cu_seqlens=bounds(counts), longest=max(counts))


def regions(found):
    return found.features, found.geometry, found.cu_seqlens


def model(**changes):
    torch.manual_seed(1)
    return DualEncoder(ModelConfig(**SMALL | changes))


def trained(**changes):
    """A model whose pooling has left its beginnings, where it is the mean."""
    net = model(**changes)
    for pool in (m for m in net.modules() if isinstance(m, GPO)):
        torch.nn.init.normal_(pool.score.weight, std=0.5)
    return net


@pytest.mark.parametrize("pooling", POOLINGS)
def test_an_image_is_encoded_the_same_alone_as_among_others(pooling):
    net = trained(pooling=pooling).eval()
    features, geometry, cu_seqlens = regions(batch((3, 1, 4, 9)))
    together = net.encode_images(features, geometry, cu_seqlens)
    for k, (a, b) in enumerate(pairwise(cu_seqlens.tolist())):
        alone = net.encode_images(features[a:b], geometry[a:b], torch.tensor([0, b - a]))
        torch.testing.assert_close(alone[0], together[k])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_caption_of_states_is_encoded_the_same_alone_as_among_others(pooling):
    net = trained(text="states", text_pooling=pooling).eval()
    counts = (5, 2, 7)
    texts = batch(words=counts).texts
    together = net.encode_texts(texts)
    for k, rows in enumerate(texts.rows.split(counts)):
        torch.testing.assert_close(net.encode_texts(packed(rows, [len(rows)]))[0], together[k])


@pytest.mark.parametrize("pooling", ["mean", "attention", "transformer:1"])  # which ends in gpo
def test_a_step_compiles_whole(pooling):
    """One graph, of any size: nothing asks the device, or Python, what is in a tensor."""
    net = trained(pooling=pooling, text="states", text_pooling=pooling).train()
    net.image.compile(fullgraph=True, dynamic=True, backend="eager")
    net.text.compile(fullgraph=True, dynamic=True, backend="eager")
    for counts, words in (((3, 1, 4), (5, 2, 7)), ((2, 6, 1, 9), (3, 3, 8, 1))):
        images, texts = net(batch(counts, words=words))
        (images * texts).sum().backward()
    assert torch.isfinite(images).all()


def test_vectors_are_float32_of_length_one_in_both_precisions():
    net = model().eval()
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            images, texts = net(batch())
        for vectors in (images, texts):
            assert vectors.dtype == torch.float32
            torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))


def test_bfloat16_is_close_to_float32():
    net = model().eval()
    plain = torch.cat(net(batch()))
    with torch.autocast("cpu", torch.bfloat16):
        cast = torch.cat(net(batch()))
    assert not torch.equal(cast, plain)
    assert (cast * plain).sum(1).min() > 0.999


def test_the_scale_of_a_detectors_features_does_not_matter():
    net = model().eval()
    found = batch()
    small, large = (
        torch.cat(net(replace(found, features=found.features * by, texts=found.texts * by)))
        for by in (1, 64)
    )
    torch.testing.assert_close(small, large, atol=1e-4, rtol=1e-4)


def test_the_place_of_a_region_matters():
    net = model().eval()
    features, geometry, cu_seqlens = regions(batch())
    here = net.encode_images(features, geometry, cu_seqlens)
    there = net.encode_images(features, geometry.flip(0), cu_seqlens)
    assert not torch.allclose(here, there)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_an_image_without_regions_does_not_break_the_batch(pooling):
    net = trained(pooling=pooling).train()
    images, _ = net(batch((2, 0, 3)))
    images.sum().backward()
    assert torch.isfinite(images).all()
    assert all(torch.isfinite(p.grad).all() for p in net.image.parameters())


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_parameter_gets_a_gradient(pooling):
    net = trained(pooling=pooling, text="states", text_pooling=pooling).train()
    images, texts = net(batch((4, 2, 5), words=(3, 5, 4)))
    ((images * texts.roll(1, 0)).sum() / net.temperature).backward()
    silent = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert silent == []


def test_regions_are_dropped_in_training_only():
    net = model(region_dropout=0.5, dropout=0.0)
    features, geometry, cu_seqlens = regions(batch((30, 30)))
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
    shapes = SMALL | {"text_dim": 32, "text": "encoder"}
    net = DualEncoder(ModelConfig(**shapes), encoder).eval()
    captions = ["a dog", "a cat by the sofa", "the hat", "a boat by the tree 1 2 3"]
    tokens = tokenise(tokenizer, captions)
    together = net.encode_texts(tokens.packed())
    for k in range(4):
        alone = net.encode_texts(tokens.take(np.array([k])).packed())
        torch.testing.assert_close(alone[0], together[k], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("trained_layers", [None, 1, 0])
def test_only_the_last_layers_of_an_encoder_are_trained(encoder_folder, trained_layers):
    _, encoder = load_text_encoder(str(encoder_folder))
    shapes = SMALL | {"text_dim": 32, "text": "encoder", "train_layers": trained_layers}
    net = DualEncoder(ModelConfig(**shapes), encoder).train()
    ids = torch.arange(9, dtype=torch.int32) % 7 + 5
    net.encode_texts(packed(ids, (4, 3, 2))).square().sum().backward()
    got = {n for n, p in encoder.named_parameters() if p.grad is not None}
    per_layer = len(list(encoder.encoder.layer[0].parameters()))
    everything = len(list(encoder.parameters()))
    assert len(got) == {None: everything, 1: per_layer, 0: 0}[trained_layers]
    assert all("layer.1." in n for n in got) or trained_layers is None
    dropping = [m.training for m in encoder.modules() if isinstance(m, torch.nn.Dropout)]
    assert any(dropping) == (trained_layers != 0)
    assert all(dropping) == (trained_layers is None)


@pytest.mark.parametrize("trained_layers", [1, 0])
def test_layers_that_are_not_trained_always_give_the_same(encoder_folder, trained_layers):
    _, encoder = load_text_encoder(str(encoder_folder))
    shapes = SMALL | {"text_dim": 32, "text": "encoder", "train_layers": trained_layers}
    net = DualEncoder(ModelConfig(**shapes), encoder).train()
    first, last = [], []
    encoder.encoder.layer[0].register_forward_hook(lambda *found: first.append(found[2]))
    encoder.encoder.layer[1].register_forward_hook(lambda *found: last.append(found[2]))
    for _ in range(2):
        net.encode_texts(packed(torch.arange(5, 14, dtype=torch.int32), (4, 3, 2)))
    assert torch.equal(*first)
    assert torch.equal(*last) == (trained_layers == 0)
