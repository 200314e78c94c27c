"""``tonics train`` under torchrun: the first process runs the command, the others train along.

    torchrun --nproc-per-node 2 --no-python tonics -C my-dataset train mixed

The first process alone holds the locks, decides what is stale, writes files and reports. Whenever
it begins a run it names it to the others, which open the same files and train their rows of every
batch; an empty name ends them. Where the first one fails it leaves without a word: what the others
wait for then fails, too, and torchrun ends them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..errors import TonicsError
from .engines.machine import device_of
from .stage import Stage

if TYPE_CHECKING:
    from ..train.ranks import Ranks


@contextlib.contextmanager
def together(stages: Sequence[Stage]) -> Iterator[bool]:
    """Tell whether this process runs the command; one that does not has trained along by then."""
    if not stages or "WORLD_SIZE" not in os.environ:
        yield True
        return
    from ..train.ranks import joined

    with joined(device_of(stages[0].dataset)) as ranks:
        if not ranks.leads:
            _follow(stages, ranks)
        yield ranks.leads
        if ranks.leads:
            ranks.share("")


def _follow(stages: Sequence[Stage], ranks: Ranks) -> None:
    from .stages.train import TrainStage

    runs = {stage.name: stage for stage in stages if isinstance(stage, TrainStage)}
    while name := _next_run(ranks):
        try:
            runs[name].train(ranks)
        except TonicsError as error:  # the first process has met the same, and says so
            raise SystemExit(error.exit_code) from error


def _next_run(ranks: Ranks) -> str:
    try:
        name: str = ranks.share(None)
    except RuntimeError as error:  # the first process has left
        raise SystemExit(1) from error
    return name
