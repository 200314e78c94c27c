"""Runs side by side: what two models differ in, and whether that is luck."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from textwrap import fill
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ..dataset import Dataset
from ..tables import format_table
from .evaluations import Evaluation, outdated

if TYPE_CHECKING:
    import pyarrow as pa

    from ...train.evaluation.bootstrap import Difference

_LEGEND = "In percent, rsum of 600. i2t: captions of an image; t2i: the image of a caption"
_CHOICES_LEGEND = (
    "; same object: the right one of candidates that all show, or name, the caption's main object; "
    "any: of as many, whatever they show"
)
_DRAWS_LEGEND = (
    ". Interval: 95 % of the differences when test images are drawn anew, with all their captions; "
    "better: in what share of the draws the second model is; those in which both are alike count "
    "half."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A model: one run, or the runs that a pattern matches, by what its star stands for."""

    pattern: str
    runs: Mapping[str, Evaluation]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two models, the runs of each that were compared (pairs, when both have several), and how.

    Attributes:
        identical: every query went the same way with both.
        redrawn: runs chose among other same-object candidates, so choices are not compared.
    """

    base: str
    other: str
    runs: tuple[tuple[str, ...], tuple[str, ...]]
    left_out: tuple[str, ...]
    identical: bool
    redrawn: bool
    differences: Sequence[Difference]

    def json(self) -> dict[str, Any]:
        """For programs."""
        runs = dict(zip(("base_runs", "other_runs"), map(list, self.runs), strict=True))
        head = {"base": self.base, "other": self.other, **runs, "left_out": list(self.left_out)}
        rows = [asdict(one) for one in self.differences]
        for row in rows:
            row |= {"metric": _called(row["metric"]), "better": row.pop("above")}
        said = {"identical": self.identical, "redrawn": self.redrawn}
        return {**head, **said, "differences": rows}


def find_group(pattern: str, known: Mapping[str, Evaluation]) -> Group:
    """Find the evaluations that a name, or a pattern with one star, stands for.

    Raises:
        InputError: none, or the pattern has several stars.
    """
    head, star, tail = pattern.partition("*")
    if "*" in tail:
        raise InputError("compare", repr(pattern), expected="a name, or a pattern with one '*'")
    matching = [n for n in known if n == pattern or (star and fnmatch.fnmatchcase(n, pattern))]
    if not matching:
        do = "run 'tonics eval' first" if not known else ""
        expected = f"one of {', '.join(known)}" if known else "an evaluated run"
        raise InputError("compare", f"no run {pattern!r}", expected=expected, do=do)
    runs = {n.removeprefix(head).removesuffix(tail) if star else "": known[n] for n in matching}
    return Group(pattern=pattern, runs=runs)


def require_current(dataset: Dataset, groups: Sequence[Group]) -> None:
    """Refuse results of another query set than today's.

    Raises:
        InputError: there are some.
    """
    runs = {one.name: one for group in groups for one in group.runs.values()}
    if old := outdated(dataset, runs.values()):
        found = f"{', '.join(old)}: scores of another query set than today's"
        raise InputError("compare", found, do=f"{old[0]}: {runs[old[0]].again}")


def compare_groups(base: Group, other: Group, *, draws: int, seed: int) -> Comparison:
    """Compare two models; of two patterns, runs are paired by what the stars stand for.

    Raises:
        InputError: no runs can be paired, or they were not asked the same queries.
    """
    from ...train.evaluation.bootstrap import compare

    sides, left_out = _paired(base, other)
    tables = [[one.read_results() for one in side] for side in sides]
    redrawn = len({s for side in sides for one in side if (s := _sets(one))}) > 1
    names = tuple(tuple(one.name for one in side) for side in sides)
    try:
        differences = compare(*tables, choices=not redrawn, draws=draws, seed=seed)
    except InputError as error:
        where = f"{base.pattern} and {other.pattern}"
        raise InputError(where, error.found, expected=error.expected, do=error.do) from error
    return Comparison(
        base=base.pattern,
        other=other.pattern,
        runs=(names[0], names[1]),
        left_out=left_out,
        identical=_identical(*tables),
        redrawn=redrawn,
        differences=differences,
    )


def _identical(base: Sequence[pa.Table], other: Sequence[pa.Table]) -> bool:
    """Whether every query went the same way, in each pair of runs, or in all of them."""
    pairs = zip(base, other, strict=True) if len(base) == len(other) else product(base, other)
    return all(one.equals(another) for one, another in pairs)


def _sets(one: Evaluation) -> str | None:
    """The hash of the same-object sets that a model had; None without choices."""
    choices = one.read_report().get("same_object")
    return choices.get("sets", "unknown") if choices else None


def _paired(base: Group, other: Group) -> tuple[list[list[Evaluation]], tuple[str, ...]]:
    sides = [base.runs, other.runs]
    if min(len(runs) for runs in sides) == 1 and not (set(base.runs) & set(other.runs)):
        return [list(runs.values()) for runs in sides], ()
    common = [key for key in base.runs if key in other.runs]
    if not common:
        found = f"{', '.join(base.runs)} and {', '.join(other.runs)} have nothing in common"
        expected = "runs that differ before or after the '*' only, as random-0 and mixed-0"
        raise InputError(f"{base.pattern} and {other.pattern}", found, expected=expected)
    left_out = [one.name for runs in sides for key, one in runs.items() if key not in common]
    return [[runs[key] for key in common] for runs in sides], tuple(left_out)


def format_comparison(found: Comparison) -> str:
    """A comparison as a table under a line that says what is compared."""
    counts = [f"{len(names)} run{'s' * (len(names) > 1)}" for names in found.runs]
    lines = [f"{found.other} ({counts[1]}) against {found.base} ({counts[0]})"]
    if found.left_out:
        lines.append(f"left out, without a partner: {', '.join(found.left_out)}")
    if found.identical:
        lines.append("their results are the same on every query")
    if found.redrawn:
        lines.append(
            "left out, same-object choices: their candidates were drawn anew between the "
            "evaluations; run 'tonics eval' for all of them again"
        )
    several = max(len(one.runs) for one in found.differences) > 1
    columns = ["metric", found.base, found.other, "difference", "95 % interval", "better"]
    rows = []
    for one in found.differences:
        interval = f"{one.low:+.2f} to {one.high:+.2f}"
        row = [
            _called(one.metric),
            _two(one.base),
            _two(one.other),
            f"{one.difference:+.2f}",
            interval,
        ]
        runs = [" ".join(f"{gap:+.1f}" for gap in one.runs)] if several else []
        rows.append([*row, f"{one.above:.1%}", *runs])
    table = format_table([*columns, *(["each pair of runs"] if several else [])], rows)
    return "\n".join([*lines, "", table])


def legend(found: Sequence[Comparison]) -> str:
    """What is in tables of comparisons."""
    metrics = [one.metric for comparison in found for one in comparison.differences]
    choices = any(metric.startswith("same object") for metric in metrics)
    return fill(_LEGEND + (_CHOICES_LEGEND if choices else "") + _DRAWS_LEGEND, 100)


def _called(metric: str) -> str:
    """What a metric is called beside runs that may be called random themselves.

    >>> _called("random t2i")
    'any t2i'
    """
    return metric.replace("random ", "any ")


def _two(value: float) -> str:
    return f"{value:.2f}"
