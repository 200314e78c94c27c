"""Bringing stages up to date for somebody who watches: checks first, then a line a stage."""

from __future__ import annotations

import shutil
from typing import Any

from ..errors import InputError, StaleInput, WouldDiscard
from ..train.plan import Plan
from .dataset import Dataset
from .engines import Engine, open_engine
from .engines.machine import check_device
from .forecast import Forecast, Hands, forecast
from .graph import with_inputs
from .part import Part
from .plans.quality.report import LEGEND, format_quality
from .progress import Progress
from .report import Report
from .results import results_table
from .runner import bring_up_to_date, finished_cost, make_part
from .stage import Stage
from .staleness import refusal, status_of
from .tables import format_json, format_table, size_text, time_text


def require_inputs(stages: dict[str, Stage], chosen: list[Stage], own: list[str]) -> None:
    """Refuse to run one stage on inputs that are out of date, however far back."""
    wanted = {s.key for s in chosen} | set(own)
    for stage in with_inputs(stages, chosen):
        if stage.key not in wanted and (why := status_of(stage).why):
            first = chosen[0].key
            do = f"'tonics run {first}' brings its inputs up to date first"
            raise StaleInput(first, f"its input {stage.key} is out of date ({why})", do=do)


def bring_up(
    stages: list[Stage],
    *,
    rebuild: list[str],
    asked: list[str],
    workers: int,
    as_json: bool,
    quiet: bool,
    tables: bool = False,
) -> None:
    """Bring stages up to date in order; a finished run whose inputs changed is kept, and said.

    Args:
        tables: show the quality of plans, too, finished ones as well.
    """
    _check_before_work(stages, rebuild)
    if not stages:
        return
    tell = Progress(quiet=quiet or as_json).tell
    plans = [stage for stage in stages if stage.kind == "plan"] if tables else []
    with open_engine(stages[0].dataset.config.runtime, workers, tell) as engine:
        reports = _bring_up(
            stages,
            engine,
            rebuild=rebuild,
            asked=asked,
            as_json=as_json,
            quiet=quiet,
            noted_later=plans,
        )
    if as_json:
        print(format_json(_with_quality(reports, plans)))
    elif plans:
        print("\n" + _plans_text(reports, plans))


def _plans_text(reports: list[Report], plans: list[Stage]) -> str:
    """What plans came to, as tables, each with the notes of its stage."""
    parts = []
    for stage in plans:
        parts.append(format_quality(stage.name, Plan(stage.folder)))
        notes = [note for report in reports if report.key == stage.key for note in report.notes]
        parts += ["\n".join(f"note: {note}" for note in notes)] if notes else []
    return "\n\n".join([*parts, LEGEND])


def _with_quality(reports: list[Report], plans: list[Stage]) -> list[dict[str, Any]]:
    """Reports for programs, with the ``quality.json`` of plans."""
    folders = {stage.key: stage.folder for stage in plans}
    return [
        report.json()
        | ({"quality": Plan(folders[report.key]).quality} if report.key in folders else {})
        for report in reports
    ]


def make_parts(stages: list[Stage], part: str, *, workers: int, as_json: bool, quiet: bool) -> None:
    """Make every so many shards of stages (``3/16``), as one machine of several does.

    Raises:
        InputError: a stage is not made by shards.
    """
    chosen = Part.parse(part)
    _check_before_work(stages, [])
    for stage in stages:
        if not stage.parallel:
            raise InputError("--shards", f"{stage.key} is made in one piece", do="leave it out")
    reports = []
    progress = Progress(quiet=quiet or as_json)
    for stage in stages:
        with open_engine(stage.dataset.config.runtime, workers, progress.tell) as engine:
            reports.append(make_part(stage, chosen, engine, progress))
        if not as_json:
            print(reports[-1].line(), flush=True)
    if as_json:
        print(format_json([report.json() for report in reports]))


