"""What was evaluated: runs, and what others bring; where their reports and results lie."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...artifact import read_json, write_json
from ...errors import InputError
from ..dataset import Dataset, read_table, write_table

if TYPE_CHECKING:
    import pyarrow as pa

    from ...train.evaluation import Scores

EVAL_FORMAT = "tonics-eval"
_ENDS = {"report": ".json", "results": ".parquet"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A run, or a model that is not ours, and where its scores are.

    Attributes:
        report: the scores, a JSON file. results: a row a caption, a parquet file.
        again: how it is scored again, for messages.
    """

    name: str
    report: Path
    results: Path
    again: str

    @classmethod
    def of_run(cls, dataset: Dataset, name: str) -> Evaluation:
        """Name the files of a run."""
        folder = dataset.run(name)
        again = f"run 'tonics eval {name}' again"
        if name not in dataset.config.runs:
            again = "it cannot be scored again, for tonics.toml does not name it any more"
        files = {"report": folder / "eval.json", "results": folder / "eval.parquet"}
        return cls(name=name, again=again, **files)

    @classmethod
    def of_other(cls, dataset: Dataset, name: str) -> Evaluation:
        """Name the files of a model that is not ours."""
        option = "--clip" if name.startswith("clip-") else "--embeddings"
        again = f"score it again with 'tonics eval {option}'"
        files = {k: dataset.evaluation / f"{name}{end}" for k, end in _ENDS.items()}
        return cls(name=name, again=again, **files)

    @property
    def is_run(self) -> bool:
        """Whether it is a run of ours."""
        return self.report.name == "eval.json"

    def extra(self, what: str) -> Path:
        """Where the answers to a further question lie."""
        name = what if self.is_run else f"{self.name}.{what}"
        return self.report.with_name(f"{name}.json")

    def read_results(self) -> pa.Table:
        """How every query went.

        Raises:
            InputError: it was evaluated before results were kept.
        """
        from ...train.evaluation.scoring import RESULTS_SCHEMA

        if not self.results.exists():
            found = "has no results of single queries beside it"
            raise InputError(self.report, found, do=self.again)
        return read_table(self.results, RESULTS_SCHEMA)

    def read_report(self) -> dict[str, Any]:
        """The scores."""
        found: dict[str, Any] = read_json(self.report)
        return found

    def write(
        self, scores: Scores, *, split: str, queries: pa.Table, made: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Write report and results; return the report.

        Args:
            queries: the whole query set, with those that could not be asked.
        """
        from ...train.evaluation.queries import queries_hash
        from ...train.evaluation.scoring import EVAL_VERSION

        head = {"format": EVAL_FORMAT, "version": EVAL_VERSION, "split": split}
        report = {**head, "queries": queries_hash(queries), **made, **scores.report}
        write_table(self.results, scores.results)
        write_json(self.report, report)
        return report


def evaluations(dataset: Dataset) -> dict[str, Evaluation]:
    """Everything that has been evaluated, by name: runs first."""
    files = sorted((dataset.root / "runs").glob("*/eval.json"))
    runs = [Evaluation.of_run(dataset, file.parent.name) for file in files]
    return {one.name: one for one in [*runs, *others(dataset)]}


def others(dataset: Dataset) -> list[Evaluation]:
    """Models that are not ours."""
    files = sorted(dataset.evaluation.glob("*.json"))
    files = [file for file in files if read_json(file).get("format") == EVAL_FORMAT]
    return [Evaluation.of_other(dataset, file.stem) for file in files]


def outdated(dataset: Dataset, found: Iterable[Evaluation]) -> list[str]:
    """Name those whose queries are not today's query set of their split."""
    reports = {one.name: one.read_report() for one in found}
    today = {s: _hash_today(dataset, s) for s in {str(r.get("split")) for r in reports.values()}}
    return [
        name
        for name, report in reports.items()
        if not report.get("queries") or report["queries"] != today[str(report.get("split"))]
    ]


def _hash_today(dataset: Dataset, split: str) -> str:
    from ...train.evaluation.queries import QUERIES_SCHEMA, queries_hash

    file = dataset.evaluation / f"{split}.parquet"
    return queries_hash(read_table(file, QUERIES_SCHEMA)) if file.exists() else ""


def other_name(kind: str, name: str) -> str:
    """Name an evaluation after a model: a folder or a hub name.

    >>> other_name("clip", "openai/clip-vit-base-patch32")
    'clip-vit-base-patch32'
    """
    last = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(name).name).strip("-") or "model"
    return last if last.startswith(f"{kind}-") else f"{kind}-{last}"
