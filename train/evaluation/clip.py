"""CLIP and its kin from transformers, as something to compare with.

    clip = load_clip("openai/clip-vit-base-patch32")
    clip.encode_images(images), clip.encode_texts(["a dog on a sofa"])

Images are prepared with Pillow, so torchvision is not needed. Vectors are float32, of length one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from ...errors import InputError, MissingAsset
from ..model.encoders import (
    encoder_fingerprint,
    hub_problem,
    local_folder,
    quiet_transformers,
)
from ..trainer import find_device
from .retrieval import slices

if TYPE_CHECKING:
    from PIL import Image

_IMAGES, _TEXTS = 64, 256  # encoded at once
_PROCESSOR = ("preprocessor_config.json", "processor_config.json")  # what prepares images


class Clip:
    """A model with an image and a text tower, its tokenizer and what prepares its images."""

    def __init__(self, model: Any, tokenizer: Any, processor: Any) -> None:
        self.model, self.tokenizer, self.processor = model.eval(), tokenizer, processor

    @property
    def max_tokens(self) -> int:
        """Where captions are cut off, special tokens included."""
        return int(self.model.config.text_config.max_position_embeddings)

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Encode RGB images: (n, E)."""
        parts = []
        for rows in slices(len(images), _IMAGES):
            pixels = self.processor(images=list(images[rows]), return_tensors="pt")
            parts.append(self._unit(self.model.get_image_features(**pixels.to(self.model.device))))
        return np.concatenate(parts)

    @torch.inference_mode()
    def encode_texts(self, captions: Sequence[str]) -> np.ndarray:
        """Encode captions, cut off at ``max_tokens``: (n, E)."""
        # SigLIP was trained on captions padded to their full length, and has no mask.
        padding = "max_length" if "siglip" in self.model.config.model_type else True
        parts = []
        for rows in slices(len(captions), _TEXTS):
            tokens = self.tokenizer(
                list(captions[rows]),
                padding=padding,
                truncation=True,
                max_length=self.max_tokens,
                return_tensors="pt",
            )
            parts.append(self._unit(self.model.get_text_features(**tokens.to(self.model.device))))
        return np.concatenate(parts)

    def count_truncated(self, captions: Sequence[str]) -> int:
        """How many captions are longer than the model reads."""
        with quiet_transformers():  # or each of them is warned of
            tokens = self.tokenizer(list(captions))["input_ids"]
        return sum(len(ids) > self.max_tokens for ids in tokens)

    @staticmethod
    def _unit(found: Any) -> np.ndarray:
        vectors = found if torch.is_tensor(found) else found.pooler_output
        return F.normalize(vectors.float(), dim=-1).cpu().numpy()


def load_clip(name: str, device: str = "cpu") -> Clip:
    """Load a CLIP-like model; never runs code that comes with the weights.

    Args:
        name: a package with a ``get_model_path()``, a local folder, or a name on the hub.

    Raises:
        MissingAsset: there is no such model here, and the hub does not give it.
        InputError: the model does not embed both images and texts.
    """
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    folder = local_folder(name)
    where, here = str(folder or name), folder is not None or _is_cached(name)
    if not here and (problem := hub_problem()):
        found = f"not an installed package, not a folder, and {problem}"
        raise MissingAsset(name, found, do="download the model and give its folder")
    known: dict[str, Any] = {"trust_remote_code": False, "local_files_only": here}
    try:
        with quiet_transformers():
            model = AutoModel.from_pretrained(where, dtype="float32", **known)
            if not hasattr(model, "get_image_features") or not hasattr(model, "get_text_features"):
                found = f"{model.config.model_type!r} does not embed images and texts"
                raise InputError(name, found, expected="a model such as CLIP or SigLIP")
            tokenizer = AutoTokenizer.from_pretrained(where, **known)
            processor = AutoImageProcessor.from_pretrained(where, backend="pil", **known)
    except (OSError, ValueError, ImportError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        do = "check the name, or download the model and give its folder"
        raise MissingAsset(name, f"no CLIP model can be loaded ({said})", do=do) from error
    return Clip(model.to(find_device(device)), tokenizer, processor)


def clip_fingerprint(name: str) -> str:
    """Hash the files of a model that was loaded before: what decides its vectors."""
    return str(encoder_fingerprint(name, others=_PROCESSOR)["content"])


def _is_cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except ValueError:  # not what a name on the hub can be
        return False
