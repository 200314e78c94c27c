"""Which captions are taken in, which are not and why, and the split of every image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .config import Ingest, Splits
from .dataset import caption_hash
from .numbering import Captions
from .sources import NEVER_DOWNLOADED
from .sources.listing import Listed, first_rows
from .stage import Reject

_SPLITS = {
    "restval": "train",  # Karpathy's name for the COCO validation images he trains on
    "training": "train",
    "dev": "val",
    "valid": "val",
    "validation": "val",
    "testing": "test",
}
_ROWS_AT_ONCE = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What became of the captions.

    Attributes:
        captions: those that are taken in.
        ignored: how many captions are of images that were never downloaded.
    """

    captions: Captions
    rejects: list[Reject]
    ignored: int


def judge(listed: Listed, images: pa.Table, absent: pa.Array, config: Ingest) -> Judged:
    """Accept or reject every caption, in source order.

    Args:
        images: the numbered images (``IMAGES_SCHEMA``), withdrawn ones among them.
        absent: ids of images that were never downloaded.
    """
    image = _image_numbers(listed, images)
    verdict = _Verdict(len(listed))
    problems = listed.rows.column("problem")
    for problem in problems.unique().to_pylist():
        if problem:
            verdict.refuse(_mask(pc.equal(problems, problem)), problem)
    caption = listed.rows.column("caption").cast(pa.large_string()).combine_chunks()
    limit = config.max_caption_chars
    verdict.refuse(_mask(pc.is_null(caption)), "not UTF-8")
    verdict.refuse(_mask(pc.equal(caption, "")), "empty caption")
    too_long = _mask(pc.greater(pc.utf8_length(caption), limit))
    verdict.refuse(too_long, f"caption longer than {limit} characters")
    verdict.refuse(listed.strays, "image id listed twice")
    missing = _mask(pc.is_in(listed.ids, value_set=absent))[listed.image]
    verdict.refuse(missing & (image < 0), NEVER_DOWNLOADED)
    verdict.refuse(image < 0, "its image was rejected")
    hashes = _hashes(caption, verdict.fine)
    verdict.refuse(_repeated(listed.image, hashes, verdict.fine), "caption repeated for its image")
    rows = np.flatnonzero(verdict.fine)
    names, split = _splits(listed, images, image, config.splits)
    captions = Captions(
        image=image,
        position=listed.position,
        rows=rows,
        caption=caption.take(pa.array(rows)) if len(rows) < len(caption) else caption,
        caption_hash=hashes[rows],
        split=pa.DictionaryArray.from_arrays(pa.array(split[rows]), names),
    )
    ignored = int((verdict.reason == verdict.number(NEVER_DOWNLOADED)).sum())
    return Judged(captions=captions, rejects=_rejects(listed, verdict), ignored=ignored)


class _Verdict:
    """A reason for every row; the first that is given stays."""

    def __init__(self, rows: int) -> None:
        self.reasons = ["", NEVER_DOWNLOADED]
        self.reason = np.zeros(rows, np.int32)  # 0: none

    @property
    def fine(self) -> np.ndarray:
        return self.reason == 0

    def number(self, reason: str) -> int:
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason)

    def refuse(self, rows: np.ndarray, reason: str) -> None:
        self.reason[self.fine & rows] = self.number(reason)


def _mask(found: pa.Array | pa.ChunkedArray) -> np.ndarray:
    return pc.fill_null(found, False).to_numpy(zero_copy_only=False)


def _image_numbers(listed: Listed, images: pa.Table) -> np.ndarray:
    """(n,) int64: the number of each row's image, -1 where it has none that is active."""
    at = pc.index_in(listed.ids, value_set=images.column("image_id").combine_chunks())
    at = pc.fill_null(at, -1).to_numpy(zero_copy_only=False)
    active = pc.not_equal(images.column("content_hash"), "").to_numpy()
    numbers = np.where(active, images.column("image").to_numpy(), -1)
    return np.append(numbers, -1)[at][listed.image]  # -1 takes the last


