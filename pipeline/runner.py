"""Bringing stages up to date: what is stale and why, making it, resuming, saying what happened."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..artifact import Manifest, Output, hash_json, remove_leftovers
from ..errors import InputError
from .engine import full_identity, map_shards, worker_count
from .lock import locked
from .progress import Progress
from .stage import (
    Shard,
    Stage,
    add_counts,
    by_reason,
    check_rejects,
    manifest_file,
    rejected_file,
    write_rejects,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """A shard that has to be made, and why.

    Attributes:
        discards: the finished shard that would be thrown away for a reason other than new inputs.
    """

    shard: Shard
    reason: str
    discards: Manifest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where a stage stands.

    Attributes:
        fresh: manifests of finished shards. stale: the others. merged: the stage's own manifest.
        why: what is out of date in one line, or nothing.
    """

    stage: Stage
    fresh: list[Manifest] = field(default_factory=list)
    stale: list[Stale] = field(default_factory=list)
    merged: Manifest | None = None
    why: str = ""

    @property
    def done(self) -> bool:
        """Nothing to do."""
        return not self.why


def status_of(stage: Stage) -> Status:
    """Compare what is on disk with what the inputs and settings demand; reads no artefact."""
    root, fresh, stale = stage.dataset.root, [], []
    for shard in stage.shards():
        old = Manifest.read(manifest_file(stage.dataset, stage.key, shard.name))
        problem = _why_stale(stage, shard, old, root)
        if problem:
            stale.append(problem)
        elif old is not None:
            fresh.append(old)
    merged = Manifest.read(manifest_file(stage.dataset, stage.key))
    why = _summary(stale, len(fresh)) or _why_unmerged(stage, fresh, merged, root)
    return Status(stage=stage, fresh=fresh, stale=stale, merged=merged, why=why)


def _why_stale(stage: Stage, shard: Shard, old: Manifest | None, root: Path) -> Stale | None:
    if old is None:
        return Stale(shard=shard, reason="not made yet")
    changes = list(_changes(old.identity, full_identity(stage, shard)))
    if changes:
        costly = stage.renewable is not None and any(k not in stage.renewable for k, _ in changes)
        reason = "; ".join(text for _, text in changes)
        return Stale(shard=shard, reason=reason, discards=old if costly else None)
    for output in old.outputs:
        if problem := output.missing(root):
            return Stale(shard=shard, reason=problem)
    return None


