"""How the benchmarks measure: CPU-seconds, contenders in turn, the median of the rounds' ratios.

CPU-seconds of this process (all its threads) are what counts: on a machine that does other work
too, wall time says how busy it was. Contenders run in turn, round after round, so that a busy
minute falls on all of them, and a ratio is taken within each round.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

from tonics.pipeline.tables import format_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a call took, in seconds."""

    cpu_s: float
    wall_s: float


def timed(call: Callable[[], object]) -> Cost:
    """Run a call once; garbage of earlier ones is collected beforehand."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return Cost(cpu_s=time.process_time() - cpu, wall_s=time.perf_counter() - wall)


def compare(
    contenders: Mapping[str, Callable[[], object]], rounds: int, warm_up: bool = True
) -> dict[str, list[Cost]]:
    """Run every contender once a round, in turn.

    Args:
        warm_up: begin with a round that is not counted.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in contenders}
    for number in range(rounds + warm_up):
        for name, call in contenders.items():
            cost = timed(call)
            if number >= warm_up:
                costs[name].append(cost)
    return costs


def median_cpu(costs: Sequence[Cost]) -> float:
    """The median of the CPU-seconds."""
    return statistics.median(cost.cpu_s for cost in costs)


def median_wall(costs: Sequence[Cost]) -> float:
    """The median of the wall seconds."""
    return statistics.median(cost.wall_s for cost in costs)


def ratio(
    costs: Sequence[Cost], base: Sequence[Cost], of: Literal["cpu_s", "wall_s"] = "cpu_s"
) -> str:
    """Seconds over those of ``base``, round by round: the median, and the lowest and highest.

    >>> half, one = Cost(cpu_s=0.5, wall_s=1), Cost(cpu_s=1, wall_s=1)
    >>> ratio([one, one, half], [half, half, half])
    '2.00 (1.00-2.00)'
    """
    found = sorted(getattr(a, of) / getattr(b, of) for a, b in zip(costs, base, strict=True))
    return f"{statistics.median(found):.2f} ({found[0]:.2f}-{found[-1]:.2f})"


def in_fresh_process(call: Callable[..., Any], *args: Any, **env: str) -> Any:
    """Call a function of a module in a process of its own: no memory or threads left by others.

    Args:
        env: environment variables of that process.
    """
    before = {name: os.environ.get(name) for name in env}
    os.environ.update(env)
    try:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(call, *args).result()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def peak_bytes() -> int:
    """The most memory this process has had resident so far, mapped files included."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            line = next(line for line in file if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    except OSError:  # no Linux
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def print_heading(doc: str | None, *packages: str) -> None:
    """Print the first line of a program's docstring, and on what it runs."""
    print((doc or "").partition("\n")[0])
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"{versions}; load average {os.getloadavg()[0]:.1f} at the start\n"
    )


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows under their column names."""
    print(format_table(columns, rows) + "\n", flush=True)


def print_questions(
    opened: Mapping[str, Sequence[Cost]], anew: Mapping[str, Sequence[Cost]], limit_ms: float
) -> None:
    """Print what questions took with the file open and with it opened anew, beside a limit."""
    rows = [
        [
            question,
            round(1000 * median_wall(costs), 1),
            round(1000 * median_wall(costs) / limit_ms, 2),
            round(1000 * median_cpu(costs), 1),
            round(1000 * median_wall(anew[question]), 1),
        ]
        for question, costs in opened.items()
    ]
    rounds, slowest = len(next(iter(opened.values()))), max(row[2] for row in rows)
    print(f"questions, medians of {rounds}; the slowest took {slowest} of {limit_ms:g} ms")
    over = f"wall over {limit_ms:g} ms"
    print_table(["question", "wall ms", over, "CPU-ms", "wall ms, file opened anew"], rows)
