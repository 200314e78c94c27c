"""Items of unequal length end to end, without padding: regions of images, tokens of captions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


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