def _changes(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> Iterable[tuple[str, str]]:
    """Yield (top key, what changed) for every difference between two identities."""
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        name = f"{prefix}{key}"
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            for _, text in _changes(before, after, f"{name}."):
                yield key, text
        elif _is_hash(before) or _is_hash(after):
            yield key, f"{name} changed"
        else:
            yield key, f"{name} was {before!r}, is {after!r}"


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 32 and set(value) <= set("0123456789abcdef")


def _summary(stale: Sequence[Stale], fresh: int) -> str:
    if not stale:
        return ""
    reasons = list(dict.fromkeys(s.reason for s in stale))
    more = f" (and {len(reasons) - 1} other reasons)" if len(reasons) > 1 else ""
    total = len(stale) + fresh
    what = "" if total == 1 else f"{len(stale)} of {total} shards: "
    return f"{what}{reasons[0]}{more}"


def _merge_identity(stage: Stage, shards: Sequence[Manifest]) -> dict[str, Any]:
    content = hash_json([m.content() for m in shards])
    return {"format": stage.format, "shards": content, **stage.merge_identity()}


def _why_unmerged(
    stage: Stage, fresh: Sequence[Manifest], merged: Manifest | None, root: Path
) -> str:
    if merged is None:
        return "not finished yet"
    changes = [text for _, text in _changes(merged.identity, _merge_identity(stage, fresh))]
    if changes:
        return "; ".join(changes)
    return next((p for o in merged.outputs if (p := o.missing(root))), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What bringing a stage up to date came to.

    Attributes:
        fresh: there was nothing to do. made: how many shards were made now.
        cpu_s: CPU-seconds of the stage's finished shards, whenever they were made.
    """

    key: str
    fresh: bool
    made: int
    counts: Mapping[str, Any]
    wall_s: float
    cpu_s: float

    def json(self) -> dict[str, Any]:
        """As a program reads it."""
        return {name: getattr(self, name) for name in self.__slots__}

    def line(self) -> str:
        """The stage's closing line: in, out, rejected by reason, ignored, seconds."""
        counts = self.counts
        parts = [f"{counts.get('in', 0):,} in", f"{counts.get('out', 0):,} out"]
        for kind in ("rejected", "ignored"):
            reasons = counts.get(kind) or {}
            if reasons:
                listed = ", ".join(f"{n:,} {reason}" for reason, n in reasons.items())
                parts.append(f"{sum(reasons.values()):,} {kind} ({listed})")
        state = "up to date" if self.fresh else f"{self.wall_s:.1f} s"
        return f"{self.key:<16} {', '.join(parts)} [{state}, {self.cpu_s:.1f} CPU-s]"


def bring_up_to_date(
    stage: Stage, *, workers: int = 0, rebuild: bool = False, progress: Progress | None = None
) -> Report:
    """Make what is stale of one stage, merge it, and record it.

    Raises:
        LockedError: another run is at it. TooManyRejects: more than the set share was rejected.
        InputError: finished shards would be thrown away and ``rebuild`` was not given.
    """
    dataset, started = stage.dataset, time.monotonic()
    with locked(dataset.state / "locks" / f"{stage.key.replace('/', '-')}.lock", stage.key):
        _remove_leftovers(stage)
        if rebuild:
            forget(stage)
        status = status_of(stage)
        if status.done and status.merged is not None:
            return _report(stage, status.merged, 0, started, fresh=True)
        if not rebuild:
            _refuse_to_discard(stage, status.stale)
        try:
            made = _make(stage, [s.shard for s in status.stale], workers, progress)
        finally:
            _remove_leftovers(stage)  # of workers that were stopped
        manifests = sorted([*status.fresh, *made], key=lambda m: m.shard)
        _remove_orphans(stage, manifests)
        _check_rejects(stage, manifests)
        merged = _merge(stage, manifests)
        return _report(stage, merged, len(made), started, fresh=False)


def _remove_leftovers(stage: Stage) -> None:
    manifests = manifest_file(stage.dataset, stage.key).parent
    rejected = rejected_file(stage.dataset, stage.key, "*")
    for place in (*stage.places, manifests, rejected):
        remove_leftovers(place)


def _make(
    stage: Stage, shards: Sequence[Shard], workers: int, progress: Progress | None
) -> list[Manifest]:
    rows = {s.name: s.rows for s in shards}
    made = []
    with (progress or Progress()).task(stage.key, sum(rows.values())) as advance:
        if stage.reports:
            stage.advance = advance
        for manifest in map_shards(stage, shards, worker_count(workers) if stage.parallel else 1):
            made.append(manifest)
            if not stage.reports:
                advance(rows[manifest.shard], sum(manifest.counts["rejected"].values()))
    return made


def _merge(stage: Stage, shards: Sequence[Manifest]) -> Manifest:
    started, cpu = time.monotonic(), time.process_time()
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
        identity=_merge_identity(stage, shards),
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


def _refuse_to_discard(stage: Stage, stale: Sequence[Stale]) -> None:
    lost = [s for s in stale if s.discards is not None]
    if lost:
        cpu = sum(s.discards.cost.get("cpu_s", 0) for s in lost if s.discards)
        raise InputError(
            stage.key,
            f"{len(lost)} finished shards ({cpu:,.0f} CPU-s of work) were made otherwise: "
            f"{lost[0].reason}",
            do=f"'tonics run --rebuild {stage.key}' makes them anew; or keep them and give the "
            "new settings another name in tonics.toml",
        )


def _check_rejects(stage: Stage, shards: Sequence[Manifest]) -> None:
    reasons = add_counts(m.counts["rejected"] for m in shards)
    check_rejects(stage, sum(m.counts["in"] for m in shards), reasons)


def _remove_orphans(stage: Stage, keep: Sequence[Manifest]) -> None:
    """Delete shards that the inputs no longer demand (a smaller dataset, another shard size)."""
    names = {m.shard for m in keep} | {"stage"}
    kept = {o.path for m in keep for o in m.outputs}
    for file in manifest_file(stage.dataset, stage.key).parent.glob("*.json"):
        if file.stem in names:
            continue
        old = Manifest.read(file)
        for output in old.outputs if old else ():
            if output.path not in kept:
                (stage.dataset.root / output.path).unlink(missing_ok=True)
        rejected_file(stage.dataset, stage.key, file.stem).unlink(missing_ok=True)
        file.unlink()


def forget(stage: Stage) -> None:
    """Drop the manifests of a stage, so that all of it is made again."""
    for file in manifest_file(stage.dataset, stage.key).parent.glob("*.json"):
        file.unlink()
    stage.discard()


def finished_cost(stage: Stage) -> tuple[int, float]:
    """How many finished shards a stage has, and the CPU-seconds they took."""
    files = manifest_file(stage.dataset, stage.key).parent.glob("*.json")
    made = [m for f in files if f.stem != "stage" and (m := Manifest.read(f)) is not None]
    return len(made), sum(m.cost.get("cpu_s", 0.0) for m in made)
