"""Encoders of several families on packed captions, against each caption alone."""

import pytest
import torch

from tonics.train.model.packed import Packed
from tonics.train.model.token_states import padding, prepare, token_states

SHAPE = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SHAPE |= {"intermediate_size": 64, "max_position_embeddings": 64}
DISTIL = {"vocab_size": 99, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
FAMILIES = {  # and whether they take packed captions
    "Bert": (SHAPE, True),
    "Roberta": (SHAPE, True),
    "XLMRoberta": (SHAPE, True),
    "Albert": (SHAPE | {"embedding_size": 16}, True),
    "Electra": (SHAPE, True),
    "DistilBert": (DISTIL, True),
    "MPNet": (SHAPE, False),
}
LENGTHS = (4, 1, 9, 6)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    import transformers

    shape, packs = FAMILIES[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = getattr(transformers, f"{request.param}Config")(**shape)
        encoder = getattr(transformers, f"{request.param}Model")(config)
        torch.manual_seed(1)
        ids = torch.randint(3, 99, (sum(LENGTHS),), dtype=torch.int32)
    bounds = torch.tensor([0, *LENGTHS]).cumsum(0).int()
    tokens = Packed(rows=ids, cu_seqlens=bounds, longest=max(LENGTHS))
    return prepare(encoder.train()), tokens, packs


def test_states_are_those_of_each_caption_alone(family):
    encoder, tokens, _ = family
    assert encoder.training  # as it was before it was tried out
    states = token_states(encoder.eval(), tokens)
    for part, ids in zip(states.split(LENGTHS), tokens.rows.split(LENGTHS), strict=True):
        one = Packed(rows=ids, cu_seqlens=torch.tensor([0, len(ids)]), longest=len(ids))
        torch.testing.assert_close(part, token_states(encoder, one), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pad", [0, 1, 98])
def test_an_encoder_is_tried_whatever_its_padding_is(pad):
    from transformers import BertConfig, BertModel

    encoder = prepare(BertModel(BertConfig(**SHAPE, pad_token_id=pad)))
    one = Packed(rows=torch.tensor([5]).int(), cu_seqlens=torch.tensor([0, 1]), longest=1)
    assert padding(encoder, one) == 0
    assert encoder.config._attn_implementation == "tonics_packed"


def test_attention_drops_weights_in_training_only(family):
    encoder, tokens, _ = family
    layers = {m: m.p for m in encoder.modules() if isinstance(m, torch.nn.Dropout)}
    attention = _dropouts_of_attention(encoder)
    assert attention
    try:
        for layer in layers:
            layer.p = 0.5 if layer in attention else 0.0
        training, again = (token_states(encoder.train(), tokens) for _ in range(2))
        assert not torch.equal(training, again)
        resting, again = (token_states(encoder.eval(), tokens) for _ in range(2))
        assert torch.equal(resting, again)
    finally:
        for layer, share in layers.items():
            layer.p = share


def _dropouts_of_attention(encoder):
    own = {m.dropout for m in encoder.modules() if "SelfAttention" in type(m).__name__}
    return own | {m.attention_dropout for m in encoder.modules() if hasattr(m, "attention_dropout")}


def test_the_packed_way_is_that_of_transformers(family):
    encoder, tokens, packs = family
    assert padding(encoder, tokens) == pytest.approx(0 if packs else 4 * 9 / 20 - 1)
    states = token_states(encoder.eval(), tokens)
    if packs:
        encoder.set_attn_implementation("sdpa")
    try:
        for part, ids in zip(states.split(LENGTHS), tokens.rows.split(LENGTHS), strict=True):
            usual = encoder(input_ids=ids.long()[None]).last_hidden_state[0]
            torch.testing.assert_close(part, usual, atol=1e-5, rtol=1e-4)
    finally:
        if packs:
            encoder.set_attn_implementation("tonics_packed")
