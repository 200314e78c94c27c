"""Models that are not ours, on the same query sets: CLIP, and anybody's vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ...artifact import hash_file
from ...errors import InputError
from ...train.evaluation.queries import Queries, aligned, image_rows
from ...train.evaluation.scoring import Scores, score
from ..dataset import Dataset
from ..stage import Stage, by_reason, manifest_file, write_rejects
from ..stages.queries import QueriesStage, SameObjectStage
from .embedders import ClipEmbedder, usable_queries
from .evaluations import Evaluation, other_name


def query_stages(dataset: Dataset, split: str) -> list[Stage]:
    """What must be up to date before others are scored: the queries, and their hard choices."""
    objects = manifest_file(dataset, "ontology").exists()
    found: list[Stage] = [QueriesStage(dataset, split)]
    return [*found, SameObjectStage(dataset, split)] if objects else found


def evaluate_clip(embedder: ClipEmbedder) -> dict[str, Any]:
    """Score a CLIP model on all images that it can read; write and return the report.

    Images that cannot be read are counted in the report and listed in ``rejected``.
    """
    dataset, split = embedder.dataset, embedder.split
    queries = QueriesStage(dataset, split).read()
    kept = usable_queries(embedder, queries)
    images, captions = embedder.queries(kept)
    scores = _score(dataset, split, kept, images, captions)
    rejects = list(embedder.rejects.values())
    write_rejects(dataset, f"eval/{embedder.evaluation.name}", split, rejects)
    made = {
        "model": embedder.name,
        "fingerprint": embedder.fingerprint,
        "rejected_images": by_reason(rejects),
        "truncated_captions": embedder.clip.count_truncated(kept["caption"].to_pylist()),
        "captions_left_out": queries.num_rows - kept.num_rows,
    }
    return embedder.evaluation.write(scores, split=split, queries=queries, made=made)


def evaluate_vectors(
    dataset: Dataset,
    split: str,
    files: tuple[Path, Path],
    name: str,
    image_ids: Path | None = None,
    pair_keys: Path | None = None,
) -> tuple[Evaluation, dict[str, Any]]:
    """Score vectors that somebody computed; write and return the report.

    Args:
        files: ``.npy`` files of the images' and the captions' vectors. Rows are in the order of the
            query set: captions as in ``evaluation/SPLIT.parquet``, images by their number in it.
        image_ids, pair_keys: files that name the rows instead, an id a line.

    Raises:
        InputError: rows do not fit the query set, or a vector is not finite.
    """
    queries = QueriesStage(dataset, split).read()
    wanted = (image_rows(queries)["image_id"].to_pylist(), queries["pair_key"].to_pylist())
    vectors = [
        aligned(str(file), load_vectors(file), ids, _lines(names) if names else None)
        for file, ids, names in zip(files, wanted, (image_ids, pair_keys), strict=True)
    ]
    evaluation = Evaluation.of_other(dataset, other_name("vectors", name))
    scores = _score(dataset, split, queries, *vectors)
    made = {"images_file": hash_file(files[0]), "captions_file": hash_file(files[1])}
    return evaluation, evaluation.write(scores, split=split, queries=queries, made=made)


def score_owned(files: tuple[Path, Path], owners: Path) -> dict[str, Any]:
    """Score vectors without a dataset.

    Args:
        owners: a ``.npy`` file with the row of each caption's image.
    """
    images, captions = (load_vectors(file) for file in files)
    owner = _load(owners)
    if owner.ndim != 1 or owner.dtype.kind not in "iu" or len(owner) != len(captions):
        found = f"{owner.dtype} of shape {owner.shape}"
        raise InputError(owners, found, expected=f"{len(captions):,} whole numbers, one a caption")
    numbers = np.arange(len(images))
    queries = Queries(pairs=np.arange(len(owner)), images=numbers, owner=owner.astype(np.int64))
    return score(queries, images, captions).report


def load_vectors(path: Path) -> np.ndarray:
    """Read a matrix of floats.

    Raises:
        InputError: it is something else.
    """
    vectors = _load(path)
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        found = f"{vectors.dtype} of shape {vectors.shape}"
        raise InputError(path, found, expected="floats of shape (rows, numbers)")
    return np.asarray(vectors, np.float32)


def _load(path: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise InputError(path, f"cannot be read ({error})", expected="a .npy file") from error


def _lines(path: Path) -> Sequence[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"cannot be read ({error})", expected="an id a line") from error


def _score(
    dataset: Dataset, split: str, queries: pa.Table, images: np.ndarray, captions: np.ndarray
) -> Scores:
    sets = [stage for stage in query_stages(dataset, split) if isinstance(stage, SameObjectStage)]
    return score(
        Queries.of(queries),
        images,
        captions,
        sets[0].read() if sets else None,
        fold_images=dataset.config.evaluation.fold_images,
    )
