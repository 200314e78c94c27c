"""CLIP as transformers has it: the same numbers as its own forward pass, nothing cut in silence."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from tonics.errors import InputError, MissingAsset
from tonics.train.evaluation.clip import clip_fingerprint, load_clip


def pictures(count):
    rng = np.random.default_rng(0)
    sizes = rng.integers(20, 60, (count, 2))
    return [Image.fromarray(rng.integers(0, 255, (*s, 3), np.uint8)) for s in sizes.tolist()]


def test_vectors_are_those_of_the_model_itself(clip_folder):
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    clip = load_clip(str(clip_folder))
    images, captions = pictures(5), ["a dog", "a cat on a sofa", "b"]
    found = clip.encode_images(images) @ clip.encode_texts(captions).T
    model = AutoModel.from_pretrained(clip_folder).eval()
    tokens = AutoTokenizer.from_pretrained(clip_folder)(captions, padding=True, return_tensors="pt")
    pixels = AutoImageProcessor.from_pretrained(clip_folder, backend="pil")(
        images=images, return_tensors="pt"
    )
    with torch.no_grad():
        expected = model(**pixels, **tokens).logits_per_image / model.logit_scale.exp()
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_vectors_do_not_depend_on_what_else_is_encoded(clip_folder):
    clip = load_clip(str(clip_folder))
    images, captions = pictures(70), [f"{'a ' * (k % 9)}dog {k}" for k in range(300)]
    np.testing.assert_allclose(
        clip.encode_images(images)[65], clip.encode_images(images[65:66])[0], atol=1e-5
    )
    alone = clip.encode_texts(captions[290:291])[0]
    np.testing.assert_allclose(clip.encode_texts(captions)[290], alone, atol=1e-5)


def test_captions_that_are_cut_off_are_counted(clip_folder):
    clip = load_clip(str(clip_folder))
    assert clip.max_tokens == 77
    fits, long = "ab " * 37 + "a", "ab " * 38  # two tokens a word, and two around them
    assert clip.count_truncated([fits, long, long + "and more", ""]) == 2
    np.testing.assert_array_equal(
        clip.encode_texts([long + "and more"]), clip.encode_texts([long + "other"])
    )


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_the_fingerprint_follows_all_that_decides_vectors(clip_folder, tmp_path, name):
    copy = shutil.copytree(clip_folder, tmp_path / "elsewhere")
    (copy / "README.md").write_text("a card")
    assert clip_fingerprint(str(copy)) == clip_fingerprint(str(clip_folder))
    (copy / name).write_bytes((copy / name).read_bytes() + b" ")
    assert clip_fingerprint(str(copy)) != clip_fingerprint(str(clip_folder))


def test_what_is_no_clip(encoder_folder, tmp_path):
    with pytest.raises(InputError, match="'bert' does not embed images and texts"):
        load_clip(str(encoder_folder))
    with pytest.raises(MissingAsset, match="no CLIP model can be loaded"):
        load_clip(str(tmp_path))
    with pytest.raises(MissingAsset, match="the hub is switched off"):
        load_clip("nobody/no-such-clip")
