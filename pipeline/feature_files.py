"""Which feature files an import reads: what the user names, and how each is described."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..artifact import hash_file
from ..errors import InputError
from ..features.formats import format_of, mate_of
from ..features.formats.row import FeatureFormat
from .dataset import Dataset
from .matching import RULES
from .survey import Source, Survey


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the user asks for.

    Attributes:
        files: feature files, or Oscar's folders. format: a key of ``FORMATS``, or "auto".
        vocabulary, attributes, sizes: files, or None. rules: how ids may be matched.
    """

    files: tuple[Path, ...]
    format: str = "auto"
    vocabulary: Path | None = None
    attributes: Path | None = None
    sizes: Path | None = None
    rules: tuple[str, ...] = RULES

    def options(self) -> dict[str, Any]:
        """What decides an import beside its files; contents, not paths."""
        files = {"vocabulary": self.vocabulary, "attributes": self.attributes, "sizes": self.sizes}
        hashes = {name: hash_file(path) for name, path in files.items() if path and path.is_file()}
        return {**hashes, "rules": list(self.rules)}


def files_of(wanted: Wanted, before: Survey | None = None) -> tuple[list[Path], str]:
    """The feature files, and the one format they are of.

    Raises:
        InputError: a file that is missing or of another format than the first.
    """
    files = [_file_in(path) for path in dict.fromkeys(wanted.files)]
    kinds = [format_of(file, wanted.format) for file in files]
    first = before.format if before else kinds[0]
    for file, kind in zip(files, kinds, strict=True):
        if kind != first:
            do = "import other formats into another feature set"
            raise InputError(file, f"is of the format {kind!r}", expected=repr(first), do=do)
    return files, first


def _file_in(path: Path) -> Path:
    """The feature file of one of Oscar's folders, or the file itself."""
    if path.is_dir() and not (path / "features.tsv").is_file():
        raise InputError(path, "is a folder without features.tsv", expected="a feature file")
    return path / "features.tsv" if path.is_dir() else path


def labels_of(files: Sequence[Path]) -> list[str]:
    """How messages name files: without folders, where that is enough.

    >>> labels_of([Path("/a/features.tsv"), Path("/b/features.tsv"), Path("/b/x.tsv")])
    ['a/features.tsv', 'b/features.tsv', 'x.tsv']
    """
    count = Counter(file.name for file in files)
    full = [file.resolve() for file in files]
    return [f.name if count[f.name] == 1 else f"{f.parent.name}/{f.name}" for f in full]


def source_of(dataset: Dataset, file: Path, label: str, family: FeatureFormat) -> Source:
    """Describe a file as it is now."""
    mate, stat = mate_of(file, family), file.stat()
    beside = mate.stat() if mate else None
    return Source(
        path=_kept_path(dataset, file),
        name=label,
        bytes=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        mate=_kept_path(dataset, mate) if mate else "",
        mate_stamp=(beside.st_size, beside.st_mtime_ns) if beside else (0, 0),
    )


def _kept_path(dataset: Dataset, file: Path) -> str:
    """A path that still holds when the dataset moves with the file in it."""
    whole = file.resolve()
    return str(whole.relative_to(dataset.root) if whole.is_relative_to(dataset.root) else whole)
