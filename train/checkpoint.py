"""Checkpoints: folders of safetensors and JSON, written whole or not at all, never pickle.

``checkpoints/step-00000200/`` holds ``state.safetensors`` (weights, optimizer state, running sums)
and ``checkpoint.json`` (the step, the identity of the run it belongs to, and what an adaptive
curriculum has decided). Random numbers need no state: the trainer seeds every step from the run's
seed, the step's number and the rank.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..artifact import atomic_folder, write_json
from ..errors import FormatError, PlanMismatch

if TYPE_CHECKING:
    import torch

VERSION = 2
KEPT = 2
_NAME = re.compile(r"step-(\d{8,})")
_STATE, _HEADER = "state.safetensors", "checkpoint.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """A run after ``step`` batches.

    Attributes:
        step: batches already trained on; the next one is batch ``step`` of the plan.
        identity: what the run was made from, by name.
        tensors: everything that changes while training, by name.
        state: what else does, as JSON.
    """

    step: int
    identity: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]
    state: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Write ``folder/step-NNNNNNNN`` and delete all but the newest two."""
        path = folder / f"step-{self.step:08d}"
        header = {
            "version": VERSION,
            "step": self.step,
            "identity": dict(self.identity),
            "state": dict(self.state),
        }
        with atomic_folder(path) as tmp:
            save_tensors(self.tensors, tmp / _STATE)
            write_json(tmp / _HEADER, header)
        for old in list_checkpoints(folder)[:-KEPT]:
            shutil.rmtree(old)
        return path

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Read a checkpoint.

        Raises:
            FormatError: it is damaged, or of a version that this release cannot read.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        do = f"delete {path.name}: the run goes on from the one before it"
        try:
            header = json.loads((path / _HEADER).read_text(encoding="utf-8"))
            if header["version"] != VERSION:
                found, do_this = (
                    f"version {header['version']!r}",
                    "delete this run to start it over",
                )
                raise FormatError(path, found, expected=str(VERSION), do=do_this)
            tensors = load_file(path / _STATE)
            kept = {key: header[key] for key in ("step", "identity", "state")}
            return cls(**kept, tensors=tensors)
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise FormatError(path, f"not a whole checkpoint ({error})", do=do) from error

    def require(self, identity: Mapping[str, Any], where: Path) -> None:
        """Refuse to go on with anything but the run this was made by.

        Raises:
            PlanMismatch: the line names what differs.
        """
        differing = differences(self.identity, identity)
        if differing:
            found = f"step {self.step} was trained with {'; '.join(differing)}"
            do = "train under another run name, or delete this run to start it over"
            raise PlanMismatch(where, found, do=do)


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say key by key how two identities differ.

    >>> differences({"lr": 1, "plan_id": "a"}, {"lr": 2, "plan_id": "a"})
    ['lr 1, now 2']
    """
    keys = [*then, *(k for k in now if k not in then)]
    return [f"{k} {then.get(k)!r}, now {now.get(k)!r}" for k in keys if then.get(k) != now.get(k)]


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write named tensors as safetensors.

    Raises:
        OSError: as Python would have raised it; safetensors wraps the system's refusals.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, path)
    except SafetensorError as error:
        if number := re.search(r"os error (\d+)", str(error)):
            code = int(number[1])
            raise OSError(code, os.strerror(code), str(path)) from error
        raise


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    return [path for _, path in sorted(_by_step(folder).items())]


def checkpointed(folder: Path) -> list[int]:
    """After which steps a run has complete checkpoints, ascending."""
    return sorted(_by_step(folder))


def _by_step(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        return {}
    return {int(m[1]): p for p in folder.iterdir() if (m := _NAME.fullmatch(p.name))}


def optimizer_tensors(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    """Name the optimizer's state after the parameters: ``adamw.image.mlp.norm.bias.exp_avg``."""
    names: dict[torch.Tensor, str] = {p: name for name, p in model.named_parameters()}
    return {
        f"adamw.{names[parameter]}.{key}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def load_optimizer(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Undo ``optimizer_tensors``."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    order = [names[p] for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for full, tensor in tensors.items():
        if full.startswith("adamw."):
            name, key = full.removeprefix("adamw.").rsplit(".", 1)
            state.setdefault(order.index(name), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
