"""The processes that train one model together: who this one is, and what they tell each other.

``torchrun`` starts a process a GPU and says in the environment who is who; one process alone has
nobody to talk to, and everything here then costs nothing.

    with joined("cuda") as ranks:
        everyone = ranks.gather(rows)                    # with gradient
        loss = ranks.reduce(loss) / ranks.world
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from ..errors import TonicsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process among those that train one model.

    Attributes:
        rank: its number. world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes files and reports."""
        return self.rank == 0

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """Join the rows (b, ...) of all ranks, in rank order: (world * b, ...), with gradient.

        A row's gradient is the sum of what all ranks have for it. Averaged over ranks, as
        DistributedDataParallel does, parameters then get the gradient of the mean of the losses.
        """
        if self.world == 1:
            return rows
        gathered: torch.Tensor = _Gather.apply(rows, self.rank, self.world)
        return gathered

    def reduce(self, numbers: torch.Tensor, how: str = "sum") -> torch.Tensor:
        """Combine a tensor of all ranks: ``sum``, ``min`` or ``max``; a new tensor, no gradient."""
        numbers = numbers.detach().clone()
        if self.world > 1:
            kinds = {"sum": dist.ReduceOp.SUM, "min": dist.ReduceOp.MIN, "max": dist.ReduceOp.MAX}
            dist.all_reduce(numbers, kinds[how])
        return numbers

    def share(self, value: Any) -> Any:
        """Give everyone the first rank's value, which must be picklable."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def agree(self, where: object, value: Any) -> None:
        """Make sure that all ranks have the same value.

        Raises:
            TonicsError: on every rank, where one has another.
        """
        if self.world == 1:
            return
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        for rank, other in enumerate(values):
            if other != values[0]:
                found = f"rank {rank} has {other!r} where rank 0 has {values[0]!r}"
                do = "give all processes the same settings, and a folder that all of them see"
                raise TonicsError(where, found, expected="the same on all ranks", do=do)


ALONE = Ranks()


class _Gather(torch.autograd.Function):
    """All rows forward; backward each rank's own rows of the sum of everybody's gradients."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, rank: int, world: int) -> torch.Tensor:
        ctx.rank, ctx.count = rank, len(rows)
        everyone = rows.new_empty((world * len(rows), *rows.shape[1:]))
        dist.all_gather(list(everyone.chunk(world)), rows.contiguous())
        return everyone

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.rank * ctx.count : (ctx.rank + 1) * ctx.count], None, None


def launched() -> bool:
    """Whether this process is one of several that torchrun, or a launcher like it, has started."""
    known = all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"))
    return known and int(os.environ["WORLD_SIZE"]) > 1


@contextlib.contextmanager
def joined(device: str = "cpu") -> Iterator[Ranks]:
    """Join the processes started beside this one, for as long as the block lasts.

    A group that is there already is used and left as it is. So is the new one where the block
    fails: a process that failed alone must not wait for the others.

    Args:
        device: where will be computed: ``cpu`` talks through gloo, ``cuda`` through nccl.
    """
    if dist.is_available() and dist.is_initialized():
        yield Ranks(rank=dist.get_rank(), world=dist.get_world_size())
    elif not launched():
        yield ALONE
    else:
        cuda = torch.device(device).type == "cuda"
        if cuda:
            torch.cuda.set_device(own_device(device))
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
        yield Ranks(rank=dist.get_rank(), world=dist.get_world_size())
        dist.destroy_process_group()


def own_device(device: str) -> str:
    """The GPU of this process among those of its machine; ``device`` itself for a lone process."""
    if launched() and torch.device(device).type == "cuda":
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return device
