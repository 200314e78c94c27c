"""``tonics pack``: a plan as webdataset tars (docs/packs.md).

A command and no stage: ``tonics run`` makes all that tonics.toml names, and a pack, which holds
the features once an epoch or so, is nothing to make unasked.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from .. import __version__
from ..artifact import atomic_folder, remove_leftovers
from ..errors import DiskFull, InputError
from ..features import FeatureStore
from ..train.plan import Plan
from ..train.stream.pack_files import PACK_NAME
from .dataset import Dataset
from .lock import lock_file, locked
from .progress import Progress, Tell
from .show import open_plan
from .stages.extract import load_store
from .tables import size_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """What a pack will hold, and where: known before anything is written."""

    folder: Path
    batches: int
    tars: int
    bytes: int


def pack_plan(
    dataset: Dataset,
    name: str,
    *,
    output: Path | None,
    ranks: int,
    shard_bytes: int,
    force: bool = False,
    quiet: bool = False,
    tell: Tell,
) -> Packing:
    """Write a plan as tars, whole or not at all.

    Args:
        output: the folder; ``shards/NAME`` of the dataset when omitted.
        ranks: a series of tars for each rank, of its rows. shard_bytes: the most bytes of a tar.
        force: replace a pack that is there. tell: told the bytes before anything is written.

    Raises:
        InputError: no such plan, one of pools, one that so many ranks cannot share, or a folder
            that may not be written. PlanMismatch: the plan was built for other features.
        DiskFull: the disk has no room for it.
    """
    from ..train.stream.packing import lay_out, write_pack

    plan = open_plan(dataset, name)
    store = _store_of(dataset, name, plan)
    folder = (output or dataset.pack(name)).resolve()
    _check_folder(dataset, folder, force=force)
    with locked(lock_file(dataset, f"pack/{name}"), f"pack/{name}"):
        remove_leftovers(folder)
        cuts = lay_out(plan, store, shard_bytes=shard_bytes, ranks=ranks)
        size = sum(cut.total for cut in cuts)
        found = Packing(folder=folder, batches=len(plan), tars=ranks * len(cuts), bytes=size)
        free = _free(folder)
        tars = f"{found.tars:,} tar{'s' * (found.tars != 1)}"
        what = f"{len(plan):,} batches in {tars}, {size_text(size)}"
        tell(f"{name}: {what}; {size_text(free)} free")
        if size > free:
            do = "free some, or choose a place on another disk with --output"
            raise DiskFull(folder, f"{size_text(free)} free", expected=size_text(size), do=do)
        progress = Progress(quiet=quiet).task(f"pack/{name}", ranks * len(plan), "batches")
        with progress as meter, atomic_folder(folder) as tmp:
            write_pack(
                tmp,
                plan,
                store,
                cuts,
                created_by=f"tonics {__version__}",
                advance=lambda batches: meter.reached("pack", meter.done + batches, 0),
            )
    return found


def _store_of(dataset: Dataset, name: str, plan: Plan) -> FeatureStore:
    """The feature store that a plan was built for."""
    if plan.schedule is not None:
        found = "pools to draw from, no list of batches"
        raise InputError(f"plan {name}", found, do="pack what was drawn: Adaptive.replay")
    section = dataset.config.plans.get(name)
    if section is None:
        do = f"give it a section [plans.{name}] again"
        raise InputError(f"plan {name}", "not named in tonics.toml", do=do)
    store = load_store(dataset, section.features)
    plan.require(features=store.content_hash)
    return store


def _check_folder(dataset: Dataset, folder: Path, *, force: bool) -> None:
    """Refuse to write over anything but a pack of ours, and that only when asked."""
    own = dataset.root.resolve()
    if own.is_relative_to(folder):
        raise InputError(folder, "the dataset lies in it", do="name another folder")
    if folder.is_relative_to(own) and folder.parent != own / "shards":
        do = f"name one outside, or {own / 'shards' / folder.name}"
        raise InputError(folder, "in the dataset's own folder", do=do)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / PACK_NAME).is_file():
        raise InputError(folder, "exists and is no pack", do="name another folder")
    if not force:
        raise InputError(folder, "exists already", do="name another folder, or add --force")


def _free(folder: Path) -> int:
    """Bytes free where a folder will be made."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(there).free
