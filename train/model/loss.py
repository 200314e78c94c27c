"""Symmetric InfoNCE over a batch of aligned image and caption vectors (CLIP, arXiv 2103.00020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def info_nce(
    images: torch.Tensor, texts: torch.Tensor, temperature: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Contrast every image with every caption of the batch, in float32 whatever the autocast.

    Args:
        images, texts: (B, E) unit vectors; row k of both belongs to pair k.
        temperature: scalar that divides the cosines.

    Returns:
        The loss, and the (B, B) logits, images in rows.
    """
    with torch.autocast(images.device.type, enabled=False):
        logits = images.float() @ texts.float().T / temperature.float()
        target = torch.arange(len(logits), device=logits.device)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    return loss, logits


def in_batch_accuracy(logits: torch.Tensor) -> torch.Tensor:
    """Share of rows, and of columns, whose own partner beats all others; ties count as wrong.

    Returns:
        (2,) float32: image to text, text to image.
    """
    own = logits.diagonal()
    beaten = logits >= own[:, None]
    beats_all = torch.stack([beaten.sum(1) == 1, (logits >= own).sum(0) == 1])
    return beats_all.float().mean(1)
