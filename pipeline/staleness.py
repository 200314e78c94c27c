"""What is out of date and why: what is on disk against what inputs and settings demand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..artifact import Manifest, hash_json
from ..errors import WouldDiscard
from .stage import Shard, Stage, manifest_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """A shard that has to be made, and why.

    Attributes:
        old: the finished shard it replaces, if there is one.
        renewed: only its inputs are others; when not, throwing ``old`` away takes ``--rebuild``.
    """

    shard: Shard
    reason: str
    old: Manifest | None = None
    renewed: bool = True


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


def fresh_manifest(stage: Stage, shard: Shard) -> Manifest | None:
    """The manifest of a shard that is finished and up to date, else None."""
    made = Manifest.read(manifest_file(stage.dataset, stage.key, shard.name))
    return None if _why_stale(stage, shard, made, stage.dataset.root) else made


def _why_stale(stage: Stage, shard: Shard, old: Manifest | None, root: Path) -> Stale | None:
    if old is None:
        return Stale(shard=shard, reason=stage.begun() or "not made yet")
    changes = list(_changes(old.identity, full_identity(stage, shard)))
    if changes:
        inputs = stage.renewable or frozenset()
        renewed = stage.renewable is None or all(key in inputs for key, _ in changes)
        changes.sort(key=lambda change: change[0] in inputs)  # settings first, they explain more
        reason = "; ".join(text for _, text in changes)
        return Stale(shard=shard, reason=reason, old=old, renewed=renewed)
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
        elif name == "format":
            yield key, f"made by another version (format {before!r}, now {after!r})"
        elif any(_is_hash(v) or isinstance(v, list | Mapping) for v in (before, after)):
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


def full_identity(stage: Stage, shard: Shard) -> dict[str, Any]:
    """What the stage says decides a shard, and the version of what it writes."""
    return {"format": stage.format, **stage.identity(shard)}


def merge_identity(stage: Stage, shards: Sequence[Manifest]) -> dict[str, Any]:
    content = hash_json([m.content() for m in shards])
    return {"format": stage.format, "shards": content, **stage.merge_identity()}


def _why_unmerged(
    stage: Stage, fresh: Sequence[Manifest], merged: Manifest | None, root: Path
) -> str:
    if merged is None:
        return "not finished yet"
    changes = [text for _, text in _changes(merged.identity, merge_identity(stage, fresh))]
    if changes:
        return "; ".join(changes)
    return next((p for o in merged.outputs if (p := o.missing(root))), "")


def refusal(stage: Stage, status: Status) -> WouldDiscard | None:
    """Say why a stage may not be brought up to date without ``--rebuild``, if so.

    Costly shards are replaced unasked when their inputs changed, but not most of them at once: then
    something else happened, such as a renumbering.
    """
    if stage.renewable is None:
        return None
    replaced = [s for s in status.stale if s.old is not None]
    lost = [s for s in replaced if not s.renewed]
    finished = len(status.fresh) + len(replaced)
    if not lost and finished > 1 and 2 * len(replaced) > finished:
        lost = replaced
    if lost:
        cpu_s = sum(s.old.cost.get("cpu_s", 0) for s in lost if s.old)
        found = f"{len(lost)} of {finished} finished shards ({cpu_s:,.0f} CPU-s of work) were "
        found += f"made otherwise: {lost[0].reason}"
        do = f"'tonics run --rebuild {stage.key}' makes them anew"
        if stage.kind == "extract" and any(_is_older(stage, s.old) for s in lost):
            do = f"'tonics features migrate {stage.name}' brings them up to date as they are"
        return WouldDiscard(stage.key, found, do=do)
    if _lost_manifests(stage):
        found = f"finished files in {stage.folder}, and no manifests for them"
        do = f"copy .tonics along with the folder, or 'tonics run --rebuild {stage.key}'"
        return WouldDiscard(stage.key, found, expected="their manifests in .tonics", do=do)
    return None


def _is_older(stage: Stage, old: Manifest | None) -> bool:
    return old is not None and old.identity.get("format", stage.format) < stage.format


def _lost_manifests(stage: Stage) -> bool:
    """Whether shards lie there of which nothing is known: a copy that left ``.tonics`` behind."""
    if manifest_file(stage.dataset, stage.key).parent.exists():
        return False
    return any(stage.folder.glob("[0-9]*.*"))
