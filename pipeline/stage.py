"""What a stage is: a function of its settings and inputs on disk to one artefact, by shards.

A stage says which shards it has (``shards``), what decides each one's content (``identity``),
makes one (``make``), and joins them (``merge``). Everything else - finding what is stale and why,
resuming, parallel work, manifests, rejects, locks - is done once for all of them in ``runner.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from ..artifact import Manifest
from ..errors import StaleInput, TooManyRejects
from .dataset import REJECTED_SCHEMA, Dataset, write_table
from .progress import Advance


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A piece of a stage's work, small enough to lose and large enough to be worth a file.

    Attributes:
        name: file-name safe, such as ``00012``.
        rows: how many inputs it covers, for progress and estimates.
        work: what ``make`` needs to know, small and picklable.
    """

    name: str
    rows: int
    work: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """An input that could not be used."""

    where: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What making a shard (or merging a stage) gave.

    Attributes:
        outputs: finished files. rows: how many inputs are in them.
        rejected: inputs left out, with the reason. ignored: inputs that do not concern this
            dataset.
        counts: whatever else a reader of ``tonics status`` would like to know.
    """

    outputs: Sequence[Path] = ()
    rows: int = 0
    rejected: Sequence[Reject] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What an input row costs where nothing was measured yet: CPU-seconds and bytes on disk."""

    cpu_s: float
    bytes: float


class Stage:
    """The contract; an instance is small and may be sent to another process.

    Attributes:
        kind: the command that runs it: ``extract``. key: ``extract/grid``, kind and name.
        format: raised when the same inputs and settings would give other files; part of every
            shard's identity.
        max_rejected: the share of inputs it may reject before it stops with an error.
        renewable: identity keys that may change without asking; None means all. A change of any
            other key would throw finished work away, and needs ``--rebuild``.
        estimate: what a row costs where nothing was measured yet.
        parallel: whether several processes may make its shards.
        unit: what its inputs are called where progress is shown.
        uses_device: whether it computes on a GPU where there is one.
        anew: shards are made even if they are finished: a rebuild.
        advance: ``make`` may call it with the inputs that are done, and rejected, since the last
            call; the sums need not be exact, what ``make`` returns is.
    """

    kind: ClassVar[str]
    format: ClassVar[int] = 1
    renewable: ClassVar[frozenset[str] | None] = None
    estimate: ClassVar[Estimate] = Estimate(cpu_s=0.0, bytes=0.0)
    parallel: ClassVar[bool] = True
    unit: ClassVar[str] = "rows"
    uses_device: ClassVar[bool] = False
    max_rejected: float = 1.0

    def __init__(self, dataset: Dataset, name: str = "") -> None:
        self.dataset, self.name, self.anew = dataset, name, False
        self.advance: Advance = lambda rows, rejected: None

    def __getstate__(self) -> dict[str, Any]:
        kept = ("dataset", "name", "anew")  # caches stay behind
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        anew = state.pop("anew")
        self.__init__(**state)  # type: ignore[misc]
        self.anew = anew

    @property
    def key(self) -> str:
        """Kind and name."""
        return f"{self.kind}/{self.name}" if self.name else self.kind

    @property
    def inputs(self) -> tuple[str, ...]:
        """Keys of the stages it reads from."""
        return ()

    @property
    def waits_for(self) -> str:
        """The command that must bring what it is made of, while it was never given; or nothing."""
        return ""

    @property
    def folder(self) -> Path:
        """Where its shards lie."""
        raise NotImplementedError

    @property
    def places(self) -> tuple[Path, ...]:
        """Files and folders it writes; what a killed run left of them is cleaned up."""
        return (self.folder,)

    def check(self) -> None:
        """Refuse settings that cannot work, before any stage of a run begins.

        Raises:
            ConfigError: naming key, value and what is allowed.
        """

    def shards(self) -> list[Shard]:
        """All shards, in order, as the inputs now on disk demand them."""
        return [Shard(name="all", rows=1)]

    def identity(self, shard: Shard) -> dict[str, Any]:
        """Everything that decides the shard's content, by name, JSON values only."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Load what ``make`` needs, once a process, so that what is missing shows in time.

        An older shard is still whole at that moment; from ``make`` on it counts no more.
        """

    def make(self, shard: Shard) -> Made:
        """Make one shard, atomically; called in any process, in any order."""
        raise NotImplementedError

    def begun(self) -> str:
        """How far a shard is that was stopped and will go on; empty where it begins anew."""
        return ""

    def tells_of_cost(self, made: Manifest) -> bool:
        """Whether what a finished shard cost says what the next ones will."""
        return True

    def merge_identity(self) -> dict[str, Any]:
        """What decides the merged files beyond the shards themselves."""
        return {}

    def merge(self, shards: Sequence[Manifest]) -> Made:
        """Join the finished shards: write the files that speak of all of them."""
        return Made()

    def irreplaceable(self, shard: str) -> str:
        """Say why a finished shard (``stage``: what was merged) could not be made again, if so."""
        return ""

    def discard(self) -> None:
        """Drop whatever would carry over into a rebuild (``--rebuild``); usually nothing."""


