"""Bringing stages up to date for somebody who watches: checks first, then a line a stage."""

from __future__ import annotations

from ..errors import StaleInput, WouldDiscard
from .dataset import Dataset
from .engines import Engine, open_engine
from .engines.machine import worker_count
from .forecast import forecast
from .graph import with_inputs
from .progress import Progress
from .results import results_table
from .runner import bring_up_to_date, finished_cost
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
) -> None:
    """Bring stages up to date in order; a finished run whose inputs changed is kept, and said."""
    _check_before_work(stages, rebuild)
    if not stages:
        return
    with open_engine(stages[0].dataset.config.runtime, workers) as engine:
        _bring_up(stages, engine, rebuild=rebuild, asked=asked, as_json=as_json, quiet=quiet)


def _bring_up(
    stages: list[Stage],
    engine: Engine,
    *,
    rebuild: list[str],
    asked: list[str],
    as_json: bool,
    quiet: bool,
) -> None:
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
            print(report.line(), flush=True)
        if stage.kind == "ingest":
            _check_before_work(stages, rebuild)  # now that the pairs are known
    if as_json:
        print(format_json([report.json() for report in reports]))
        return
    if scores := _scores(stages):
        print("\n" + scores)
    if kept:
        print("\n" + "\n".join(kept) + "\n'tonics run --rebuild train' trains anew")


def _check_before_work(stages: list[Stage], rebuild: list[str]) -> None:
    """Find out what cannot work, or would be refused, before any stage begins.

    Raises:
        ConfigError, InputError: settings that cannot work. WouldDiscard: as the stage itself would.
    """
    for stage in stages:
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
    dataset: Dataset, stages: list[Stage], rebuild: list[str], as_json: bool
) -> None:
    """Print what would run, why, and what it will cost."""
    found = forecast(dataset, stages, rebuild)
    if as_json:
        print(format_json([f.json() for f in found]))
        return
    if not found:
        print("everything is up to date")
        return
    rows = [
        [f.key, f.rows, time_text(f.cpu_s), size_text(f.bytes), f.measured, f.why] for f in found
    ]
    print(format_table(["stage", "rows", "CPU time", "disk", "measured", "why"], rows))
    workers = worker_count(dataset.config.runtime.workers)
    total = sum(f.cpu_s for f in found)
    print(
        f"\nin all about {time_text(total)} of CPU time (at best {time_text(total / workers)} with "
        f"{workers} workers) and {size_text(sum(f.bytes for f in found))} on disk; a rate that is "
        "not measured is a general figure"
    )
