"""Which stages a dataset has, in the order they run, and how a user names them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from ..errors import InputError
from .config import IMPORTED
from .dataset import Dataset
from .stage import Stage


def stages_of(dataset: Dataset) -> dict[str, Stage]:
    """All stages by key, each after the ones it reads from."""
    from .stages.detections import DetectionsStage
    from .stages.embed import EmbedStage
    from .stages.evaluate import EvalStage
    from .stages.extract import ExtractStage
    from .stages.imported import ImportStage
    from .stages.imported_plan import ImportedPlanStage
    from .stages.ingest import IngestStage
    from .stages.ontology import OntologyStage
    from .stages.parse import ParseStage
    from .stages.plan import PlanStage
    from .stages.queries import QueriesStage, SameObjectStage
    from .stages.train import TrainStage

    config = dataset.config
    splits = sorted({run.eval_split for run in config.runs.values()})
    found: list[Stage] = [
        IngestStage(dataset),
        *(
            (ImportStage if one.detector == IMPORTED else ExtractStage)(dataset, name)
            for name, one in config.features.items()
        ),
        *([DetectionsStage(dataset)] if config.features else []),
        ParseStage(dataset),
        OntologyStage(dataset),
        *(EmbedStage(dataset, name) for name in config.embeddings),
        *(
            (ImportedPlanStage if one.curriculum == IMPORTED else PlanStage)(dataset, name)
            for name, one in config.plans.items()
        ),
        *(kind(dataset, split) for split in splits for kind in (QueriesStage, SameObjectStage)),
        *(TrainStage(dataset, name) for name in config.runs),
        *(EvalStage(dataset, name) for name in config.runs),
    ]
    return {stage.key: stage for stage in found}


def choose(stages: dict[str, Stage], wanted: Sequence[str]) -> list[Stage]:
    """Find the stages a user names: a kind (``plan``), a key (``plan/tonics``), or nothing for all.

    Raises:
        InputError: no such stage.
    """
    if not wanted:
        return list(stages.values())
    keys: set[str] = set()
    for name in wanted:
        matching = [k for k, s in stages.items() if name in (k, s.kind)]
        if not matching:
            known = [*dict.fromkeys(s.kind for s in stages.values()), *stages]
            close = difflib.get_close_matches(name, known, 1)
            do = f"did you mean {close[0]!r}?" if close else ""
            raise InputError("stage", repr(name), expected=f"one of {', '.join(stages)}", do=do)
        keys.update(matching)
    return [stage for key, stage in stages.items() if key in keys]


def with_inputs(stages: dict[str, Stage], chosen: Sequence[Stage]) -> list[Stage]:
    """Add everything the chosen stages read from, however far back."""
    keys: set[str] = set()
    waiting = [stage.key for stage in chosen]
    while waiting:
        key = waiting.pop()
        if key not in keys:
            keys.add(key)
            waiting.extend(stages[key].inputs)
    return [stage for key, stage in stages.items() if key in keys]
