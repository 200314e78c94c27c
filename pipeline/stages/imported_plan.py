"""A plan of batches that somebody else decided: ``[plans.NAME] curriculum = "import"``.

``tonics plans import`` keeps a copy of the table in the dataset; from then on the plan is made of
it like any other, and anew when the pairs or the features change. The table knows pairs by their
keys, so it outlives a renumbering.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...errors import ConfigError, FormatError, InputError, TonicsError, plain
from ...train.plan_files import Batches
from ..config import IMPORTED
from ..plans.curricula import Stretch, check_world
from ..plans.eligible import Eligible
from ..plans.exchange.imported import IMPORT_VERSION, Placed, place_batches
from ..plans.exchange.listed import Listed, read_batches
from ..plans.exchange.table import read_about, write_batches
from ..stage import Made, Reject, Shard, manifest_file, shard_manifests
from .plan import PlanStage

ABOUT = ("content_hash", "batch_size", "epochs", "drop_conflicts", "source")
_FIXED = ("epochs", "passes", "seed", "phases")  # the table says these


class ImportedPlanStage(PlanStage):
    """Makes a plan of an imported table; inputs are pairs of all splits."""

    @property
    def table_file(self) -> Path:
        """The dataset's own copy of the table."""
        return manifest_file(self.dataset, self.key).with_name("imported.parquet")

    @property
    def empty(self) -> bool:
        """Nothing was imported yet."""
        return not self.table_file.exists() and not shard_manifests(self.dataset, self.key)

    @property
    def waits_for(self) -> str:
        return f"tonics plans import {self.name} FILE" if self.empty else ""

    @cached_property
    def phases(self) -> list[Stretch]:
        """None: no builder has a part in it."""
        return []

    @property
    def random_share(self) -> dict[str, float]:
        """Nobody knows how these batches were drawn: they are judged like any other."""
        return {IMPORTED: 0.0}

    @cached_property
    def about(self) -> dict[str, str]:
        """What the copy says of itself: ``content_hash``, ``batch_size``, ``epochs``, ...

        Raises:
            InputError: nothing was imported. FormatError: the copy is damaged.
        """
        if not self.table_file.exists():
            found = "nothing imported yet" if self.empty else f"{self.table_file} is gone"
            do = f"run 'tonics plans import {self.name} FILE'"
            raise InputError(f"plans.{self.name}", found, do=do)
        try:
            about = read_about(self.table_file)
            return {key: about[key] for key in ABOUT}
        except (InputError, KeyError) as error:
            raise self._damaged(str(error)) from error

    @property
    def params(self) -> dict[str, Any]:
        """What decides the batches, beside the pairs."""
        drop = self.about["drop_conflicts"] == str(True)
        return {"content_hash": self.about["content_hash"], "drop_conflicts": drop}

    def check(self) -> None:
        self.check_settings()
        self.require_size(int(self.about["batch_size"]), self.about["source"])
        self._check_images()

    def check_settings(self) -> None:
        """Refuse settings that a table decides, and ranks that do not divide its batches.

        Raises:
            ConfigError: naming the setting.
        """
        if given := sorted(self.config.model_fields_set.intersection(_FIXED)):
            found = f"set, and the batches of {self.name!r} are imported as they are"
            raise ConfigError(f"{self.where}.{given[0]}", found, do="take it out")
        check_world(self.where, self.config)

    def require_size(self, size: int, source: object) -> None:
        """Refuse batches of another size than the plan is to have.

        Raises:
            ConfigError: saying both.
        """
        if size != self.config.batch_size:
            found = f"value {self.config.batch_size}, and the batches of {source} hold {size} pairs"
            raise ConfigError(f"{self.where}.batch_size", found, do=f"set batch_size = {size}")

    def shards(self) -> list[Shard]:
        return [] if self.empty else super().shards()

    def identity(self, shard: Shard) -> dict[str, Any]:
        return {**super().identity(shard), "imported": {"version": IMPORT_VERSION, **self.params}}

    def decide(self, eligible: Eligible) -> tuple[Batches, pa.Table, list[Reject]]:
        drop = self.params["drop_conflicts"]
        placed = self.place(self.table_file, self._copy(), eligible, drop_conflicts=drop)
        return placed.batches, placed.remainder, placed.left_out

    def place(
        self,
        where: object,
        listed: Listed,
        eligible: Eligible | None = None,
        *,
        drop_conflicts: bool,
    ) -> Placed:
        """What a table's batches come to in this dataset.

        Raises:
            InputError: they break the rules of a plan.
        """
        return place_batches(
            where,
            listed,
            eligible or self._eligible(),
            self.dataset.pairs(),
            self.config.split,
            drop_conflicts=drop_conflicts,
        )

    def keep(self, listed: Listed, source: Path, *, drop_conflicts: bool) -> None:
        """Keep a copy of a table, from which the plan will be made."""
        values = (
            listed.content_hash(),
            listed.size,
            listed.epochs,
            drop_conflicts,
            plain(source.name),
        )
        write_batches(self.table_file, listed.tables(), dict(zip(ABOUT, values, strict=True)))

    def make(self, shard: Shard) -> Made:
        made = super().make(shard)
        counts = {**made.counts, "notes": [*made.counts["notes"], *self._notes(made)]}
        return replace(made, outputs=[*made.outputs, self.table_file], counts=counts)

    def _notes(self, made: Made) -> list[str]:
        if not made.rejected:
            return []
        left_out, total = len(made.rejected), made.counts["batches"] + len(made.rejected)
        see = f"see 'tonics show rejected {self.key}'"
        return [f"{left_out:,} of {total:,} batches of {self.about['source']} left out: {see}"]

    def irreplaceable(self, shard: str) -> str:
        try:
            self._copy()
        except TonicsError as error:
            return f"{error.where}: {error.found}; {error.do}"
        return ""

    def _copy(self) -> Listed:
        """Read the copy and compare it with its hash."""
        expected = self.about["content_hash"]
        try:
            listed = read_batches(self.table_file)
        except InputError as error:
            raise self._damaged(error.found) from error
        if listed.content_hash() != expected:
            raise self._damaged("does not hold what was imported")
        return listed

    def _damaged(self, found: str) -> FormatError:
        do = f"'tonics plans import {self.name} FILE' brings it anew"
        return FormatError(self.table_file, found, do=do)

    def _header(self, eligible: Eligible, batches: Batches, remainder: pa.Table) -> dict[str, Any]:
        header = super()._header(eligible, batches, remainder)
        epochs = int(self.about["epochs"])
        phase = {
            "name": IMPORTED,
            "builder": IMPORTED,
            "params": self.params,
            "rotation": [0],
            "first_epoch": 0,
            "epochs": epochs,
        }
        return {**header, "counts": {**header["counts"], "epochs": epochs}, "phases": [phase]}
