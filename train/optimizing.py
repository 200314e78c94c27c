"""How weights change: AdamW, its learning rate from step to step, and averages of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from .config import TrainConfig


def adamw(objective: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over up to four groups: in the encoder or not, decayed (matrices) or not.

    Parameters that need no gradient are left out.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            key = (name.startswith("model.text.encoder."), parameter.ndim >= 2)
            groups.setdefault(key, []).append(parameter)
    described = [
        {
            "params": members,
            "peak_lr": config.encoder_lr if in_encoder else config.lr,
            "weight_decay": config.weight_decay if decayed else 0.0,
        }
        for (in_encoder, decayed), members in groups.items()
    ]
    fused = next(objective.parameters()).device.type in ("cpu", "cuda")
    return torch.optim.AdamW(described, lr=config.lr, betas=config.betas, fused=fused)


def trained(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """The parameters that an optimizer changes."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def set_lr(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Give every group a share of its peak learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = share * group["peak_lr"]


def lr_share(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate at a step: a linear rise, then a cosine to zero.

    >>> [round(lr_share(s, 10, 0.2), 2) for s in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.04]
    """
    rising = round(total * warmup)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (total - rising)))


class Average:
    """An exponential moving average of a module's trained parameters; of none for a decay of 0.

    The first steps count more than the decay says, so that short runs forget how they began: after
    n steps at most ``(1 + n) / (10 + n)`` is kept.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        kept = {n: p for n, p in module.named_parameters() if p.requires_grad} if decay else {}
        self._now = [parameter.detach() for parameter in kept.values()]
        self.tensors = {name: tensor.clone() for name, tensor in zip(kept, self._now, strict=True)}

    @torch.no_grad()
    def take(self, step: int) -> None:
        """Take in the parameters as they are after step number ``step``, from 0."""
        if self.tensors:
            kept = min(self.decay, (2 + step) / (11 + step))
            torch._foreach_lerp_(list(self.tensors.values()), self._now, 1 - kept)

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over a saved average."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])
