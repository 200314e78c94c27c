"""Loading text encoders, their fingerprints, and caption vectors."""

import shutil

import numpy as np
import pytest
import torch

from tonics.errors import InputError, MissingAsset
from tonics.train.encoders import (
    TextEncoder,
    encoder_fingerprint,
    load_text_encoder,
    local_folder,
    mean_states,
)
from tonics.train.tokens import tokenise

CAPTIONS = [f"a {'dog ' * (k % 9)}by the sofa {k}" for k in range(70)]


@pytest.fixture(scope="module")
def encoder(encoder_folder):
    return TextEncoder(*load_text_encoder(str(encoder_folder)))


def test_vectors_equal_a_caption_by_caption_loop(encoder):
    vectors = encoder.encode(CAPTIONS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (70, 32)
    for caption, vector in zip(CAPTIONS, vectors, strict=True):
        ids = encoder.tokenizer(caption, return_tensors="pt")
        with torch.no_grad():
            alone = encoder.model(**ids).last_hidden_state[0].mean(0).numpy()
        np.testing.assert_allclose(vector, alone, atol=1e-5)


def test_the_same_captions_give_the_same_bytes(encoder):
    assert encoder.encode(CAPTIONS).tobytes() == encoder.encode(CAPTIONS).tobytes()


def test_no_captions_give_no_vectors(encoder):
    assert encoder.encode([]).shape == (0, 32)


def test_tokens_beyond_the_limit_do_not_count(encoder):
    long, cut = encoder.encode(["a dog " * 40, "a dog " * 3], max_tokens=8)
    np.testing.assert_allclose(long, cut, atol=1e-5)


def test_gradients_reach_the_encoder(encoder_folder):
    tokenizer, model = load_text_encoder(str(encoder_folder))
    mean_states(model, tokenise(tokenizer, CAPTIONS)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.parameters())


def test_the_pooling_head_is_gone(encoder):
    assert not [n for n, _ in encoder.model.named_parameters() if "pooler" in n]


def test_a_package_that_carries_a_model(tmp_path, monkeypatch, encoder_folder):
    package = tmp_path / "carries_a_model.py"
    package.write_text(f"def get_model_path():\n    return {str(encoder_folder)!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert local_folder("carries_a_model") == encoder_folder
    assert encoder_fingerprint("carries_a_model") == encoder_fingerprint(str(encoder_folder))
    assert load_text_encoder("carries_a_model")[1].config.hidden_size == 32


def test_the_fingerprint_follows_content_not_place(tmp_path, encoder_folder):
    copy = shutil.copytree(encoder_folder, tmp_path / "copy")
    (copy / "README.md").write_text("does not count")
    assert encoder_fingerprint(str(copy)) == encoder_fingerprint(str(encoder_folder))
    (copy / "vocab.txt").write_text("[PAD]\n")
    assert encoder_fingerprint(str(copy)) != encoder_fingerprint(str(encoder_folder))


def test_the_fingerprint_of_a_hub_name():
    assert encoder_fingerprint("bert-base-uncased", "abc") == {
        "hub": "bert-base-uncased",
        "revision": "abc",
    }


def test_a_name_that_is_nowhere(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingAsset, match=r"^no/such-encoder: not an installed package") as caught:
        load_text_encoder("no/such-encoder")
    assert "\n" not in str(caught.value)


def test_a_package_without_a_model_is_taken_for_a_hub_name():
    assert local_folder("json") is None


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_that_is_not_a_whole_model(tmp_path, encoder_folder, missing):
    copy = shutil.copytree(encoder_folder, tmp_path / "copy")
    (copy / missing).unlink()
    with pytest.raises(MissingAsset, match="no text encoder can be loaded from this folder"):
        load_text_encoder(str(copy))


def test_a_folder_without_weights_has_no_fingerprint(tmp_path):
    with pytest.raises(MissingAsset, match="no weights"):
        encoder_fingerprint(str(tmp_path))


def test_a_model_that_is_not_a_text_encoder(tmp_path):
    from transformers import T5Config, ViTConfig

    T5Config(num_layers=1, d_model=8).save_pretrained(tmp_path / "t5")
    ViTConfig(num_hidden_layers=1, hidden_size=8).save_pretrained(tmp_path / "vit")
    for name in ("t5", "vit"):
        with pytest.raises(InputError, match="expected a BERT-family text encoder"):
            load_text_encoder(str(tmp_path / name))
