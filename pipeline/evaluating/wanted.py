"""What a user asks ``tonics eval`` for, and what does not go together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import InputError
from ..dataset import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be scored, and on what.

    Attributes:
        names: runs; none: all. clip: a CLIP model instead. embeddings: files of vectors instead.
        split: of the query set for those two; None: test. name: what to call the vectors; None:
            vectors.
        image_ids, pair_keys: files that name the vectors' rows. owners: one that says which image
            each text belongs to, instead of a dataset.
        swaps: files of altered captions. columns: ``caption=title``. eccv: COCO's caption file.
    """

    names: Sequence[str] = ()
    clip: str = ""
    embeddings: tuple[Path, Path] | None = None
    split: str | None = None
    name: str | None = None
    image_ids: Path | None = None
    pair_keys: Path | None = None
    owners: Path | None = None
    swaps: Sequence[Path] = ()
    columns: Sequence[str] = field(default=())
    eccv: Path | None = None

    @property
    def other(self) -> bool:
        """Whether it is not runs that are scored."""
        return bool(self.clip or self.embeddings)

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            InputError: two models at once, questions to vectors, or an option that nothing uses.
        """
        if self.clip and self.embeddings:
            raise InputError("eval", "--clip and --embeddings", expected="one of them")
        if self.other and self.names:
            found = f"runs {', '.join(self.names)} beside --clip or --embeddings"
            raise InputError("eval", found, expected="runs, or another model")
        if self.embeddings and (self.swaps or self.eccv):
            found = "--swaps and --eccv ask a model, and vectors are none"
            raise InputError("eval", found, expected="a run, or --clip")
        if self.columns and not self.swaps:
            raise InputError("eval", "--column without --swaps")
        self._check_vectors()

    def _check_vectors(self) -> None:
        """Refuse what is about vectors where there are none, or no dataset."""
        options = {
            "--name": self.name,
            "--owners": self.owners,
            "--image-ids": self.image_ids,
            "--pair-keys": self.pair_keys,
        }
        if not self.embeddings and (given := [key for key, one in options.items() if one]):
            do = "a run is called as in tonics.toml, a CLIP model after itself"
            found = f"{', '.join(given)} without --embeddings"
            raise InputError("eval", found, do=do if self.name else "")
        if self.owners and (self.split or self.image_ids or self.pair_keys):
            found = "--split, --image-ids, --pair-keys are of a dataset, and --owners of none"
            raise InputError("eval", found, expected="one or the other")
        if self.name is not None and not re.fullmatch(r"[^/\\]*[A-Za-z0-9][^/\\]*", self.name):
            raise InputError("--name", repr(self.name), expected="a name without slashes")

    def check_runs(self, dataset: Dataset) -> None:
        """Refuse a split for runs, which have their own.

        Raises:
            InputError: says which one it is.
        """
        if self.other or self.split is None:
            return
        runs = dataset.config.runs
        own = [f"{name}: {runs[name].eval_split!r}" for name in self.names or runs if name in runs]
        found = f"--split {self.split!r} is of --clip and --embeddings; runs have an eval_split"
        do = "it is set in tonics.toml, under [runs.NAME]"
        raise InputError("eval", f"{found} ({', '.join(own)})", do=do)