def manifest_file(dataset: Dataset, key: str, shard: str = "stage") -> Path:
    """Where the manifest of a shard, or of the whole stage, lies."""
    return dataset.state / "manifests" / key / f"{shard}.json"


def shard_manifests(dataset: Dataset, key: str) -> list[Manifest]:
    """The manifests of a stage's finished shards, by name; those that cannot be read are not."""
    files = sorted(manifest_file(dataset, key).parent.glob("*.json"))
    made = (Manifest.read(file) for file in files if file.stem != "stage")
    return [manifest for manifest in made if manifest is not None]


def require_done(dataset: Dataset, key: str) -> Manifest:
    """The manifest of a stage that must be finished before another reads from it.

    Raises:
        StaleInput: it is not.
    """
    merged = Manifest.read(manifest_file(dataset, key))
    if merged is None:
        do = f"run 'tonics {key.replace('/', ' ')}' first, or 'tonics run' for everything"
        raise StaleInput(key, "has not been made yet", do=do)
    return merged


def rejected_file(dataset: Dataset, key: str, shard: str) -> Path:
    """Where a shard's rejected inputs lie."""
    return dataset.rejected / f"{key.replace('/', '-')}-{shard}.parquet"


def write_rejects(dataset: Dataset, key: str, shard: str, rejects: Sequence[Reject]) -> list[Path]:
    """Keep what a shard rejected; no file when there is nothing to keep."""
    path = rejected_file(dataset, key, shard)
    if not rejects:
        path.unlink(missing_ok=True)
        return []
    columns = {
        "stage": [key] * len(rejects),
        "where": [_utf8(r.where) for r in rejects],
        "reason": [r.reason for r in rejects],
        "detail": [_utf8(r.detail) for r in rejects],
    }
    write_table(path, pa.table(columns, schema=REJECTED_SCHEMA))
    return [path]


def _utf8(text: str) -> str:
    """Write bytes that are not UTF-8 as escapes, so that any text can be kept."""
    return text.encode("utf-8", "backslashreplace").decode()


def by_reason(rejects: Iterable[Reject]) -> dict[str, int]:
    """Count rejects by reason, the most frequent first."""
    counts = Counter(r.reason for r in rejects)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def add_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add up counts by reason.

    >>> add_counts([{"a": 1}, {"a": 2, "b": 1}])
    {'a': 3, 'b': 1}
    """
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def check_rejects(stage: Stage, rows: int, reasons: Mapping[str, int]) -> None:
    """Stop a stage that rejects more than its share.

    Raises:
        TooManyRejects: with the counts by reason, and where the inputs are listed.
    """
    count = sum(reasons.values())
    if count > stage.max_rejected * rows:
        listed = ", ".join(f"{n:,} {reason}" for reason, n in reasons.items())
        raise TooManyRejects(
            stage.key,
            f"rejected {count:,} of {rows:,} inputs ({listed})",
            expected=f"at most {stage.max_rejected:.0%}",
            do=f"see 'tonics show rejected {stage.kind}'; mend the inputs, or raise max_rejected",
        )


def row_shards(rows: int, size: int) -> list[Shard]:
    """Cut rows ``0..rows`` into shards of ``size``; the work of each is its (start, stop).

    >>> [(s.name, s.work) for s in row_shards(5, 2)]
    [('00000', (0, 2)), ('00001', (2, 4)), ('00002', (4, 5))]
    """
    return [
        Shard(name=f"{i:05d}", rows=min(size, rows - start), work=(start, min(start + size, rows)))
        for i, start in enumerate(range(0, rows, size))
    ]
