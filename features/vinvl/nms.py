"""Non-maximum suppression: of boxes that overlap, the one that scores best survives.

On a CPU we go from survivor to survivor (or, for all classes at once, from rank to rank). A GPU
would wait for the host at each step: there a matrix of who could suppress whom is solved as a
whole, or torchvision's kernel is used where it imports. All give the same survivors.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from .boxes import Kind, overlaps

_CLASSES_AT_ONCE = 256  # a matrix of 300 x 300 for each: 46 MB in half precision


def nms(
    boxes: Tensor, scores: Tensor, threshold: float, kind: Kind, limit: int | None = None
) -> Tensor:
    """Find the boxes (n, 4) that survive suppression.

    Args:
        limit: stop after so many, best first.

    Returns:
        Their positions, int64: best first ("torchvision"), or ascending ("legacy"), as in the
        reference. Equal scores: the earlier box comes first.
    """
    order = scores.argsort(descending=True, stable=True)
    if not boxes.is_cuda:
        kept = _from_survivor_to_survivor(boxes, order, threshold, kind, limit)
    elif kind == "torchvision" and (kernels := torchvision_ops()) is not None:
        kept = order[kernels.nms(boxes[order], scores[order], threshold)]
    else:
        ranked = boxes[order]
        before = overlaps(ranked[:, None], ranked[None], threshold, kind).triu_(1)
        kept = order[survivors(before[None])[0]]
    kept = kept[:limit]
    return kept.sort().values if kind == "legacy" else kept


def _from_survivor_to_survivor(
    boxes: Tensor, order: Tensor, threshold: float, kind: Kind, limit: int | None
) -> Tensor:
    kept: list[Tensor] = []
    while len(order) and (limit is None or len(kept) < limit):
        best, order = order[:1], order[1:]
        kept.append(best)
        order = order[~overlaps(boxes[best], boxes[order], threshold, kind)]
    return torch.cat(kept) if kept else order


def nms_by_class(boxes: Tensor, scores: Tensor, threshold: float, kind: Kind) -> Tensor:
    """Suppress within each class, all classes at once.

    Args:
        boxes: (n, 4), the same for all classes, or (n, classes, 4).
        scores: (n, classes).

    Returns:
        (n, classes) bool: who survives. A box that scores low suppresses only lower ones, so this
        also holds for those above any threshold of score.
    """
    order = scores.T.argsort(dim=1, descending=True, stable=True)
    ours = boxes.transpose(0, 1) if boxes.dim() == 3 else boxes[None]
    if boxes.is_cuda:
        alive = _as_matrices(ours, order, threshold, kind)
    elif boxes.dim() == 2:
        alive = _shared_rank_by_rank(boxes, order, threshold, kind)
    else:
        alive = _rank_by_rank(ours, order, threshold, kind)
    return alive.T


def _shared_rank_by_rank(boxes: Tensor, order: Tensor, threshold: float, kind: Kind) -> Tensor:
    """Suppress with one matrix of overlaps for all classes; order (classes, n) -> alive.

    Who is alive at its turn overlaps with no better one alive, so its row harms none of those.
    """
    overlap = overlaps(boxes[:, None], boxes[None], threshold, kind).fill_diagonal_(False)
    gone = torch.zeros_like(order, dtype=torch.bool)
    for turn in order.T[:, :, None]:
        gone |= overlap[turn[:, 0]].logical_and_(~gone.gather(1, turn))
    return ~gone


def _rank_by_rank(boxes: Tensor, order: Tensor, threshold: float, kind: Kind) -> Tensor:
    """Suppress boxes (classes, n, 4) of each class's own; order (classes, n) -> alive."""
    ranked = boxes.gather(1, order[:, :, None].expand(-1, -1, 4))
    gone = torch.zeros_like(order, dtype=torch.bool)
    for rank in range(order.shape[1] - 1):
        later = slice(rank + 1, None)
        overlap = overlaps(ranked[:, rank, None], ranked[:, later], threshold, kind)
        gone[:, later] |= overlap.logical_and_(~gone[:, rank, None])
    return torch.empty_like(gone).scatter_(1, order, ~gone)


def _as_matrices(boxes: Tensor, order: Tensor, threshold: float, kind: Kind) -> Tensor:
    """Suppress boxes (classes or 1, n, 4), some classes at a time; order (classes, n) -> alive."""
    shared = len(boxes) == 1
    overlap = overlaps(boxes[0, :, None], boxes[0, None], threshold, kind) if shared else None
    alive = torch.empty_like(order, dtype=torch.bool)
    for start in range(0, len(order), _CLASSES_AT_ONCE):
        some = order[start : start + _CLASSES_AT_ONCE]
        if overlap is not None:
            before = overlap[some[:, :, None], some[:, None, :]]
        else:
            part = boxes[start : start + len(some)]
            ranked = part.gather(1, some[:, :, None].expand(-1, -1, 4))
            before = overlaps(ranked[:, :, None], ranked[:, None], threshold, kind)
        alive[start : start + len(some)].scatter_(1, some, survivors(before.triu_(1)))
    return alive


def survivors(suppresses: Tensor) -> Tensor:
    """Solve suppression for groups of ranked boxes.

    A box lives if none of those alive before it suppresses it. Repeating that from "all live" makes
    the first box right, then those that hang on it, and so on; when nothing changes all are right.

    Args:
        suppresses: (groups, n, n) bool; [g, i, j]: box i, if alive, suppresses box j > i.

    Returns:
        (groups, n) bool.
    """
    half = torch.float16 if suppresses.is_cuda else torch.float32  # counts up to n: exact enough
    matrix = suppresses.to(half)
    alive = torch.ones(suppresses.shape[:2], dtype=torch.bool, device=suppresses.device)
    while True:
        now = torch.bmm(alive[:, None].to(half), matrix)[:, 0] == 0
        if torch.equal(now, alive):
            return alive
        alive = now


@functools.cache
def torchvision_ops() -> Any:
    """Find torchvision's kernels; None where it is missing or does not fit this torch."""
    try:
        from torchvision import ops
    except (ImportError, RuntimeError, OSError):
        return None
    return ops
