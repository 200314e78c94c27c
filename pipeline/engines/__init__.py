"""Where shards are made: in this process, in several, or on a Ray cluster.

An engine maps shards and nothing else. To add one, write a class like ``LocalEngine`` around
``work.make_shard`` and give it a row in ``ENGINES``.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from ...artifact import Manifest
from ...errors import MissingAsset
from ..config import Runtime
from ..progress import Reached, Tell, silent
from ..stage import Shard, Stage

# name -> (module, class); the class takes (runtime settings, number of workers or 0, tell)
ENGINES = {"local": (".local", "LocalEngine"), "ray": (".ray", "RayEngine")}


class Engine(Protocol):
    """Makes shards somewhere; lives as long as a run of several stages."""

    def map(self, stage: Stage, shards: Sequence[Shard], reached: Reached) -> Iterator[Manifest]:
        """Make shards in any order; yield their manifests as they are finished.

        When one shard fails, those under way are finished and kept, and the rest is not begun.

        Args:
            reached: told how far a shard is while it is being made, in this process and thread.

        Raises:
            TonicsError: as the stage does, or because workers die.
        """
        ...

    def close(self) -> None:
        """End what was started for it."""
        ...


@contextlib.contextmanager
def open_engine(runtime: Runtime, workers: int = 0, tell: Tell = silent) -> Iterator[Engine]:
    """The engine that ``tonics.toml`` names, for the length of the block.

    Args:
        workers: processes; 0 as ``tonics.toml`` says.
        tell: told in a few words what one is waiting for.

    Raises:
        MissingAsset: its package is not installed. ConfigError: it cannot do what is asked.
    """
    module, name = ENGINES[runtime.engine]
    try:
        kind: Any = getattr(importlib.import_module(module, __package__), name)
    except ModuleNotFoundError as error:
        if error.name != runtime.engine:
            raise
        found = f"the package {runtime.engine} is not installed"
        do = f"pip install 'tonics[{runtime.engine}]'"
        raise MissingAsset(f"engine {runtime.engine!r}", found, do=do) from error
    engine: Engine = kind(runtime, workers or runtime.workers, tell)
    try:
        yield engine
    finally:
        engine.close()
