"""Progress of long work: a bar on a terminal, plain lines ever more seldom elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .tables import time_text

Advance = Callable[[int, int], None]  # (rows done now, rows rejected now)
Reached = Callable[[str, int, int], None]  # (shard, its rows done so far, rejected so far)
Tell = Callable[[str], None]

_FIRST_LINE_S, _LONGEST_GAP_S = 5.0, 300.0


def silent(text: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How far a task is after so many seconds, as people read it."""

    done: int
    total: int
    rejected: int
    elapsed_s: float
    unit: str

    @property
    def rate(self) -> str:
        """Rows in the unit of time that makes the number readable.

        >>> [Pace(done=d, total=9, rejected=0, elapsed_s=60, unit="images").rate for d in (1, 90)]
        ['1.0 images/min', '1.5 images/s']
        """
        per_s = self.done / self.elapsed_s if self.elapsed_s else 0.0
        for factor, name in ((1, "s"), (60, "min"), (3600, "h")):
            if per_s * factor >= 1 or name == "h":
                number = per_s * factor
                return f"{number:,.{0 if number >= 10 else 1}f} {self.unit}/{name}"
        raise AssertionError("unreachable")

    @property
    def left(self) -> str:
        """How long the rest takes at this pace."""
        if not self.done:
            return ""
        return f"{time_text((self.total - self.done) * self.elapsed_s / self.done)} left"

    @property
    def left_out(self) -> str:
        """How many rows were rejected."""
        return f"{self.rejected:,} rejected"


Show = Callable[[Pace], None]


class Meter:
    """What is done of a task, shard by shard.

    What was said of a shard last is what counts. So a shard that is made a second time, or a
    message that was lost, leaves no error in the sums; and a finished shard stays finished.
    """

    def __init__(self, total: int, unit: str, show: Show) -> None:
        self.total, self.unit, self._show = total, unit, show
        self.done = self.rejected = 0
        self._shards: dict[str, tuple[int, int]] = {}
        self._finished: set[str] = set()
        self._started = time.monotonic()

    def reached(self, shard: str, rows: int, rejected: int) -> None:
        """Note how far a shard is that is being made."""
        if not self._shards:
            self._started = time.monotonic()  # workers are ready: now it begins
        if shard not in self._finished:
            before = self._shards.get(shard, (0, 0))
            self._shards[shard] = (rows, rejected)
            self.done += rows - before[0]
            self.rejected += rejected - before[1]
            self._show(self.pace)

    def finished(self, shard: str, rows: int, rejected: int) -> None:
        """Note that a shard is finished, with its exact numbers."""
        self.reached(shard, rows, rejected)
        self._finished.add(shard)

    @property
    def pace(self) -> Pace:
        """How far it is now."""
        return Pace(
            done=self.done,
            total=self.total,
            rejected=self.rejected,
            elapsed_s=time.monotonic() - self._started,
            unit=self.unit,
        )


class Progress:
    """Shows how far a task is, on standard error so that results can be piped."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet

    def tell(self, text: str) -> None:
        """Say what one is waiting for."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def task(self, name: str, total: int, unit: str = "rows") -> Iterator[Meter]:
        """Follow one task of ``total`` rows; yields what is told about it."""
        if self.quiet or total == 0:
            yield Meter(total, unit, lambda pace: None)
        elif sys.stderr.isatty():
            with _bar(name, total) as show:
                yield Meter(total, unit, show)
        else:
            yield Meter(total, unit, _plain(name))


@contextlib.contextmanager
def _bar(name: str, total: int) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as RichProgress

    columns = [
        TextColumn("{task.description:<16}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}", markup=False),
    ]
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=total, pace="")

        def show(pace: Pace) -> None:
            parts = [pace.rate, pace.left, pace.left_out if pace.rejected else ""]
            text = ", ".join(filter(None, parts)) if pace.done else ""
            bar.update(task, completed=pace.done, pace=text)

        yield show


def _plain(name: str) -> Show:
    """A line soon, then one after twice the time, and so on up to one in five minutes."""
    next_s = _FIRST_LINE_S

    def show(pace: Pace) -> None:
        nonlocal next_s
        if pace.elapsed_s < next_s or not 0 < pace.done < pace.total:
            return
        next_s = min(2 * pace.elapsed_s, pace.elapsed_s + _LONGEST_GAP_S)
        line = f"{name}: {pace.done:,} of {pace.total:,} {pace.unit}"
        print(f"{line} ({pace.rate}, {pace.left}, {pace.left_out})", file=sys.stderr, flush=True)

    return show
