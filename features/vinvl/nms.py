"""Non-maximum suppression: of boxes that overlap, the one that scores best survives.

On a CPU we go from survivor to survivor (or, for all classes at once, from rank to rank). A GPU
would wait for the host at each step: there a matrix of who could suppress whom is solved as a
whole. All give the same survivors. torchvision's kernel is not used: on a GPU it compares with
the threshold as float32 and may fuse products into sums, so that ties could come out otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .boxes import Kind, overlaps
from .config import on_cpu

# Classes at once, a matrix of 300 x 300 for each. With one matrix of overlaps for all they take
# 0.4 GB for the published model; with boxes of their own there are several of float32.
_CLASSES_AT_ONCE, _CLASSES_WITH_BOXES = 2048, 256
_PASSES = 4  # between two looks at whether anything still changes, which wait for the GPU


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
    if on_cpu(boxes.device):
        kept = _from_survivor_to_survivor(boxes, order, threshold, kind, limit)
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
    if not on_cpu(boxes.device):
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
    step = _CLASSES_AT_ONCE if shared else _CLASSES_WITH_BOXES
    for start in range(0, len(order), step):
        some = order[start : start + step]
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
    # Counts need not be exact, only 0 where nothing is counted.
    counts = torch.float32 if on_cpu(suppresses.device) else torch.float16
    matrix = suppresses.to(counts)
    now = torch.ones(suppresses.shape[:2], dtype=torch.bool, device=suppresses.device)
    while True:
        for _ in range(_PASSES):
            alive = now
            now = torch.bmm(alive[:, None].to(counts), matrix)[:, 0] == 0
        if torch.equal(now, alive):
            return alive
