"""Keeps a GPU from rounding float32 to TF32 while the model computes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from .config import on_cpu


@contextlib.contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Multiply and convolve float32 as float32 inside the block; the caller's choice comes back.

    In half precision too: the linear layers are float32. On a CPU nothing is touched.
    """
    before: list[tuple[Any, str, object]] = []
    try:
        if not on_cpu(device):
            for place, name, exact in _switches():
                before.append((place, name, getattr(place, name)))
                setattr(place, name, exact)
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)


def _switches() -> list[tuple[Any, str, object]]:
    """List what allows TF32: where it is set, its name, and the value that forbids it.

    torch 2.9 renamed the switches, and refuses to read the old ones once the new ones were set.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    convolution = getattr(cudnn, "conv", None)
    if hasattr(convolution, "fp32_precision") and hasattr(matmul, "fp32_precision"):
        return [(convolution, "fp32_precision", "ieee"), (matmul, "fp32_precision", "ieee")]
    return [(cudnn, "allow_tf32", False), (matmul, "allow_tf32", False)]
