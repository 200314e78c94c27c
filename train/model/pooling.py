"""How the rows of an item (regions of an image, tokens of a caption) become one vector.

``mean``; ``gpo``, a learned weighting of each dimension's sorted values (generalised pooling of
VSE-infinity, arXiv 2011.04305; where that runs a recurrent network over the positions, a small MLP
knows the distance of a position from both ends, so that there is one table of weights for all
lengths); ``attention``, a learned query a head. What is left out in training is left out of the
sort and of the softmax, as if the item were shorter.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from . import HEADS
from .packed import Layout, attend

_ENCODED = 32  # numbers a position is encoded in, from each end
_SHARPNESS = 10.0  # as the softmax temperature of 0.1 in VSE-infinity


class GPO(nn.Module):
    """A learned weighting of each dimension's values in descending order; begins as their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Linear(2 * _ENCODED, _ENCODED)
        self.score = nn.Linear(_ENCODED, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(self, rows: torch.Tensor, layout: Layout, present: torch.Tensor) -> torch.Tensor:
        """Pool (sum t, E) rows to (n, E) float32; an item without rows gives zeros."""
        places = layout.spread(exact(rows), 0.0).masked_fill(~present[..., None], -math.inf)
        ordered = places.sort(dim=1, descending=True).values
        lengths = present.sum(1)
        filled = torch.arange(layout.longest, device=rows.device) < lengths[:, None]
        weights = self.weights(layout.longest)[lengths]
        return (ordered.masked_fill(~filled[..., None], 0.0) * weights[..., None]).sum(1)

    def weights(self, longest: int) -> torch.Tensor:
        """(longest + 1, longest): row n holds the n weights of an item of n rows, then zeros."""
        device = self.score.weight.device
        place = torch.arange(longest, device=device)
        length = torch.arange(longest + 1, device=device)[:, None]
        code = torch.cat([_waves(place.expand(longest + 1, -1)), _waves(length - 1 - place)], -1)
        with torch.autocast(device.type, enabled=False):
            scores = self.score(F.gelu(self.widen(code.to(self.score.weight.dtype))))[..., 0]
        scores = (scores * _SHARPNESS).masked_fill(place >= length, -math.inf)
        scores = scores.masked_fill(length == 0, 0.0)  # no softmax of nothing
        return scores.softmax(-1) * (place < length)


class AttentionPool(nn.Module):
    """Each head weighs the rows by a learned query, and averages its share of the numbers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, HEADS, bias=False)

    def forward(self, rows: torch.Tensor, layout: Layout, present: torch.Tensor) -> torch.Tensor:
        """Pool (sum t, E) rows to (n, E) float32; an item without rows gives zeros."""
        with torch.autocast(rows.device.type, enabled=False):
            scores = layout.spread(self.score(self.norm(exact(rows))))
        scores = scores.masked_fill(~present[..., None], torch.finfo(scores.dtype).min)
        weights = scores.softmax(1) * present[..., None]
        values = layout.spread(exact(rows)).unflatten(-1, (HEADS, -1))
        return (values * weights[..., None]).sum(1).flatten(1)


class Block(nn.Module):
    """A transformer layer over the rows of each item, normalised first."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = ResidualMLP(width, hidden, dropout)

    def forward(self, rows: torch.Tensor, layout: Layout, present: torch.Tensor) -> torch.Tensor:
        """(sum t, E) to (sum t, E)."""
        projected = self.query_key_value(self.norm(exact(rows)))
        query, key, value = projected.unflatten(-1, (3, HEADS, -1)).unbind(1)
        seen = attend(query, key, value, layout, present).flatten(1)
        return self.mlp(rows + self.out(seen), layout)


class Dropout(nn.Module):
    """Dropout that leaves out the same numbers in all rows of an item.

    That is what averaging the rows first comes to; and drawing every number by itself took a third
    of a training step on a CPU.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: torch.Tensor, layout: Layout | None = None) -> torch.Tensor:
        """Drop in training; without a layout every row is an item."""
        if layout is None or not (self.training and self.share):
            return F.dropout(x, self.share, self.training)
        kept = F.dropout(x.new_ones(len(layout), x.shape[-1]), self.share)
        return x * kept.index_select(0, layout.owner)


class Projection(nn.Module):
    """LayerNorm, dropout, Linear.

    The norm has no weights of its own: the linear layer after it would absorb them.
    """

    def __init__(self, width_in: int, width_out: int, dropout: float) -> None:
        super().__init__()
        self.width_in = width_in
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(width_in, width_out)

    def forward(self, x: torch.Tensor, layout: Layout | None = None) -> torch.Tensor:
        return self.linear(self.dropout(F.layer_norm(exact(x), (self.width_in,)), layout))


class ResidualMLP(nn.Module):
    """``x + MLP(LayerNorm(x))``."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, hidden)
        self.dropout = Dropout(dropout)
        self.narrow = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor, layout: Layout | None = None) -> torch.Tensor:
        x = exact(x)
        inner = self.dropout(F.gelu(self.widen(self.norm(x))), layout)
        return x + self.narrow(inner).to(x.dtype)


def blocks_of(pooling: str) -> int:
    """How many transformer layers come before the pooling.

    >>> [blocks_of(p) for p in ("gpo", "transformer:2")]
    [0, 2]
    """
    return int(pooling.partition(":")[2] or 0)


def make_pool(pooling: str, width: int) -> nn.Module:
    """The pooling layer of a name other than ``mean``; a transformer ends in GPO."""
    return AttentionPool(width) if pooling == "attention" else GPO()


def exact(x: torch.Tensor) -> torch.Tensor:
    """At least float32."""
    return x if x.dtype == torch.float64 else x.float()


def _waves(places: torch.Tensor) -> torch.Tensor:
    """Encode whole numbers as sines and cosines of falling frequency: (..., 32) float32."""
    steps = torch.arange(_ENCODED // 2, device=places.device) / (_ENCODED // 2)
    angles = places[..., None] * torch.exp(-math.log(1000.0) * steps)
    return torch.cat([angles.sin(), angles.cos()], -1)
