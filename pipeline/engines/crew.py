"""Ray actors at work for one stage: starting, making shards, saying how far they are, dying."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from ... import __version__
from ...artifact import Manifest
from ...errors import InputError, TonicsError
from ..config import CONFIG_NAME
from ..lock import Presence
from ..progress import Reached
from ..stage import Shard, Stage
from .work import make_shard

_DEATHS = 3  # of actors: so often at one shard, or in a row before any could begin, is no accident
_LOOK_EVERY_S = 0.5
_GONE_S = 10.0  # how long a killed actor may take to be gone
_ROOM_S = 60.0  # how long one waits for Ray to start a worker before saying so

log = logging.getLogger(__name__)


class ShardMaker:
    """The actor: a stage, with caches of its own, on some machine."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self._reached = stage, ("", 0, 0)

    def hello(self, driver: Presence, version: str) -> None:
        """Make sure that this machine sees the driver's dataset folder, and has its tonics.

        Raises:
            InputError: it sees none, or another one, or has another version.
        """
        root, node = self.stage.dataset.root, ray.util.get_node_ip_address()
        if version != __version__:
            found = f"tonics {__version__} on machine {node}, and {version} where the run began"
            raise InputError("engine 'ray'", found, do="install the same on every machine")
        do = "put it on a file system that all machines mount at the same place"
        if not (root / CONFIG_NAME).is_file():
            raise InputError(root, f"the folder is not there on machine {node}", do=do)
        if not driver.seen_in(self.stage.dataset):
            raise InputError(root, f"machine {node} sees another folder of that name", do=do)

    def make(self, shard: Shard) -> Manifest:
        """Make one shard."""
        return make_shard(self.stage, shard, self._reach)

    def reached(self) -> tuple[str, int, int]:
        """How far the shard under way is."""
        return self._reached

    def _reach(self, shard: str, rows: int, rejected: int) -> None:
        self._reached = (shard, rows, rejected)


Outcome = Manifest | BaseException | None  # None: a worker is ready for its first shard


class Crew:
    """The actors of one stage: who is starting, who is making which shard."""

    def __init__(
        self, stage: Stage, options: dict[str, Any], driver: Presence, reached: Reached
    ) -> None:
        self.stage, self.driver, self.reached = stage, driver, reached
        self.maker: Any = ray.remote(**options)(ShardMaker)
        self.sent = ray.put(stage)
        self.starting: dict[Any, Any] = {}  # answer to come -> worker
        self.making: dict[Any, tuple[Any, Shard]] = {}
        self.asked: dict[Any, Any] = {}  # answer how far it is -> worker
        self.idle: list[Any] = []
        self.known: set[Any] = set()  # workers that were ready once
        self.workers: list[Any] = []
        self.deaths: Counter[str] = Counter()
        self.failed_starts = 0
        self._looked, self._hired, self.mentioned = 0.0, time.monotonic(), False

    def hire(self, count: int) -> None:
        """Start so many workers."""
        for _ in range(count):
            worker = self.maker.remote(self.sent)
            self.workers.append(worker)
            self._greet(worker)

    def replace(self, shard: Shard, error: RayError) -> None:
        """Have another worker get ready in place of one that died at a shard.

        One that has been idle may have died meanwhile: it is greeted first, so that its death is
        not taken for the shard's doing.

        Raises:
            TonicsError: the shard has killed too many.
        """
        self.deaths[shard.name] += 1
        if self.deaths[shard.name] >= _DEATHS:
            found = f"its worker died {_DEATHS} times: {why(error)}"
            do = "often it is memory: fewer workers or smaller shards need less; see Ray's logs"
            raise TonicsError(f"{self.stage.key}, shard {shard.name}", found, do=do)
        if self.idle:
            self._greet(self.idle.pop())
        else:
            self.hire(1)

    def _greet(self, worker: Any) -> None:
        self.starting[worker.hello.remote(self.driver, __version__)] = worker

    def give(self, worker: Any, shard: Shard) -> None:
        """Have a worker make a shard."""
        self.making[worker.make.remote(shard)] = (worker, shard)

    def wait(self) -> Iterator[tuple[Any, Shard | None, Outcome]]:
        """Yield what happened, if anything did within a moment: worker, its shard, the outcome."""
        answers = [*self.starting, *self.making]
        done, _ = ray.wait(answers, num_returns=1, timeout=_LOOK_EVERY_S)
        self._look()
        self._mention_waiting()
        for answer in done:
            starting = answer in self.starting
            worker, shard = (
                (self.starting.pop(answer), None) if starting else self.making.pop(answer)
            )
            try:
                outcome = ray.get(answer)
                self.failed_starts = 0
                self.known.add(worker)
            except RayTaskError as error:
                outcome = cause_of(error, self.stage.key)
            except RayError as error:
                self._bury(worker)
                if starting:
                    self._start_another(error, count=worker not in self.known)
                    continue
                outcome = error
            yield worker, shard, outcome

    def dismiss(self) -> None:
        """End all workers; whoever was at work is waited for until it is gone.

        Without a word where Ray itself is gone: what happened before is what counts.
        """
        for worker in self.workers:
            with contextlib.suppress(RayError):
                ray.kill(worker)
        with contextlib.suppress(RayError):
            if self.making:
                ray.wait([*self.making], num_returns=len(self.making), timeout=_GONE_S)

    def _bury(self, worker: Any) -> None:
        """Make sure that a worker which seems dead is."""
        self.workers.remove(worker)
        with contextlib.suppress(RayError):
            ray.kill(worker)

    def _start_another(self, error: RayError, *, count: bool) -> None:
        self.failed_starts += count
        if self.failed_starts >= _DEATHS:
            do = "is the same tonics installed on every machine?"
            raise TonicsError("engine 'ray'", f"workers do not start: {why(error)}", do=do)
        self.hire(1)

    def _mention_waiting(self) -> None:
        """Say once why nothing happens, where Ray has no room for a worker."""
        if not self.mentioned and not self.making and time.monotonic() - self._hired > _ROOM_S:
            log.warning("%s: Ray has no room for a worker yet; see 'ray status'", self.stage.key)
            self.mentioned = True

    def _look(self) -> None:
        """Ask whoever is at work how far it is, and tell what the answers are."""
        if time.monotonic() - self._looked < _LOOK_EVERY_S:
            return
        self._looked = time.monotonic()
        if self.asked:
            answers, _ = ray.wait([*self.asked], num_returns=len(self.asked), timeout=0)
            for answer in answers:
                self._hear(answer, self.asked.pop(answer))
        silent = set(self.asked.values())
        for worker, _shard in self.making.values():
            if worker not in silent:
                self.asked[worker.reached.remote()] = worker

    def _hear(self, answer: Any, worker: Any) -> None:
        with contextlib.suppress(RayError):  # that it died is dealt with where it matters
            name, rows, rejected = ray.get(answer)
            if (worker, name) in [(w, s.name) for w, s in self.making.values()]:
                self.reached(name, rows, rejected)


def cause_of(error: RayTaskError, where: str) -> BaseException:
    """What a stage raised; Ray has only its text where it could not be sent."""
    cause = error.cause
    if isinstance(cause, BaseException) and not isinstance(cause, RayError):
        return cause
    told = [line.strip() for line in str(cause or error).splitlines() if line.strip()]
    return TonicsError(where, f"a worker failed: {told[-1][:300]}")


def why(error: RayError) -> str:
    """Ray's reason without the advice that follows it."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = next((line for line in lines if "dead because" in line or "Error" in line), lines[0])
    return told.partition("Some common causes")[0].strip()[:300]