def _bring_up(
    stages: list[Stage],
    engine: Engine,
    *,
    rebuild: list[str],
    asked: list[str],
    as_json: bool,
    quiet: bool,
    noted_later: list[Stage],
) -> list[Report]:
    reports, kept = [], []
    for stage in stages:
        anew = stage.key in rebuild
        if anew and not as_json:
            print(_price_of(stage))
        try:
            report = bring_up_to_date(
                stage,
                rebuild=anew,
                progress=Progress(quiet=quiet or as_json),
                engine=engine,
            )
        except WouldDiscard as refused:
            if stage.kind != "train" or {stage.kind, stage.key} & set(asked):
                raise
            kept.append(f"{stage.key:<16} kept as it is: {refused.found}")
            continue
        reports.append(report)
        if not as_json:
            print(report.line(notes=stage not in noted_later), flush=True)
        if stage.kind == "ingest":
            _check_before_work(stages, rebuild)  # now that the pairs are known
    if as_json:
        return reports
    if scores := _scores(stages):
        print("\n" + scores)
    if kept:
        print("\n" + "\n".join(kept) + "\n'tonics run --rebuild train' trains anew")
    return reports


def _check_before_work(stages: list[Stage], rebuild: list[str]) -> None:
    """Find out what cannot work, or would be refused, before any stage begins.

    Raises:
        ConfigError, InputError: settings that cannot work. WouldDiscard: as the stage itself would.
    """
    for stage in stages:
        check_device(stage)
        stage.check()
    guarded = [s for s in stages if s.renewable is not None and s.kind != "train"]
    guarded = [s for s in guarded if s.key not in rebuild]
    inputs = {key for stage in guarded for key in stage.inputs}
    stale = {s.key for s in stages if s.key in inputs and status_of(s).why}
    for stage in guarded:
        if stale & set(stage.inputs):
            continue  # what it will be refused for, if anything, is known once they are made
        if refused := refusal(stage, status_of(stage)):
            raise refused


def _price_of(stage: Stage) -> str:
    shards, cpu_s = finished_cost(stage)
    return f"{stage.key}: discards {shards} finished shards ({cpu_s:,.1f} CPU-s of work)"


def _scores(stages: list[Stage]) -> str:
    """A table of the runs among the stages that have been evaluated."""
    names = [s.name for s in stages if s.kind == "eval"]
    return results_table(stages[0].dataset, names) if names else ""


def print_forecast(
    dataset: Dataset, stages: list[Stage], rebuild: list[str], as_json: bool, workers: int = 0
) -> None:
    """Print what would run, why, what it will cost, and whether there is room for it."""
    found = forecast(dataset, stages, rebuild, workers)
    if as_json:
        print(format_json([f.json() for f in found]))
        return
    if not found:
        print("everything is up to date")
        return
    gpu = any(f.gpu_s is not None or f.cpu_s is None for f in found)
    columns = ["stage", "rows", "CPU time", *(["GPU time"] if gpu else []), "disk"]
    rows = [
        [
            *(f.key, f.rows, _time(f.cpu_s)),
            *([_time(f.gpu_s) if f.gpu_s or f.cpu_s is None else ""] if gpu else []),
            *(size_text(f.bytes), f.measured, f.why),
        ]
        for f in found
    ]
    print(format_table([*columns, "measured", "why"], rows))
    print("\n" + "\n".join(forecast_notes(dataset, found, Hands.of(dataset, workers))))


def forecast_notes(dataset: Dataset, found: list[Forecast], hands: Hands) -> list[str]:
    """What it comes to in all, what is not known, and whether there is room for it on the disk."""
    cpu_s = sum(f.cpu_s or 0 for f in found)
    gpu_s = sum(f.gpu_s or 0 for f in found)
    total = f"{time_text(cpu_s)} of CPU time"
    if gpu_s:
        total += f" and {time_text(gpu_s)} of GPU time"
    if all(f.wall_s is not None for f in found):
        gpus = f" and {hands.gpus} GPUs" if gpu_s else ""
        shortest = time_text(sum(f.wall_s or 0 for f in found))
        total += f" (at best {shortest} with {hands.cores} workers{gpus})"
    size = sum(f.bytes for f in found)
    notes = [
        f"in all about {total} and {size_text(size)} on disk; a rate that is not measured is a "
        "general figure"
    ]
    if unknown := [f.key for f in found if f.cpu_s is None]:
        listed = ", ".join(unknown)
        notes.append(f"not counted: {listed}, on a GPU; its first finished shard will tell")
    if hands.cores is None:
        notes.append("general figures are for CPUs; how large the cluster is is not asked")
    if (free := shutil.disk_usage(dataset.root).free) < size:
        notes.append(f"NOT ENOUGH ROOM: {size_text(free)} are free where {dataset.root} lies")
    return notes


def _time(seconds: float | None) -> str:
    return "?" if seconds is None else time_text(seconds)
