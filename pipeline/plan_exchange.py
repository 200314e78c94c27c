"""``tonics plans export`` and ``import``: batches as a table that any program reads and writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from .. import __version__
from ..errors import ConfigError, InputError, StaleInput, WouldDiscard
from ..train.plan import Plan
from .config import CONFIG_NAME, IMPORTED
from .dataset import Dataset
from .graph import stages_of, with_inputs
from .lock import lock_file, locked
from .plans.exchange import table
from .plans.exchange.listed import read_batches
from .show import open_plan
from .stage import Stage
from .stages.imported_plan import ImportedPlanStage
from .staleness import status_of
from .target import check_target


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export wrote."""

    batches: int
    rows: int
    bytes: int


def export_plan(
    dataset: Dataset, name: str, file: Path, *, force: bool = False, epochs: bool = False
) -> Exported:
    """Write a plan's batches as a parquet table, some thousand batches at a time.

    Args:
        force: overwrite the file. epochs: with a column for the epoch of each batch.

    Raises:
        InputError: no such plan, one of pools, a name that does not end in .parquet, or a file that
            is there.
    """
    if file.suffix.lower() != ".parquet":
        raise InputError(file, "not a name in .parquet", do=f"write {file.stem}.parquet")
    check_target(dataset, file.resolve(), force=force)
    plan = open_plan(dataset, name)
    if plan.schedule is not None:
        found = "pools to draw from, no list of batches"
        raise InputError(f"plan {name}", found, do="export what was drawn: Adaptive.replay")
    about = {
        "plan_id": plan.plan_id,
        "batch_size": plan.batch_size,
        "batches": len(plan),
        "created_by": f"tonics {__version__}",
    }
    rows = table.write_batches(file.resolve(), _tables(plan, epochs=epochs), about)
    return Exported(batches=len(plan), rows=rows, bytes=file.stat().st_size)


def _tables(plan: Plan, *, epochs: bool) -> Iterator[pa.Table]:
    per_table = max(1, table.ROWS_AT_ONCE // plan.batch_size)
    keys, image_ids = (plan.pairs.column(name) for name in ("pair_key", "image_id"))
    for start in range(0, max(1, len(plan)), per_table):
        some = slice(start, start + per_table)
        pairs = plan.batches.pairs[some]
        rows = pa.array(plan.rows(pairs.reshape(-1)))
        yield table.batches_table(
            np.arange(start, start + len(pairs)),
            plan.batch_size,
            keys.take(rows),
            image_ids.take(rows),
            plan.batches.epoch[some] if epochs else None,
        )


def import_batches(
    dataset: Dataset,
    name: str,
    file: Path,
    *,
    drop_conflicts: bool = False,
    replace_all: bool = False,
) -> ImportedPlanStage:
    """Check a table of batches and keep a copy of it; the stage that comes back makes the plan.

    What is refused changes nothing.

    Args:
        drop_conflicts: leave out batches in which pairs conflict. replace_all: forget what was
            imported before.

    Raises:
        ConfigError: no such imported plan, or of another batch size. InputError: no table of
            batches, or they break the rules of a plan. StaleInput: pairs or features are not ready.
        WouldDiscard: other batches were imported before. LockedError: the plan is being built.
    """
    _check_config(dataset, name, file)
    stages = stages_of(dataset)
    stage = ImportedPlanStage(dataset, name)
    stage.check_settings()
    _require_inputs(stages, stage)
    listed = read_batches(file)
    stage.require_size(listed.size, file)
    stage.place(file, listed, drop_conflicts=drop_conflicts)
    with locked(lock_file(dataset, stage.key), stage.key):
        if not replace_all:
            _refuse_to_replace(stage, listed.content_hash())
        stage.keep(listed, file, drop_conflicts=drop_conflicts)
    return ImportedPlanStage(dataset, name)


def _check_config(dataset: Dataset, name: str, file: Path) -> None:
    section = dataset.config.plans.get(name)
    where = f"{dataset.root / CONFIG_NAME}: plans.{name}"
    if section is None:
        size = read_batches(file).size
        do = f'add the line [plans.{name}], and below it curriculum = "{IMPORTED}" and '
        do += f"batch_size = {size}, each on a line"
        raise ConfigError(where, "no such section", do=do)
    if section.curriculum != IMPORTED:
        found = f"curriculum = {section.curriculum!r}"
        do = "give the imported batches a section and a name of their own"
        raise ConfigError(where, found, expected=f"curriculum = '{IMPORTED}'", do=do)


def _require_inputs(stages: Mapping[str, Stage], stage: Stage) -> None:
    for one in with_inputs(dict(stages), [stages[key] for key in stage.inputs]):
        if why := status_of(one).why:
            do = f"run 'tonics run {' '.join(stage.inputs)}' first"
            raise StaleInput(stage.key, f"its input {one.key} is out of date ({why})", do=do)


def _refuse_to_replace(stage: ImportedPlanStage, content_hash: str) -> None:
    """Refuse to forget other batches, whose file may be gone; damaged ones are no loss."""
    if stage.table_file.exists() and not stage.irreplaceable("all"):
        about = stage.about
        if about["content_hash"] != content_hash:
            found = f"is made of other batches, of {about['source']}"
            do = "--replace forgets those, or choose another name"
            raise WouldDiscard(stage.folder, found, do=do)
