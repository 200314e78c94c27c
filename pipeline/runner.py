"""Bringing stages up to date: what is stale and why, making it, resuming, saying what happened."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

from ..artifact import Manifest, Output, drop, remove_leftovers
from .engines import Engine, open_engine
from .engines.local import LocalEngine
from .lock import lock_file, locked
from .part import Part
from .progress import Progress
from .report import Report
from .stage import (
    Shard,
    Stage,
    add_counts,
    by_reason,
    check_rejects,
    manifest_file,
    rejected_file,
    shard_manifests,
    write_rejects,
)
from .staleness import merge_identity, refusal, status_of


def bring_up_to_date(
    stage: Stage,
    *,
    workers: int = 0,
    rebuild: bool = False,
    progress: Progress | None = None,
    engine: Engine | None = None,
) -> Report:
    """Make what is stale of one stage (or all of it, to rebuild), merge it, and record it.

    Args:
        engine: where shards are made; when omitted, the one ``tonics.toml`` names, with
            ``workers`` processes (0: as ``tonics.toml`` says).

    Raises:
        LockedError: another run is at it. TooManyRejects: more than the set share was rejected.
        WouldDiscard: finished work would be thrown away and ``rebuild`` was not given.
    """
    started, progress = time.monotonic(), progress or Progress()
    with locked(lock_file(stage.dataset, stage.key), stage.key), _anew(stage, rebuild):
        _remove_leftovers(stage)
        status = status_of(stage)
        if rebuild:
            stage.discard()
            shards, fresh = stage.shards(), []
        else:
            if status.done and status.merged is not None:
                return _report(stage, status.merged, 0, started, fresh=True)
            if refused := refusal(stage, status):
                raise refused
            shards, fresh = [s.shard for s in status.stale], status.fresh
        drop(manifest_file(stage.dataset, stage.key))
        try:
            with _engine_of(stage, engine, workers, progress) as chosen:
                made = _make(stage, shards, chosen, progress)
        finally:
            _remove_leftovers(stage)  # of workers that were stopped
        manifests = sorted([*fresh, *made], key=lambda m: m.shard)
        _remove_orphans(stage, manifests)
        _check_rejects(stage, manifests)
        merged = _merge(stage, manifests)
        return _report(stage, merged, len(made), started, fresh=False)


def make_part(stage: Stage, part: Part, engine: Engine, progress: Progress) -> Report:
    """Make what is stale of every so many shards; other machines may make the others meanwhile.

    Nothing is merged, and nothing that others may be writing is cleaned up: a plain run of the
    stage does both once all parts are there.

    Raises:
        LockedError: a plain run is at it. WouldDiscard: as a plain run would.
    """
    started = time.monotonic()
    with locked(lock_file(stage.dataset, stage.key), stage.key, shared=True):
        status = status_of(stage)
        if refused := refusal(stage, status):
            raise refused
        mine = {shard.name for shard in stage.shards()[part.number - 1 :: part.of]}
        shards = [s.shard for s in status.stale if s.shard.name in mine]
        if shards:
            drop(manifest_file(stage.dataset, stage.key))
        made = _make(stage, shards, engine, progress)
        rest = f"part {part}: {len(made)} shards made; 'tonics {stage.key.replace('/', ' ')}' "
        counts = {
            **{name: sum(m.counts[name] for m in made) for name in ("in", "out")},
            **{n: add_counts(m.counts[n] for m in made) for n in ("rejected", "ignored")},
            "shards": len(made),
            "notes": [rest + "finishes the stage once all parts are made"],
        }
        cpu_s = sum(m.cost["cpu_s"] for m in made)
        wall_s = time.monotonic() - started
        return Report(
            key=stage.key, fresh=False, made=len(made), counts=counts, wall_s=wall_s, cpu_s=cpu_s
        )


def _remove_leftovers(stage: Stage) -> None:
    manifests = manifest_file(stage.dataset, stage.key).parent
    for place in (*stage.places, manifests):
        remove_leftovers(place)
    start, end = rejected_file(stage.dataset, stage.key, "*").name.split("*")
    for file in stage.dataset.rejected.glob(f"{start}*{end}.*"):
        shard = file.name.removeprefix(start).partition(end)[0]
        if "-" not in shard:  # else a stage whose name is longer, at work perhaps
            remove_leftovers(rejected_file(stage.dataset, stage.key, shard))


@contextlib.contextmanager
def _anew(stage: Stage, rebuild: bool) -> Iterator[None]:
    stage.anew = rebuild
    try:
        yield
    finally:
        stage.anew = False


@contextlib.contextmanager
def _engine_of(
    stage: Stage, engine: Engine | None, workers: int, progress: Progress
) -> Iterator[Engine]:
    runtime = stage.dataset.config.runtime
    if not stage.parallel:
        yield LocalEngine(runtime, 1)
    elif engine is not None:
        yield engine
    else:
        with open_engine(runtime, workers, progress.tell) as own:
            yield own


def _make(
    stage: Stage, shards: Sequence[Shard], engine: Engine, progress: Progress
) -> list[Manifest]:
    rows = {s.name: s.rows for s in shards}
    made = []
    with progress.task(stage.key, sum(rows.values()), stage.unit) as meter:
        for manifest in engine.map(stage, shards, meter.reached):
            made.append(manifest)
            rejected = sum(manifest.counts["rejected"].values())
            meter.finished(manifest.shard, rows[manifest.shard], rejected)
    assert {m.shard for m in made} == set(rows), "an engine lost a shard"
    return made


def _merge(stage: Stage, shards: Sequence[Manifest]) -> Manifest:
    started, cpu = time.monotonic(), time.process_time()
    identity = merge_identity(stage, shards)  # before anything is read: what changes later is stale
    made = stage.merge(shards)
    kept = write_rejects(stage.dataset, stage.key, "stage", made.rejected)
    rejected = add_counts([*(m.counts["rejected"] for m in shards), by_reason(made.rejected)])
    cost = {
        "wall_s": round(time.monotonic() - started + sum(m.cost["wall_s"] for m in shards), 3),
        "cpu_s": round(time.process_time() - cpu + sum(m.cost["cpu_s"] for m in shards), 3),
    }
    manifest = Manifest(
        stage=stage.key,
        shard="stage",
        identity=identity,
        outputs=tuple(Output.of(stage.dataset.root, p) for p in [*made.outputs, *kept]),
        counts={
            "in": sum(m.counts["in"] for m in shards),
            "out": made.rows or sum(m.counts["out"] for m in shards),
            "rejected": rejected,
            "ignored": add_counts([*(m.counts["ignored"] for m in shards), made.ignored]),
            "shards": len(shards),
            **made.counts,
        },
        cost=cost,
    )
    manifest.write(manifest_file(stage.dataset, stage.key))
    return manifest


def _report(stage: Stage, merged: Manifest, made: int, started: float, *, fresh: bool) -> Report:
    return Report(
        key=stage.key,
        fresh=fresh,
        made=made,
        counts=merged.counts,
        wall_s=time.monotonic() - started,
        cpu_s=merged.cost["cpu_s"],
    )


def _check_rejects(stage: Stage, shards: Sequence[Manifest]) -> None:
    reasons = add_counts(m.counts["rejected"] for m in shards)
    check_rejects(stage, sum(m.counts["in"] for m in shards), reasons)


def _remove_orphans(stage: Stage, keep: Sequence[Manifest]) -> None:
    """Delete shards that the inputs no longer demand (a smaller dataset, another shard size).

    What merges and readers find in a stage's folder is then what its manifests name.
    """
    names = {m.shard for m in keep} | {"stage"}
    kept = {stage.dataset.root / o.path for m in keep for o in m.outputs}
    for file in manifest_file(stage.dataset, stage.key).parent.glob("*.json"):
        if file.stem not in names:
            rejected_file(stage.dataset, stage.key, file.stem).unlink(missing_ok=True)
            file.unlink()
    if stage.folder.is_dir():
        for file in stage.folder.glob("[0-9][0-9][0-9][0-9][0-9].*"):
            if file not in kept:
                file.unlink()


def finished_cost(stage: Stage) -> tuple[int, float]:
    """How many finished shards a stage has, and the CPU-seconds they took."""
    made = shard_manifests(stage.dataset, stage.key)
    return len(made), sum(m.cost.get("cpu_s", 0.0) for m in made)
