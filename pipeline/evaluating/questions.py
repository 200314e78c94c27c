"""Further questions to a model: altered captions, and COCO's richer ground truths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...artifact import hash_file, write_json
from ...errors import InputError
from ...train.evaluation.eccv import eccv_scores
from ...train.evaluation.queries import image_rows
from ...train.evaluation.swaps import Swapped, swapped
from ..dataset import Dataset
from ..plans.eligible import fold
from ..sources.coco import load_coco
from ..stages.queries import QueriesStage
from .embedders import Embedder, usable_queries
from .named_images import find_images, of_coco
from .swap_files import Swap, SwapFile


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Swaps:
    """A file of altered captions whose images were looked for.

    Attributes:
        image: (n,) number of each row's image, -1: not in the dataset.
        known: how many true captions are captions that the dataset has of their image.
    """

    file: SwapFile
    image: np.ndarray
    known: int

    @classmethod
    def of(cls, dataset: Dataset, file: SwapFile) -> Swaps:
        """Look for the images of a file.

        Raises:
            InputError: none is in the dataset.
        """
        images, names = dataset.images(), [swap.image for swap in file.swaps]
        image = find_images(names, images, coco_ids=of_coco(dataset))
        if not (image >= 0).any():
            found = f"none of the images of its {len(file.swaps):,} rows is in the dataset"
            example = f"images are named by id, path or file, and here {file.swaps[0].image!r}"
            raise InputError(file.path, found, do=example)
        said = dataset.pairs().select(["image", "caption"])
        said = said.filter(pc.is_in(said["image"], value_set=pa.array(np.unique(image))))
        rows = zip(said["image"].to_pylist(), said["caption"].to_pylist(), strict=True)
        captions = {(number, fold(caption)) for number, caption in rows}
        asked = zip(image.tolist(), file.swaps, strict=True)
        known = sum((number, fold(swap.caption)) in captions for number, swap in asked)
        return cls(file=file, image=image, known=known)


def ask_swaps(embedder: Embedder, swaps: Swaps) -> dict[str, Any]:
    """Score true captions against altered ones; write and return the report.

    Rows of images that the dataset lacks, or that cannot be embedded, are counted.

    Raises:
        InputError: no row is left.
    """
    file, rows = swaps.file, swaps.file.swaps
    known = np.flatnonzero(swaps.image >= 0)
    kept = known[embedder.usable(swaps.image[known])]
    if not len(kept):
        found = f"no image of its {len(rows):,} rows can be embedded"
        raise InputError(file.path, found, do="see 'tonics show rejected'")
    result = _score_swaps(embedder, [rows[k] for k in kept.tolist()], swaps.image[kept])
    path = file.path
    report = {
        **{"format": "tonics-swaps", "version": 1, "file": path.name, "xxh3": hash_file(path)},
        "rows": file.rows,
        "malformed": file.malformed,
        "not_altered": file.rows - file.malformed - len(rows),
        "not_in_dataset": len(rows) - len(known),
        "not_usable": len(known) - len(kept),
        "same_as_true": file.unaltered,
        "captions_of_dataset": swaps.known,
        **result.report(),
    }
    write_json(embedder.evaluation.extra(f"swaps-{path.stem}"), report)
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
