"""What is minimised: a batch goes in, the loss and the in-batch accuracy come out."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .config import TrainConfig
from .model.loss import info_nce, siglip
from .ranks import Ranks
from .stream import Batch

_SIGLIP_BIAS = -10.0  # arXiv 2303.15343, section 3.2: nearly all pairs of a batch are no pairs


class Objective(nn.Module):
    """A model and the loss it is trained with; on several ranks, of the whole batch.

    Args:
        model: takes a batch to unit vectors of its images and captions, and has a temperature.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, ranks: Ranks) -> None:
        super().__init__()
        self.model: Any = model
        self.config, self.ranks = config, ranks
        if config.loss == "siglip":
            self.bias = nn.Parameter(torch.tensor(_SIGLIP_BIAS))

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of this rank's rows, and their accuracies (2,), image to text and back."""
        bf16 = self.config.precision == "bfloat16"
        with torch.autocast(batch.features.device.type, torch.bfloat16, enabled=bf16):
            images, texts = self.model(batch)
        given: dict[str, Any] = {"ranks": self.ranks, "chunk": self.config.chunk}
        if self.config.loss == "siglip":
            return siglip(images, texts, self.model.temperature, self.bias, **given)
        return info_nce(images, texts, self.model.temperature, **given)


def compile_towers(model: Any) -> None:
    """Let torch compile both towers, for any number of regions and tokens.

    Batches of one plan differ in nothing else, so each tower is compiled once, in its first step.
    """
    for tower in (model.image, model.text):
        tower.compile(dynamic=True)


def spread(objective: Objective, ranks: Ranks) -> nn.Module:
    """Wrap an objective so that backward leaves the same gradient on all ranks."""
    if ranks.world == 1:
        return objective
    return DistributedDataParallel(objective, gradient_as_bucket_view=True, static_graph=True)
