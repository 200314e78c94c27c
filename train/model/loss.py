"""Contrastive losses over a batch of aligned image and caption vectors, whatever its size.

``info_nce`` is CLIP's (arXiv 2103.00020), ``siglip`` that of arXiv 2303.15343. The ranks of a
trainer hold the rows of one batch between them: each computes the losses of its own rows against
the vectors of all, gathered with gradient, and their mean is the loss of the whole batch, gradient
included. A batch of more than ``chunk`` pairs is computed in blocks of rows, which are computed
again for the gradient, so that its (B, B) logits never exist at once.

Everything is float32 whatever the autocast; float64 stays float64.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from ..ranks import ALONE, Ranks
from .pooling import exact

CHUNK = 16_384
_Block = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def info_nce(
    images: torch.Tensor,
    texts: torch.Tensor,
    temperature: torch.Tensor,
    *,
    ranks: Ranks = ALONE,
    chunk: int = CHUNK,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Contrast every image with every caption of the batch, and the reverse.

    Args:
        images, texts: (b, E) unit vectors of this rank; row k of both belongs to pair k.
        temperature: scalar that divides the cosines.
        chunk: a larger batch is cut into blocks of rows, of ``chunk**2`` logits at most.

    Returns:
        The mean loss of this rank's rows, and their in-batch accuracy: (2,) float32 shares of
        images, and of captions, whose own partner beats all others; ties count as wrong.
    """
    both = (F.cross_entropy, F.cross_entropy)
    losses, accuracy = _both_ways(images, texts, temperature, both, ranks, chunk)
    return losses.mean(), accuracy


def siglip(
    images: torch.Tensor,
    texts: torch.Tensor,
    temperature: torch.Tensor,
    bias: torch.Tensor,
    *,
    ranks: Ranks = ALONE,
    chunk: int = CHUNK,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ask of every image and caption of the batch whether they are a pair.

    Args, Returns: as of ``info_nce``; ``bias`` is added to the logits, and each image's losses over
        all captions are summed, as the paper does.
    """
    from_images = (partial(_pairwise, bias), _nothing)  # the reverse would ask the same again
    losses, accuracy = _both_ways(images, texts, temperature, from_images, ranks, chunk)
    return losses[0], accuracy


def _pairwise(bias: torch.Tensor, logits: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """The mean over rows of the summed losses: -log sigmoid of the own logit and of minus others.

    ``-log sigmoid(-x) = softplus(x)``, and for the own one ``softplus(x) - x``.
    """
    logits = logits + bias.to(logits.dtype)
    ours = logits.gather(1, own[:, None])
    return (F.softplus(logits).sum() - ours.sum()) / len(logits)


def _nothing(logits: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    return logits.new_zeros(())


def _both_ways(
    images: torch.Tensor,
    texts: torch.Tensor,
    temperature: torch.Tensor,
    losses_of: tuple[_Block, _Block],
    ranks: Ranks,
    chunk: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses (2,) and accuracies (2,) of this rank's images against all captions, and reverse."""
    with torch.autocast(images.device.type, enabled=False):
        images, texts, temperature = map(exact, (images, texts, temperature))
        if ranks.world == 1 and len(images) <= chunk:
            logits = images @ texts.T / temperature
            own = torch.arange(len(logits), device=logits.device)
            given = zip(losses_of, (logits, logits.T), strict=True)
            ways = [(loss_of(one, own), _hits(one, own)) for loss_of, one in given]
        else:
            everyone = ranks.gather(torch.cat([images, texts], 1))
            all_images, all_texts = everyone.split(images.shape[1], 1)
            ways = [
                _in_blocks(mine, others, temperature, loss_of, ranks.rank, chunk)
                for loss_of, mine, others in (
                    (losses_of[0], images, all_texts),
                    (losses_of[1], texts, all_images),
                )
            ]
        losses, hits = zip(*ways, strict=True)
        return torch.stack(losses), torch.stack(hits).float() / len(images)


def _in_blocks(
    mine: torch.Tensor,
    others: torch.Tensor,
    temperature: torch.Tensor,
    loss_of: _Block,
    rank: int,
    chunk: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean loss of rows, and how many are right, some rows at a time."""

    def block(rows: torch.Tensor, own: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = rows @ others.T / temperature
        return loss_of(logits, own) * len(rows), _hits(logits, own)

    own = torch.arange(len(mine), device=mine.device) + rank * len(mine)
    if len(others) <= chunk:
        loss, hits = block(mine, own)
        return loss / len(mine), hits
    size = max(1, chunk * chunk // len(others))
    parts = [
        checkpoint(block, rows, places, use_reentrant=False, preserve_rng_state=False)
        for rows, places in zip(mine.split(size), own.split(size), strict=True)
    ]
    losses, counts = zip(*parts, strict=True)
    return torch.stack(losses).sum() / len(mine), torch.stack(counts).sum()


@torch.no_grad()
def _hits(logits: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """How many rows have their own logit, in column ``own``, above all others."""
    ours = logits.gather(1, own[:, None])
    return ((logits >= ours).sum(1) == 1).sum()
