"""Making one shard, on any engine: claim it, make it, keep its rejects, write its manifest.

Results are paths and counts, never data. Whoever makes a shard holds its lock, so that a worker
that outlives a killed run, or another machine, never writes the same files at the same time.
"""

from __future__ import annotations

import time
from pathlib import Path

from ...artifact import Manifest, Output, drop
from ..lock import claimed, shard_lock
from ..progress import Advance, Reached
from ..stage import Shard, Stage, by_reason, manifest_file, write_rejects
from ..staleness import fresh_manifest, full_identity
from .machine import device_of


def make_shard(stage: Stage, shard: Shard, reached: Reached) -> Manifest:
    """Make one shard and write its manifest: from then on it is finished, whatever happens.

    Raises:
        LockedError: somebody else is making it and does not come to an end.
    """
    lock = shard_lock(stage.dataset, stage.key, shard.name)
    with claimed(lock, f"{stage.key}, shard {shard.name}"):
        if not stage.anew and (made := fresh_manifest(stage, shard)):
            return made  # by another part, or a worker of a killed run
        stage.prepare()  # before anything is given up, and before time is counted
        reached(shard.name, 0, 0)
        stage.advance = _adding(shard.name, reached)
        return _make(stage, shard)


def _make(stage: Stage, shard: Shard) -> Manifest:
    started, cpu = time.monotonic(), time.process_time()
    manifest_path = manifest_file(stage.dataset, stage.key, shard.name)
    manifest_path.parent.mkdir(parents=True, exist_ok=True)  # says: files here are ours
    drop(manifest_path)  # from here on an older manifest would vouch for bytes it does not know
    identity = full_identity(stage, shard)
    made = stage.make(shard)
    kept = write_rejects(stage.dataset, stage.key, shard.name, made.rejected)
    device = {"device": device_of(stage.dataset)} if stage.uses_device else {}
    manifest = Manifest(
        stage=stage.key,
        shard=shard.name,
        identity=identity,
        outputs=tuple(Output.of(stage.dataset.root, Path(p)) for p in [*made.outputs, *kept]),
        counts={
            "in": shard.rows,
            "out": made.rows,
            "rejected": by_reason(made.rejected),
            "ignored": dict(made.ignored),
            **made.counts,
        },
        cost={
            "wall_s": round(time.monotonic() - started, 3),
            "cpu_s": round(time.process_time() - cpu, 3),
            **device,
        },
    )
    manifest.write(manifest_path)
    return manifest


def _adding(shard: str, reached: Reached) -> Advance:
    """Turn a stage's steps into how far the shard is."""
    done = rejected = 0

    def advance(rows: int, rejects: int) -> None:
        nonlocal done, rejected
        done, rejected = done + rows, rejected + rejects
        reached(shard, done, rejected)

    return advance
