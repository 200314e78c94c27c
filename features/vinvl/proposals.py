"""Where objects may be: anchors on the map, moved and ranked by a small head, then thinned out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .backbone import Convolution
from .boxes import PROPOSAL_WEIGHTS, clip, decode
from .checkpoint import Weights
from .config import STRIDE, VinVLConfig
from .nms import nms


class ProposalHead:
    """Scores and moves every anchor of every cell."""

    def __init__(self, weights: Weights, config: VinVLConfig) -> None:
        self.conv = Convolution(weights, "rpn.head.conv")
        self.logits = Convolution(weights, "rpn.head.cls_logits")
        self.deltas = Convolution(weights, "rpn.head.bbox_pred")
        made = cell_anchors(config)
        weights.check_anchors(made)
        self.anchors = torch.from_numpy(made).to(self.conv.weight.device)

    def __call__(self, c4: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) -> logits (B, anchors, h, w), deltas (B, 4 * anchors, h, w), float32."""
        x = self.conv(c4).relu_()
        return self.logits(x).float(), self.deltas(x).float()


def cell_anchors(config: VinVLConfig) -> np.ndarray:
    """List the anchors of the first cell: ratios, and within a ratio sizes; (anchors, 4) float32.

    >>> cell_anchors(VinVLConfig())[:3].tolist()
    [[-15.0, -4.0, 30.0, 19.0], [-38.0, -16.0, 53.0, 31.0], [-84.0, -40.0, 99.0, 55.0]]
    """
    centre = (STRIDE - 1) / 2
    ratios = np.array(config.anchor_ratios, np.float64)
    widths = np.round(np.sqrt(STRIDE * STRIDE / ratios))
    heights = np.round(widths * ratios)
    scales = np.array(config.anchor_sizes, np.float64) / STRIDE
    reach = (np.stack([widths, heights], 1)[:, None] * scales[:, None] - 1) / 2
    reach = reach.reshape(-1, 2)
    return np.concatenate([centre - reach, centre + reach], axis=1).astype(np.float32)


def propose(
    logits: Tensor, deltas: Tensor, anchors: Tensor, size: tuple[int, int], config: VinVLConfig
) -> tuple[Tensor, Tensor]:
    """Choose the boxes of one image that are worth a closer look.

    Args:
        logits: (anchors, h, w), the image's own cells only.
        deltas: (4 * anchors, h, w); the four numbers of an anchor follow each other.
        anchors: (anchors, 4), of the first cell.
        size: height and width of the image, in pixels.

    Returns:
        Boxes (n, 4) inside the image and their objectness (n,), best first. A box may be less than
        a pixel wide, even x2 < x1 by a fraction of one, as in the reference.
    """
    count, height, width = logits.shape
    scores = logits.permute(1, 2, 0).reshape(-1).sigmoid()
    scores, order = scores.sort(descending=True, stable=True)
    scores, order = scores[: config.candidates], order[: config.candidates]
    moved = deltas.view(count, 4, height, width).permute(2, 3, 0, 1).reshape(-1, 4)[order]
    cell = order.div(count, rounding_mode="floor")
    x, y = cell % width, cell.div(width, rounding_mode="floor")
    shift = torch.stack([x, y, x, y], dim=1) * STRIDE
    boxes = clip(decode(moved, anchors[order % count] + shift, PROPOSAL_WEIGHTS), size)
    kept = nms(boxes, scores, config.proposal_nms_thresh, config.nms, config.proposals)
    return boxes[kept], scores[kept]
