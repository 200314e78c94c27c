"""Loading text encoders, their fingerprints, and caption vectors."""

import shutil

import numpy as np
import pytest
import torch

from tonics.errors import InputError, MissingAsset
from tonics.train.model.encoders import (
    TextEncoder,
    encoder_fingerprint,
    load_text_encoder,
    local_folder,
    mean_states,
)
from tonics.train.model.tokens import tokenise

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


def test_half_precision_is_computed_in_and_near(encoder):
    exact = encoder.encode(CAPTIONS)
    halved = TextEncoder(encoder.tokenizer, encoder.model, precision="bfloat16").encode(CAPTIONS)
    assert halved.dtype == np.float32
    off = np.abs(halved - exact).max() / np.abs(exact).max()
    assert 1e-5 < off < 0.02
    assert encoder.encode(CAPTIONS).tobytes() == exact.tobytes()


def test_what_each_token_became(encoder):
    vectors, states, lengths = encoder.encode_tokens(CAPTIONS)
    np.testing.assert_array_equal(vectors, encoder.encode(CAPTIONS))
    assert states.dtype == np.float16
    for caption, vector, own in zip(
        CAPTIONS, vectors, np.split(states, lengths.cumsum()[:-1]), strict=True
    ):
        ids = encoder.tokenizer(caption, return_tensors="pt")
        with torch.no_grad():
            alone = encoder.model(**ids).last_hidden_state[0].numpy()
        np.testing.assert_allclose(own, alone, atol=2e-3)
        np.testing.assert_allclose(own.astype(np.float32).mean(0), vector, atol=2e-3)


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


def test_the_fingerprint_is_one_short_hash(encoder_folder):
    (content,) = encoder_fingerprint(str(encoder_folder)).values()
    assert len(content) == 32


def test_weights_in_a_second_format_do_not_count(tmp_path, encoder_folder):
    copy = shutil.copytree(encoder_folder, tmp_path / "copy")
    (copy / "pytorch_model.bin").write_bytes(b"the same weights, for older programs")
    assert encoder_fingerprint(str(copy)) == encoder_fingerprint(str(encoder_folder))
    (copy / "model.safetensors").unlink()
    assert encoder_fingerprint(str(copy)) != encoder_fingerprint(str(encoder_folder))


OLD, NEW = "0" * 40, "1" * 40


@pytest.fixture
def cache(tmp_path, monkeypatch, encoder_folder):
    """A hub cache with two commits of ``lab/tiny``; main is the older one."""
    folder = tmp_path / "hub"
    repository = folder / "models--lab--tiny"
    for commit in (OLD, NEW):
        shutil.copytree(encoder_folder, repository / "snapshots" / commit)
    (repository / "snapshots" / NEW / "added_tokens.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(OLD)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    return repository


def test_a_hub_name_is_what_its_files_are(cache, encoder_folder):
    folder = encoder_fingerprint(str(encoder_folder))
    assert encoder_fingerprint("lab/tiny") == folder
    assert encoder_fingerprint("lab/tiny", "main") == folder
    assert encoder_fingerprint("lab/tiny", OLD) == folder
    assert encoder_fingerprint("lab/tiny", NEW) != folder
    (cache / "refs" / "main").write_text(NEW)
    assert encoder_fingerprint("lab/tiny") == encoder_fingerprint("lab/tiny", NEW) != folder


def test_a_cached_hub_name_is_loaded_from_the_files_its_fingerprint_is_of(cache):
    assert load_text_encoder("lab/tiny")[1].config.hidden_size == 32
    config = cache / "snapshots" / NEW / "config.json"
    config.write_text(
        config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 1')
    )
    assert load_text_encoder("lab/tiny", NEW)[1].config.num_hidden_layers == 1
    assert load_text_encoder("lab/tiny", "main")[1].config.num_hidden_layers == 2


@pytest.mark.parametrize("ask", [encoder_fingerprint, load_text_encoder])
def test_half_a_snapshot_is_not_a_cached_encoder(cache, ask):
    (cache / "snapshots" / OLD / "model.safetensors").unlink()
    with pytest.raises(MissingAsset, match="the hub is switched off"):
        ask("lab/tiny")


@pytest.mark.parametrize("ask", [encoder_fingerprint, load_text_encoder])
def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch, cache, ask):
    import huggingface_hub.utils

    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    asked = []

    class Session:
        def head(self, url, timeout):
            asked.append(timeout)
            raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub.utils, "get_session", Session)
    with pytest.raises(
        MissingAsset, match=r"^lab/other: .*cannot be reached \(Conn.*no route"
    ) as e:
        ask("lab/other")
    assert asked == [5]
    assert "\n" not in str(e.value)
    encoder_fingerprint("lab/tiny")  # what is in the cache needs no hub
    assert asked == [5]


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


@pytest.mark.parametrize("family", ["ConvBert", "Nystromformer", "FNet"])
def test_a_model_that_reads_the_padding_is_refused(tmp_path, encoder_folder, family):
    """Its vectors would depend on which captions a caption is encoded with."""
    import transformers

    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape |= {"intermediate_size": 32, "max_position_embeddings": 64}
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder_folder)
    tokenizer.save_pretrained(tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = getattr(transformers, f"{family}Config")(**shape, vocab_size=len(tokenizer))
        getattr(transformers, f"{family}Model")(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="gives a caption other states beside longer ones") as said:
        load_text_encoder(str(tmp_path))
    assert "\n" not in str(said.value)
