"""What there is to import: which line of which feature file holds which image of the dataset.

A survey is made once, before anything is decoded, and is what an import's shards are cut from. It
lies beside the manifests: the feature files may be deleted after the import, this stays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import FormatError
from ..features.formats import FORMATS
from ..features.formats.lines import MAX_LINE, LineReader
from ..features.formats.names import Names
from ..features.formats.row import BadLine, FeatureFormat, columns_of
from .dataset import Dataset, write_table

SCHEMA = pa.schema(
    [
        ("shard", pa.int32()),  # -1 where there is a problem
        ("source", pa.int32()),  # position in the sources
        ("line", pa.int64()),  # from 1
        ("offset", pa.int64()),  # where the line begins, bytes
        ("size", pa.int64()),  # of the line, bytes
        ("mate_offset", pa.int64()),  # the same of its line in the second file; -1: none
        ("mate_size", pa.int64()),
        ("image", pa.int64()),
        ("image_id", pa.string()),  # the dataset's
        ("width", pa.int32()),  # pixels, as --sizes, hw.tsv or images.parquet say; 0: not known
        ("height", pa.int32()),
        ("names", pa.string()),  # hash of the vocabulary its labels are numbered by
        ("problem", pa.string()),  # why the line is not read at all
        ("detail", pa.string()),
    ]
)
_FACTS = b"tonics"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A feature file.

    Attributes:
        path: relative to the dataset folder where it lies in it, else absolute.
        name: as messages name it. bytes, mtime_ns: of the file.
        mate: the second file, as ``path``; "" where there is none, or it is not used.
        mate_stamp: its size and mtime_ns.
        lines: how many it has. matched, ignored: how many by rule, and by reason.
    """

    path: str
    name: str
    bytes: int
    mtime_ns: int
    mate: str = ""
    mate_stamp: tuple[int, int] = (0, 0)
    lines: int = 0
    matched: Mapping[str, int] = field(default_factory=dict)
    ignored: Mapping[str, int] = field(default_factory=dict)

    def same_file(self, other: Source) -> bool:
        """Whether it is the same file, wherever it lies now."""
        here, there = self.stamp(), other.stamp()
        here["name"], there["name"] = Path(self.path).name, Path(other.path).name
        return here == there

    def stamp(self) -> dict[str, Any]:
        """What tells this file from another, for an identity: not where it lies."""
        return {
            "name": self.name,
            "bytes": self.bytes,
            "mtime_ns": self.mtime_ns,
            "mate": list(self.mate_stamp),
        }


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Lines (``SCHEMA``) in the order of the files, and what is true of all of them.

    Attributes:
        format: a key of ``FORMATS``. dim: D, without geometry. names: how labels are numbered.
        options: what else the user asked for, to tell an import that goes on from another one.
    """

    lines: pa.Table
    sources: tuple[Source, ...]
    format: str
    dim: int
    names: Names
    options: Mapping[str, Any]

    @property
    def family(self) -> FeatureFormat:
        """The format itself."""
        return FORMATS[self.format]

    @cached_property
    def used(self) -> pa.Table:
        """The lines that are in shards."""
        return self.lines.filter(pc.greater_equal(self.lines.column("shard"), 0))

    @cached_property
    def refused(self) -> pa.Table:
        """The lines that are not read at all, with their problems."""
        return self.lines.filter(pc.not_equal(self.lines.column("problem"), ""))

    @property
    def num_shards(self) -> int:
        """How many shards there are."""
        return int(self._shards[-1]) + 1 if len(self._shards) else 0

    def shard(self, number: int) -> pa.Table:
        """The lines of a shard; all of one source."""
        start, stop = np.searchsorted(self._shards, [number, number + 1]).tolist()
        return self.used.slice(start, stop - start)

    @cached_property
    def _shards(self) -> np.ndarray:
        found: np.ndarray = self.used.column("shard").to_numpy()
        return found

    def write(self, path: Path) -> None:
        """Write as parquet, atomically."""
        facts = {
            "sources": [asdict(source) for source in self.sources],
            "format": self.format,
            "dim": self.dim,
            "names": self.names.to_json(),
            "options": dict(self.options),
        }
        write_table(path, self.lines.replace_schema_metadata({_FACTS: json.dumps(facts).encode()}))

    @classmethod
    def read(cls, path: Path) -> Survey | None:
        """Read it back; None when there is none.

        Raises:
            FormatError: it is damaged.
        """
        if not path.is_file():
            return None
        try:
            table = pq.read_table(path)
            facts = json.loads(table.schema.metadata[_FACTS])
            sources = [
                Source(**{**s, "mate_stamp": tuple(s["mate_stamp"])}) for s in facts["sources"]
            ]
            return cls(
                lines=table.replace_schema_metadata().cast(SCHEMA),
                sources=tuple(sources),
                format=facts["format"],
                dim=facts["dim"],
                names=Names.from_json(facts["names"]),
                options=facts["options"],
            )
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            do = "import the same files with --replace"
            raise FormatError(path, f"damaged ({error})", do=do) from error


class LineReaders:
    """Reads the lines of a survey from a source and its second file; a context manager."""

    def __init__(self, dataset: Dataset, source: Source) -> None:
        self._file = LineReader(dataset.root / source.path)
        try:
            self._mate = LineReader(dataset.root / source.mate) if source.mate else None
        except OSError:
            self._file.__exit__()
            raise

    def __enter__(self) -> LineReaders:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.__exit__(*error)
        if self._mate is not None:
            self._mate.__exit__(*error)

    def columns(self, line: Mapping[str, Any]) -> tuple[list[bytes], list[bytes] | None]:
        """A line and its mate, as columns."""
        if line["size"] > MAX_LINE:
            raise BadLine("line too long", f"{line['size']} bytes")
        columns = columns_of(self._file.read(line["offset"], line["size"]))
        if self._mate is None or line["mate_offset"] < 0:
            return columns, None
        return columns, columns_of(self._mate.read(line["mate_offset"], line["mate_size"]))
