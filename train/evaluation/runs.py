"""Evaluate a finished run: embed images and captions, and count what is retrieved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from ...artifact import hash_file, read_json
from ...errors import FormatError, InputError
from ..model.dual import DualEncoder, ModelConfig
from ..stream import Cached, Texts, TokenisedTexts
from ..trainer import RUN_FORMAT, RUN_VERSION, find_device
from .retrieval import Direction, Retrieval, recall

if TYPE_CHECKING:
    from ...features import FeatureStore

_IMAGES, _TEXTS = 64, 1024  # embedded at once


def evaluate(
    run: Path,
    store: FeatureStore,
    texts: Cached | None,
    queries: pa.Table,
    *,
    device: str = "cpu",
) -> dict[str, Any]:
    """Score a run's model on retrieval among the images and captions of a query set.

    Args:
        texts: vectors of the queries' pairs for a frozen text tower; None for a fine-tuned one.
        queries: columns ``pair`` int64, ``image`` int64, ``caption`` str; one row a caption.

    Returns:
        What ``eval.json`` holds: recalls in percent, both directions, and what was scored.

    Raises:
        InputError: not a finished run, or no queries.
        PlanMismatch: a pair has no caption vector. ImageNotFound: an image has no features.
    """
    if not len(queries):
        raise InputError(run, "no pair to evaluate on", do="choose a split that has pairs")
    config = _read_config(run)
    model = load_model(run, device)
    if store.dim != model.config.feature_dim:
        found = f"features of {store.dim} numbers"
        do = "evaluate on the features the run was trained on"
        raise InputError(run, found, expected=str(model.config.feature_dim), do=do)
    pairs = queries.column("pair").to_numpy()
    image_rows = queries.column("image").to_numpy()
    images, image_of_text = np.unique(image_rows, return_inverse=True)
    source = texts if texts is not None else _tokenised(run, config, queries)
    image_vectors = embed_images(model, store, images, config["train"]["max_regions"])
    text_vectors = embed_texts(model, source, pairs)
    scored = recall(image_vectors, text_vectors, image_of_text)
    return {
        "plan": config["plan"],
        "plan_id": config["identity"]["plan_id"],
        "model": hash_file(run / "model.safetensors"),
        "features": store.content_hash,
        "images": len(images),
        "captions": len(pairs),
        **_report(scored),
    }


def load_model(run: Path, device: str = "cpu") -> DualEncoder:
    """Load a finished run's model, in evaluation mode; needs nothing outside the run's folder.

    Raises:
        InputError: the folder holds no finished run.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = ModelConfig(**_read_config(run)["model"])
    path = run / "model.safetensors"
    if not path.exists():
        raise InputError(run, "the run is not finished", do="run 'tonics train' again to go on")
    model = DualEncoder(config, _empty_encoder(run) if config.text == "encoder" else None)
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        do = "delete it and run 'tonics train' again: the last checkpoint is kept"
        raise FormatError(path, f"not this run's weights ({str(error)[:200]})", do=do) from error
    return model.to(find_device(device)).eval()


@torch.inference_mode()
def embed_images(
    model: DualEncoder, store: FeatureStore, images: np.ndarray, max_regions: int | None = None
) -> np.ndarray:
    """Embed images by number; (n, E) float32 unit vectors.

    Raises:
        ImageNotFound: a number is not in the store.
    """
    device = model.log_temperature.device
    parts = [np.zeros((0, model.config.embedding_dim), np.float32)]
    for rows in _slices(len(images), _IMAGES):
        batch = store.gather(images[rows], max_regions=max_regions)
        arrays = (batch.features, batch.geometry, batch.cu_seqlens)
        features, geometry, bounds = (torch.from_numpy(a).to(device) for a in arrays)
        longest = int(np.diff(batch.cu_seqlens).max(initial=0))
        parts.append(model.encode_images(features, geometry, bounds, longest).cpu().numpy())
    return np.concatenate(parts)


@torch.inference_mode()
def embed_texts(model: DualEncoder, texts: Texts, pairs: np.ndarray) -> np.ndarray:
    """Embed captions by pair number; (n, E) float32 unit vectors."""
    device = model.log_temperature.device
    parts = [np.zeros((0, model.config.embedding_dim), np.float32)]
    for rows in _slices(len(pairs), _TEXTS):
        found = texts(pairs[rows])
        parts.append(model.encode_texts(found.to(device)).cpu().numpy())
    return np.concatenate(parts)


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(first, first + size) for first in range(0, count, size))


def _report(found: Retrieval) -> dict[str, Any]:
    directions = {"i2t": _rounded(found.i2t), "t2i": _rounded(found.t2i)}
    return {**directions, "rsum": round(found.rsum, 2)}


def _rounded(direction: Direction) -> dict[str, Any]:
    return {key: round(value, 2) for key, value in asdict(direction).items()}


def _read_config(run: Path) -> dict[str, Any]:
    path = run / "config.json"
    if not path.exists():
        raise InputError(run, "no config.json in this folder", expected="a run of 'tonics train'")
    config = read_json(path)
    if config.get("format") != RUN_FORMAT or config.get("version") != RUN_VERSION:
        found = f"format {config.get('format')!r} version {config.get('version')!r}"
        expected = f"{RUN_FORMAT!r} version {RUN_VERSION}"
        raise FormatError(path, found, expected=expected, do="train it again under another name")
    return config


def _empty_encoder(run: Path) -> Any:
    """Build the fine-tuned encoder's shape; its weights are the run's."""
    from transformers import AutoConfig, AutoModel

    from ..model.encoders import without_pooler

    config = AutoConfig.from_pretrained(str(run / "encoder"), trust_remote_code=False)
    return without_pooler(AutoModel.from_config(config, trust_remote_code=False))


def _tokenised(run: Path, config: dict[str, Any], queries: pa.Table) -> TokenisedTexts:
    """Tokenise the queries with the run's own tokenizer."""
    if config["train"]["text"] == "frozen":
        found = "the run's text tower is frozen, and there are no caption vectors"
        raise InputError(run, found, do="run 'tonics embed' first")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(run / "encoder"), trust_remote_code=False)
    ordered = queries.sort_by("pair")
    pairs, captions = ordered.column("pair").to_numpy(), ordered.column("caption").to_pylist()
    return TokenisedTexts(tokenizer, pairs, captions, config["train"]["max_tokens"])
