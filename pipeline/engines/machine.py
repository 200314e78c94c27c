"""What this machine computes with: cores, threads and the device."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...errors import InputError
from ..dataset import Dataset

if TYPE_CHECKING:
    from ..stage import Stage

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def worker_count(wanted: int) -> int:
    """How many processes to use: as asked, or one a core this process may use."""
    return wanted or len(os.sched_getaffinity(0))


def device_of(dataset: Dataset) -> str:
    """Where to compute: as configured, else a GPU when there is one."""
    device = dataset.config.runtime.device
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(stage: Stage) -> None:
    """Make sure that there is the GPU that ``tonics.toml`` asks for, where this process needs it.

    Raises:
        InputError: there is none, or not so many.
    """
    runtime = stage.dataset.config.runtime
    kind, _, number = runtime.device.partition(":")
    if kind != "cuda" or not stage.uses_device or (runtime.engine == "ray" and stage.parallel):
        return  # Ray counts the GPUs of its machines
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= there:
        found = f"{runtime.device!r} for {stage.key}, and torch finds {there or 'no'} GPUs here"
        raise InputError("runtime.device", found, expected="'auto', 'cpu' or a GPU that is there")


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Compute with so many torch threads inside the block; with one, sums add up in one order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Start processes inside the block with one compute thread: libraries look only once."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
