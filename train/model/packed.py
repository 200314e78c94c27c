"""Items of unequal length end to end, without padding: regions of images, tokens of captions.

Linear layers work on the rows as they lie. Where the rows of an item have to stand side by side
(attention within an item, sorting over it), ``Layout`` spreads them into (n, longest) places and
collects them again; it asks no device how long anything is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packed:
    """Rows of n items, one item after the other.

    Attributes:
        rows: (sum t, ...), of any kind.
        cu_seqlens: (n + 1,) int32; item k owns rows ``cu_seqlens[k]:cu_seqlens[k + 1]``.
        longest: the most rows of an item, known here so that no device has to be asked.
    """

    rows: torch.Tensor
    cu_seqlens: torch.Tensor
    longest: int

    def __len__(self) -> int:
        return len(self.cu_seqlens) - 1

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Packed:
        """Apply what moves a tensor, and leaves its shape, to both."""
        return Packed(
            rows=change(self.rows), cu_seqlens=change(self.cu_seqlens), longest=self.longest
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Packed:
        """Copy to a device."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """Where packed rows stand once every item has ``longest`` places.

    Attributes:
        cu_seqlens: (n + 1,) int64.
        owner: (sum t,) int64, the item of a row.
        positions: (sum t,) int64, of a row within its item.
        slots: (sum t,) int64, of a row among the n * longest places.
        longest: places of an item.
    """

    cu_seqlens: torch.Tensor
    owner: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    longest: int

    @classmethod
    def of(cls, cu_seqlens: torch.Tensor, rows: int, longest: int) -> Layout:
        """Lay out items of so many rows in all."""
        bounds = cu_seqlens.long()
        items = torch.arange(len(bounds) - 1, device=bounds.device)
        owner = items.repeat_interleave(bounds.diff(), output_size=rows)
        positions = torch.arange(rows, device=bounds.device) - bounds[owner]
        slots = owner * longest + positions
        return cls(
            cu_seqlens=bounds, owner=owner, positions=positions, slots=slots, longest=longest
        )

    def __len__(self) -> int:
        return len(self.cu_seqlens) - 1

    def spread(self, rows: torch.Tensor, fill: float = 0.0) -> torch.Tensor:
        """(sum t, ...) rows to (n, longest, ...), empty places filled."""
        places = rows.new_full((len(self) * self.longest, *rows.shape[1:]), fill)
        places = places.index_copy(0, self.slots, rows)
        return places.view(len(self), self.longest, *rows.shape[1:])

    def collect(self, places: torch.Tensor) -> torch.Tensor:
        """Undo ``spread``."""
        return places.flatten(0, 1).index_select(0, self.slots)

    def present(self, kept: torch.Tensor | None = None) -> torch.Tensor:
        """(n, longest) bool: which places hold a row, or one of those that are ``kept``."""
        rows = torch.ones_like(self.slots, dtype=torch.bool) if kept is None else kept.bool()
        return self.spread(rows)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: Layout,
    present: torch.Tensor,
    *,
    dropout: float = 0.0,
    scale: float | None = None,
) -> torch.Tensor:
    """Scaled dot-product attention within each item.

    Args:
        query, key, value: (sum t, heads, width). present: (n, longest) keys to look at; an item
            without any gives numbers of no meaning.

    Returns:
        (sum t, heads, width).
    """
    q, k, v = (layout.spread(rows).transpose(1, 2) for rows in (query, key, value))
    mask = present[:, None, None, :]
    seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale)
    return layout.collect(seen.transpose(1, 2))


def segment_mean(
    rows: torch.Tensor, cu_seqlens: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Average rows item by item; an item without rows gives zeros.

    An embedding bag with one bag an item: unlike ``index_add`` it adds in a fixed order on a GPU
    too.

    Args:
        rows: (sum t, E) float32. cu_seqlens: (n + 1,). weights: (sum t,) of each row in its mean.

    Returns:
        (n, E).
    """
    at = torch.arange(len(rows), device=rows.device)
    offsets = cu_seqlens.to(at.dtype)
    sums = F.embedding_bag(
        at, rows, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )
    return sums / segment_sum(weights, cu_seqlens).clamp(min=1e-6)[:, None]


def segment_sum(values: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
    """Sum values (sum t,) item by item; exact for whole numbers below 2**24."""
    running = F.pad(values.cumsum(0), (1, 0))[cu_seqlens.long()]
    return running.diff()


def draw_kept(cu_seqlens: torch.Tensor, count: int, share: float) -> torch.Tensor:
    """Draw which rows stay: (sum t,) of 0.0 and 1.0; an item that would lose all keeps all.

    Args:
        count: rows in all. share: of rows to leave out.
    """
    keep = (torch.rand(count, device=cu_seqlens.device) >= share).float()
    lost_all = segment_sum(keep, cu_seqlens) == 0
    lengths = cu_seqlens.diff().long()
    return keep.maximum(lost_all.float().repeat_interleave(lengths, output_size=count))
