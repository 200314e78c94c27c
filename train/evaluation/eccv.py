"""ECCV Caption and CxC: COCO's test set with the right answers that its captions did not know of.

Chun et al. 2022; the ground truth is in the package ``eccv_caption``, keyed by COCO's numbers of
images and captions.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import InputError, MissingAsset, first_ten
from .retrieval import slices

METRICS = (
    "coco_1k_recalls",
    "coco_5k_recalls",
    "cxc_recalls",
    "eccv_r1",
    "eccv_map_at_r",
    "eccv_rprecision",
)
DEPTH = 200  # mAP@R looks as deep as there are right answers
_ROWS = 256


def eccv_scores(
    image_vectors: np.ndarray,
    text_vectors: np.ndarray,
    image_ids: Sequence[int],
    caption_ids: Sequence[int],
) -> dict[str, dict[str, float]]:
    """Score vectors of COCO's 5,000 test images and their captions.

    Args:
        image_ids: (N,) COCO's number of each image. caption_ids: (M,) of each caption.

    Returns:
        By metric, ``i2t`` and ``t2i`` in percent.

    Raises:
        MissingAsset: ``eccv_caption`` is not installed.
        InputError: the set lacks images or captions that the ground truth asks for.
    """
    metrics = _metrics()
    images, captions = np.asarray(image_ids), np.asarray(caption_ids)
    for name, known, wanted in (
        ("images", images, metrics.coco_gts["i2t"]),
        ("captions", captions, metrics.coco_gts["t2i"]),
    ):
        if missing := sorted(set(wanted) - set(known.tolist())):
            found = f"{len(missing):,} of {len(wanted):,} {name} are not in the query set"
            expected = "all of Karpathy's COCO test split"
            shown = f"the first are {first_ten(missing)}"
            raise InputError("eccv_caption", f"{found} ({shown})", expected=expected)
    i2t = dict(zip(images.tolist(), best(image_vectors, text_vectors, captions), strict=True))
    t2i = dict(zip(captions.tolist(), best(text_vectors, image_vectors, images), strict=True))
    with contextlib.redirect_stderr(io.StringIO()):  # it draws progress bars
        found = metrics.compute_all_metrics(i2t, t2i, target_metrics=METRICS, Ks=(1, 5, 10))
    return {name: _percent(ways) for name, ways in found.items()}


def best(
    asking: np.ndarray, answering: np.ndarray, ids: np.ndarray, depth: int = DEPTH
) -> list[list[int]]:
    """List the ids that score highest, the best first, for every row that asks."""
    depth = min(depth, len(ids))
    found: list[list[int]] = []
    wide = np.asarray(answering, np.float32)
    for rows in slices(len(asking), _ROWS):
        scores = -(np.asarray(asking[rows], np.float32) @ wide.T)
        some = np.argpartition(scores, depth - 1, axis=1)[:, :depth]
        order = np.take_along_axis(scores, some, 1).argsort(1, kind="stable")
        found += ids[np.take_along_axis(some, order, 1)].tolist()
    return found


def _metrics() -> Any:
    try:
        from eccv_caption import Metrics
    except ImportError as error:
        do = "install it: pip install 'tonics[eccv]'"
        raise MissingAsset("eccv_caption", "is not installed", do=do) from error
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a faster JSON parser is missing
        return Metrics()


def _percent(ways: Mapping[str, float]) -> dict[str, float]:
    return {way: round(100 * float(value), 2) for way, value in ways.items()}