def _hashes(caption: pa.Array, wanted: np.ndarray) -> np.ndarray:
    """(n,) uint64 hash of the wanted rows' captions, 0 of others."""
    found = np.zeros(len(caption), np.uint64)
    rows = np.flatnonzero(wanted)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[start : start + _ROWS_AT_ONCE]
        texts = caption.take(pa.array(part)).to_pylist()
        found[part] = np.fromiter(map(caption_hash, texts), np.uint64, len(part))
    return found


def _repeated(image: np.ndarray, hashes: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """(n,) bool: rows that say what an earlier fine row of the image says."""
    repeated = np.zeros(len(image), bool)
    several = np.bincount(image[fine], minlength=image.max(initial=-1) + 1) > 1
    rows = np.flatnonzero(fine & several[image])
    order = rows[np.lexsort((rows, hashes[rows], image[rows]))]
    same = (image[order[1:]] == image[order[:-1]]) & (hashes[order[1:]] == hashes[order[:-1]])
    repeated[order[1:][same]] = True
    return repeated


def _splits(
    listed: Listed, images: pa.Table, image: np.ndarray, shares: Splits
) -> tuple[pa.Array, np.ndarray]:
    """The one split of every row's image: the first that a source says, else by content.

    Returns:
        names of splits, and (n,) int32 index into them; what rows without an image get is no split.
    """
    encoded = listed.rows.column("split").dictionary_encode().combine_chunks()
    names = [
        _SPLITS.get(s.strip().lower(), s.strip().lower()) for s in encoded.dictionary.to_pylist()
    ]
    said = encoded.indices.to_numpy()
    speaks = np.array([bool(name) for name in names], bool)[said]
    speaks &= listed.usable & ~listed.strays
    first = first_rows(listed.image, speaks, len(listed.ids))
    found = np.append(said, -1)[first][listed.image]
    kinds = list(dict.fromkeys([*names, "train", "val", "test"]))
    number = np.array([*map(kinds.index, names), -1], np.int32)[found]
    silent = np.unique(image[(number < 0) & (image >= 0)])
    by_content = np.full(images.num_rows + 1, kinds.index("train"), np.int32)
    for start in range(0, len(silent), _ROWS_AT_ONCE):
        part = silent[start : start + _ROWS_AT_ONCE]
        content = images.column("content_hash").take(pa.array(part)).to_pylist()
        by_content[part] = [kinds.index(split_by_hash(h, shares)) for h in content]
    return pa.array(kinds), np.where(number < 0, by_content[image], number)


def _rejects(listed: Listed, verdict: _Verdict) -> list[Reject]:
    ignored = verdict.number(NEVER_DOWNLOADED)
    rows = np.flatnonzero((verdict.reason > 0) & (verdict.reason != ignored))
    table = listed.rows.select(["image_id", "path", "where"]).take(pa.array(rows))
    columns: Sequence[list[str]] = [column.to_pylist() for column in table.columns]
    positions, reasons = listed.position[rows].tolist(), verdict.reason[rows].tolist()
    return [
        Reject(
            where=f"{image_id}#{position}" if image_id else where,
            reason=verdict.reasons[reason],
            detail=f"{where}: {path}",
        )
        for image_id, path, where, position, reason in zip(
            *columns, positions, reasons, strict=True
        )
    ]


def split_by_hash(content_hash: str, splits: Splits) -> str:
    """Choose a split from an image's content, so that copies of it stay on one side.

    >>> split_by_hash("00" * 16, Splits(test=0.1)), split_by_hash("ff" * 16, Splits(test=0.1))
    ('test', 'train')
    """
    at = int(content_hash[:13], 16) / 16**13
    if at < splits.test:
        return "test"
    return "val" if at < splits.test + splits.val else "train"
