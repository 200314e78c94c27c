"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

Advance = Callable[[int, int], None]  # (rows done now, rows rejected now)
_PLAIN_EVERY_S = 15.0


class Progress:
    """Shows how far a task is, on standard error so that results can be piped."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet

    @contextlib.contextmanager
    def task(self, name: str, total: int) -> Iterator[Advance]:
        """Follow one task of ``total`` rows; yields the function that advances it."""
        if self.quiet or total == 0:
            yield lambda rows, rejected: None
        elif sys.stderr.isatty():
            with _bar(name, total) as advance:
                yield advance
        else:
            yield _plain(name, total)


@contextlib.contextmanager
def _bar(name: str, total: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = [
        TextColumn("{task.description:<16}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[rejected]}"),
    ]
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=total, rate="", rejected="")
        started, sums = time.monotonic(), [0, 0]

        def advance(rows: int, rejected: int) -> None:
            sums[0] += rows
            sums[1] += rejected
            rate = f"{sums[0] / (time.monotonic() - started):,.0f}/s"
            note = f"{sums[1]:,} rejected" if sums[1] else ""
            bar.update(task, advance=rows, rate=rate, rejected=note)

        yield advance


def _plain(name: str, total: int) -> Advance:
    started = time.monotonic()
    state = {"done": 0, "rejected": 0, "said": started}

    def advance(rows: int, rejected: int) -> None:
        state["done"] += rows
        state["rejected"] += rejected
        now = time.monotonic()
        if now - state["said"] < _PLAIN_EVERY_S or state["done"] >= total:
            return
        state["said"] = now
        rate = state["done"] / (now - started)
        left = (total - state["done"]) / rate if rate else 0
        print(
            f"{name}: {state['done']:,.0f} of {total:,} ({rate:,.0f}/s, {left:,.0f} s left, "
            f"{state['rejected']:,.0f} rejected)",
            file=sys.stderr,
            flush=True,
        )

    return advance
