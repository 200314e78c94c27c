"""Models that are not ours, on the same query sets: CLIP, and anybody's vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ...artifact import hash_file
from ...errors import InputError, first_ten
from ...train.evaluation.queries import Queries, aligned, image_rows
from ...train.evaluation.scoring import Scores, score
from ..dataset import Dataset
from ..stage import Stage, by_reason, manifest_file, write_rejects
from ..stages.queries import QueriesStage, SameObjectStage
from .embedders import ClipEmbedder, usable_queries
from .evaluations import Evaluation, other_name

_MAGIC = b"\x93NUMPY"


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
    loaded = load_both(files)
    vectors = [
        aligned(str(file), rows, ids, _ids(names, ids) if names else None)
        for file, rows, ids, names in zip(
            files, loaded, wanted, (image_ids, pair_keys), strict=True
        )
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
    images, captions = load_both(files)
    owner = _load(owners)
    if owner.ndim != 1 or owner.dtype.kind not in "iu" or len(owner) != len(captions):
        found = f"{owner.dtype} of shape {owner.shape}"
        raise InputError(owners, found, expected=f"{len(captions):,} whole numbers, one a caption")
    if len(owner) and not 0 <= owner.min() <= owner.max() < len(images):
        found = f"rows {owner.min():,} to {owner.max():,}"
        raise InputError(owners, found, expected=f"rows 0 to {len(images) - 1:,} of {files[0]}")
    numbers = np.arange(len(images))
    queries = Queries(pairs=np.arange(len(owner)), images=numbers, owner=owner.astype(np.int64))
    return score(queries, images, captions).report


def load_both(files: tuple[Path, Path]) -> tuple[np.ndarray, np.ndarray]:
    """Read the vectors of images and of captions.

    Raises:
        InputError: one cannot be used, or they are not of the same size.
    """
    images, captions = (load_vectors(file) for file in files)
    if images.shape[1] != captions.shape[1]:
        found = f"of shape {images.shape}, and {files[1]} of shape {captions.shape}"
        raise InputError(files[0], found, expected="as many numbers a row in both")
    return images, captions


def load_vectors(path: Path) -> np.ndarray:
    """Read a matrix of floats, none of whose rows is nothing but zeros.

    Raises:
        InputError: it is something else.
    """
    vectors = _load(path)
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or not vectors.size:
        found = f"{vectors.dtype} of shape {vectors.shape}"
        raise InputError(path, found, expected="floats of shape (rows, numbers)")
    with np.errstate(over="ignore"):  # a float64 beyond float32 is infinity, and refused
        vectors = np.asarray(vectors, np.float32)
    problems = {
        "hold NaN or infinity": ~np.isfinite(vectors).all(axis=1),
        "are all zeros": ~vectors.any(axis=1),
    }
    for what, bad in problems.items():
        if rows := np.flatnonzero(bad).tolist():
            found = f"{len(rows):,} of {len(vectors):,} rows {what}, the first is row {rows[0]}"
            raise InputError(path, found, expected="a vector in each, rows counted from 0")
    return vectors


def _load(path: Path) -> np.ndarray:
    expected = "a .npy file of numbers, as numpy.save writes it"
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise InputError(path, "is no .npy file", expected=expected)
            file.seek(0)
            return np.asarray(np.load(file, allow_pickle=False))
    except OSError as error:
        found = f"cannot be read ({error.strerror or error})"
        raise InputError(path, found, expected=expected) from error
    except (ValueError, EOFError) as error:  # cut short, or objects of Python
        raise InputError(path, "is damaged, or holds no numbers", expected=expected) from error


def _ids(path: Path, wanted: Sequence[str]) -> list[str]:
    """Read what the rows of a file of vectors are of; ids that nobody asks for may be among them.

    Raises:
        InputError: an id comes twice, or one that is asked for is missing.
    """
    found = _lines(path)
    line: dict[str, int] = {}
    for number, name in enumerate(found, 1):
        if name in line:
            twice = len(found) - len(set(found))
            first = f"{name!r} in lines {line[name]:,} and {number:,}"
            raise InputError(path, f"{twice:,} lines repeat an id, first {first}")
        line[name] = number
    if missing := [name for name in wanted if name not in line]:
        problem = f"no line for {len(missing):,} of {len(wanted):,} ids: {first_ten(missing)}"
        if strange := sorted(set(found) - set(wanted), key=line.__getitem__):
            problem += f"; line {line[strange[0]]:,} is unknown: {strange[0]!r}"
        raise InputError(path, problem, expected="the ids of the query set, one a line")
    return found


def _lines(path: Path) -> list[str]:
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
