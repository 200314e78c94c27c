"""One rank's rows of a planned batch, as tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..model.packed import Packed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """One rank's rows of a planned batch.

    Attributes:
        step: number of the batch in the plan.
        pairs: (B,) int64 pair numbers.
        features: (sum n, D) float16, the regions of B images end to end.
        geometry: (sum n, 6) float32.
        cu_seqlens: (B + 1,) int32; image k owns rows ``cu_seqlens[k]:cu_seqlens[k + 1]``.
        longest: the most regions an image of the batch has.
        texts: (B, d) float32 caption vectors; or ``Packed`` rows of the B captions: (sum t,) int32
            token ids, or (sum t, d) float16 token states.
    """

    step: int
    pairs: np.ndarray
    features: torch.Tensor
    geometry: torch.Tensor
    cu_seqlens: torch.Tensor
    longest: int
    texts: torch.Tensor | Packed

    def __len__(self) -> int:
        return len(self.pairs)

    def to(self, device: torch.device | str) -> Batch:
        """Copy the tensors to a device.

        Towards a CUDA device without waiting; from there to the CPU nobody would know when the
        numbers have come.
        """
        ahead = torch.device(device).type == "cuda"
        names = ("features", "geometry", "cu_seqlens", "texts")
        moved: dict[str, Any] = {n: getattr(self, n).to(device, non_blocking=ahead) for n in names}
        return replace(self, **moved)
