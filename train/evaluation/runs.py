"""Evaluate a finished run: embed images and captions, and count what is retrieved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from ...artifact import hash_file, read_json
from ...errors import FormatError, InputError
from ..model.dual import DualEncoder, ModelConfig
from ..stream import Texts, TokenisedTexts
from ..trainer import RUN_FORMAT, RUN_VERSION, find_device
from .queries import Queries
from .retrieval import slices
from .scoring import FOLD_IMAGES, Scores, score

if TYPE_CHECKING:
    from ...features import FeatureStore

_IMAGES, _TEXTS = 64, 1024  # embedded at once


def evaluate(
    run: Path,
    store: FeatureStore,
    texts: Texts | None,
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
    return score_run(run, store, texts, queries, device=device).report


def score_run(
    run: Path,
    store: FeatureStore,
    texts: Texts | None,
    queries: pa.Table,
    sets: pa.Table | None = None,
    *,
    fold_images: int = FOLD_IMAGES,
    device: str = "cpu",
) -> Scores:
    """Score a run's model, query by query; what ``eval.json`` and ``eval.parquet`` hold.

    Args:
        sets, fold_images: as for ``score``; the others, and errors, as for ``evaluate``.
    """
    if not len(queries):
        raise InputError(run, "no pair to evaluate on", do="choose a split that has pairs")
    model = load_model(run, device)
    images, captions = embed_queries(run, model, store, texts, queries)
    scores = score(Queries.of(queries), images, captions, sets, fold_images=fold_images)
    config = read_config(run)
    made = {
        "plan": config["plan"],
        "plan_id": config["identity"]["plan_id"],
        "model": hash_file(run / "model.safetensors"),
        "features": store.content_hash,
    }
    return replace(scores, report={**made, **scores.report})


def embed_queries(
    run: Path, model: DualEncoder, store: FeatureStore, texts: Texts | None, queries: pa.Table
) -> tuple[np.ndarray, np.ndarray]:
    """Embed the images and captions of a query set, in the orders of ``Queries``.

    Args, Raises: as ``evaluate``.
    """
    config = read_config(run)
    if store.dim != model.config.feature_dim:
        found = f"features of {store.dim} numbers"
        do = "evaluate on the features the run was trained on"
        raise InputError(run, found, expected=str(model.config.feature_dim), do=do)
    asked = Queries.of(queries)
    source = texts if texts is not None else tokenised(run, config, queries)
    images = embed_images(model, store, asked.images, config["train"]["max_regions"])
    return images, embed_texts(model, source, asked.pairs)


def load_model(run: Path, device: str = "cpu") -> DualEncoder:
    """Load a finished run's model, in evaluation mode; needs nothing outside the run's folder.

    Raises:
        InputError: the folder holds no finished run.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = ModelConfig(**read_config(run)["model"])
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
    for rows in slices(len(images), _IMAGES):
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
    for rows in slices(len(pairs), _TEXTS):
        found = texts(pairs[rows])
        parts.append(model.encode_texts(found.to(device)).cpu().numpy())
    return np.concatenate(parts)


def read_config(run: Path) -> dict[str, Any]:
    """Read what a run was made with, ``config.json``.

    Raises:
        InputError: the folder holds no run. FormatError: it is one of another version, or not as
            it was written.
    """
    path = run / "config.json"
    if not path.exists():
        raise InputError(run, "no config.json in this folder", expected="a run of 'tonics train'")
    config = read_json(path)
    if not isinstance(config, dict):
        raise FormatError(path, f"a {type(config).__name__}", expected="what a run was made with")
    if config.get("format") != RUN_FORMAT or config.get("version") != RUN_VERSION:
        found = f"format {config.get('format')!r} version {config.get('version')!r}"
        expected = f"{RUN_FORMAT!r} version {RUN_VERSION}"
        raise FormatError(path, found, expected=expected, do="train it again under another name")
    _check_keys(path, "", config, ("plan", "identity", "model", "train"))
    _check_keys(path, "identity", config["identity"], ("plan_id",))
    _check_keys(path, "train", config["train"], ("text", "max_regions", "max_tokens"))
    needed = [field.name for field in fields(ModelConfig) if field.default is MISSING]
    known = [field.name for field in fields(ModelConfig)]
    _check_keys(path, "model", config["model"], needed, known)
    return config


def _check_keys(
    path: Path, where: str, there: Any, needed: Sequence[str], known: Sequence[str] = ()
) -> None:
    """Refuse a table that lacks a key; with ``known``, one that has another key, too."""
    what = f"{where}: " if where else ""
    if not isinstance(there, dict):
        raise FormatError(path, f"{what}{there!r}", expected="a table")
    if missing := [key for key in needed if key not in there]:
        found, expected = f"{what}no {', '.join(missing)}", "the file that 'tonics train' wrote"
        raise FormatError(path, found, expected=expected)
    if strange := [key for key in there if known and key not in known]:
        found = f"{what}unknown key {', '.join(strange)}"
        raise FormatError(path, found, expected=f"keys of {', '.join(known)}")


def _empty_encoder(run: Path) -> Any:
    """Build the fine-tuned encoder's shape; its weights are the run's."""
    from transformers import AutoConfig, AutoModel

    from ..model.encoders import without_pooler

    config = AutoConfig.from_pretrained(str(run / "encoder"), trust_remote_code=False)
    return without_pooler(AutoModel.from_config(config, trust_remote_code=False))


def tokenised(run: Path, config: dict[str, Any], queries: pa.Table) -> TokenisedTexts:
    """Tokenise captions (columns pair, caption) with the run's own tokenizer."""
    if config["train"]["text"] == "frozen":
        found = "the run's text tower is frozen, and there are no caption vectors"
        raise InputError(run, found, do="run 'tonics embed' first")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(run / "encoder"), trust_remote_code=False)
    ordered = queries.sort_by("pair")
    pairs, captions = ordered.column("pair").to_numpy(), ordered.column("caption").to_pylist()
    return TokenisedTexts(tokenizer, pairs, captions, config["train"]["max_tokens"])
