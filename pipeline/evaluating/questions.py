"""Further questions to a model: altered captions, and COCO's richer ground truths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ...artifact import hash_file, write_json
from ...errors import InputError
from ...train.evaluation.eccv import eccv_scores
from ...train.evaluation.queries import image_rows
from ...train.evaluation.swaps import Swapped, swapped
from ..dataset import Dataset
from ..sources.coco import load_coco
from ..stages.queries import QueriesStage
from .embedders import Embedder, usable_queries
from .swap_files import Swap, find_images, read_swaps


def ask_swaps(
    dataset: Dataset, embedder: Embedder, file: Path, columns: Mapping[str, str]
) -> dict[str, Any]:
    """Score true captions against altered ones; write and return the report.

    Rows of images that the dataset lacks, or that cannot be embedded, are counted.

    Raises:
        InputError: no row is left.
    """
    rows = read_swaps(file, columns)
    swaps = [row for row in rows if row.image and row.caption and row.negatives]
    number = find_images(swaps, dataset.images())
    known = np.flatnonzero(number >= 0)
    kept = known[embedder.usable(number[known])] if len(known) else known
    if not len(kept):
        found = (
            f"of its {len(rows):,} rows none has an altered caption, and an image of the dataset"
        )
        do = "images are named by their id, their path or their file"
        raise InputError(file, found, do=do)
    result = _score_swaps(embedder, [swaps[k] for k in kept.tolist()], number[kept])
    counts = {
        "rows": len(rows),
        "not_altered": len(rows) - len(swaps),
        "not_in_dataset": len(swaps) - len(known),
        "not_usable": len(known) - len(kept),
    }
    head = {"format": "tonics-swaps", "version": 1, "file": file.name, "xxh3": hash_file(file)}
    report = {**head, **counts, **result.report()}
    write_json(embedder.evaluation.extra(f"swaps-{file.stem}"), report)
    return report


def _score_swaps(embedder: Embedder, swaps: Sequence[Swap], image: np.ndarray) -> Swapped:
    """Score captions of usable images, by number."""
    images, of_image = np.unique(image, return_inverse=True)
    altered = [text for swap in swaps for text in swap.negatives]
    of = np.repeat(np.arange(len(swaps)), [len(swap.negatives) for swap in swaps])
    vectors = embedder.captions([*(swap.caption for swap in swaps), *altered])
    true, false = np.split(vectors, [len(swaps)])
    return swapped(embedder.images(images)[of_image], true, false, of)


def ask_eccv(dataset: Dataset, embedder: Embedder, file: Path) -> dict[str, Any]:
    """Score a model with ``eccv_caption``; write and return the report.

    Args:
        file: COCO's ``captions_val2014.json``, which says what COCO's numbers of captions are:
            neither Karpathy's file nor the dataset has them.

    Raises:
        MissingAsset: the package is not installed. InputError: the query set is not COCO's.
    """
    queries = usable_queries(embedder, QueriesStage(dataset, embedder.split).read())
    images, captions = coco_numbers(queries, file)
    vectors = embedder.queries(queries)
    found = eccv_scores(*vectors, images, captions)
    report = {"format": "tonics-eccv", "version": 1, "split": embedder.split, **found}
    write_json(embedder.evaluation.extra("eccv"), report)
    return report


def coco_numbers(queries: pa.Table, file: Path) -> tuple[list[int], list[int]]:
    """Find COCO's numbers of the images and captions of a query set, in the orders of ``Queries``.

    A caption is known by its image and its words.

    Raises:
        InputError: an image id is no number of COCO's, or captions are not in the file.
    """
    notes = load_coco(file)["annotations"]
    known = {(str(n["image_id"]), _words(n["caption"])): int(n["id"]) for n in notes if "id" in n}
    ids = image_rows(queries)["image_id"].to_pylist()
    if strange := [name for name in ids if not name.isdecimal()]:
        found = f"{len(strange):,} image ids are no numbers of COCO, such as {strange[0]!r}"
        do = "read COCO with format = 'coco' or 'karpathy'"
        raise InputError("--eccv", found, expected="COCO's image ids", do=do)
    asked = zip(queries["image_id"].to_pylist(), queries["caption"].to_pylist(), strict=True)
    captions = [known.get((image, _words(caption)), -1) for image, caption in asked]
    if missing := captions.count(-1):
        found = f"{missing:,} of {len(captions):,} captions are not in it"
        expected = "COCO's captions file of these images, with an id for each caption"
        raise InputError(file, found, expected=expected)
    return [int(name) for name in ids], captions


def _words(caption: Any) -> str:
    return " ".join(str(caption).split())
