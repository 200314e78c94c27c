"""``tonics eval``: brings stages up to date, then asks models what was wanted."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ...errors import InputError, StaleInput
from ..build import bring_up, require_inputs
from ..dataset import Dataset
from ..graph import choose, stages_of
from ..stage import Stage, manifest_file
from ..tables import format_json
from .answers import answers_text
from .swap_files import column_names, read_swaps
from .wanted import Wanted

if TYPE_CHECKING:
    from ..stages.evaluate import EvalStage
    from ..stages.train import TrainStage
    from .embedders import Embedder
    from .questions import Swaps

A = TypeVar("A")
B = TypeVar("B")


def run_eval(dataset: Dataset, wanted: Wanted, *, as_json: bool, quiet: bool) -> None:
    """Score, and print what came out; questions beyond the stage come after its own lines.

    Files of altered captions are read before any model; one that cannot be used does not keep the
    others from being asked.

    Raises:
        InputError: of such a file, once the others are done.
    """
    asks = bool(wanted.other or wanted.swaps or wanted.eccv)
    wanted.check_runs(dataset)
    columns = column_names(wanted.columns)
    files, problems = _each(wanted.swaps, lambda file: read_swaps(file, columns))
    stages, chosen, own = _choose(dataset, wanted)
    swaps, more = _each(files, lambda file: _find(dataset, file))
    problems += more
    if problems and not swaps:
        _raise(problems)
    with contextlib.redirect_stdout(sys.stderr) if as_json and asks else contextlib.nullcontext():
        _bring_up(stages, chosen, own, as_json=as_json and not asks, quiet=quiet)
    if not asks:
        return
    models, scored = _models(dataset, wanted, chosen)
    answers, more = _ask(dataset, models, swaps, wanted)
    if as_json:
        print(format_json(scored + answers))
    elif scored or answers:
        print("\n" + answers_text(dataset, scored, answers))
    _raise(problems + more)


def evaluate_vectors_alone(wanted: Wanted, *, as_json: bool) -> None:
    """Score vectors without a dataset, and print what came out."""
    from ..results import reports_table
    from .outsiders import score_owned

    assert wanted.embeddings
    assert wanted.owners
    name = wanted.name or "vectors"
    report = {"name": name, **score_owned(wanted.embeddings, wanted.owners)}
    print(format_json([report]) if as_json else reports_table({name: report}))


def _each(ones: Iterable[A], what: Callable[[A], B]) -> tuple[list[B], list[InputError]]:
    """Do something to each that it can be done to; return what came out, and the errors."""
    done, problems = [], []
    for one in ones:
        try:
            done.append(what(one))
        except InputError as error:
            problems.append(error)
    return done, problems


def _raise(problems: Sequence[InputError]) -> None:
    """Raise the last of errors, after a line for each of the others."""
    for problem in problems[:-1]:
        print(f"tonics: {problem}", file=sys.stderr)
    if problems:
        raise problems[-1]


def _choose(dataset: Dataset, wanted: Wanted) -> tuple[dict[str, Stage], list[Stage], list[str]]:
    """All stages; those that are asked for, the runs' or the query sets'; what else is made first.

    Raises:
        StaleInput: they read what is out of date, or a run that is not trained.
    """
    if wanted.other:
        from .outsiders import query_stages

        own, chosen = [], query_stages(dataset, wanted.split or "test")
        stages = {**stages_of(dataset), **{stage.key: stage for stage in chosen}}
    else:
        stages = stages_of(dataset)
        chosen = choose(stages, [f"eval/{name}" for name in wanted.names] or ["eval"])
        for run in _runs(chosen):
            _require_trained(run.train)
        read = {key for stage in chosen for key in stage.inputs}
        own = [key for key in stages if key in read and not key.startswith("train/")]
    require_inputs(stages, chosen, own)
    return stages, chosen, own


def _require_trained(train: TrainStage) -> None:
    from ...train.checkpoint import list_checkpoints

    if manifest_file(train.dataset, train.key).exists():
        return
    found, does = "is not trained yet", "trains it first"
    if saved := list_checkpoints(train.folder / "checkpoints"):
        step = int(saved[-1].name.removeprefix("step-"))
        found, does = f"stopped after step {step:,}, or is still training", "goes on with it"
    where = f"eval/{train.name}"
    raise StaleInput(where, f"run {train.name!r} {found}", do=f"'tonics run {where}' {does}")


def _bring_up(
    stages: dict[str, Stage], chosen: list[Stage], own: list[str], *, as_json: bool, quiet: bool
) -> None:
    asked = [stage.key for stage in chosen]
    needed = choose(stages, [*own, *asked])
    bring_up(needed, rebuild=[], asked=asked, workers=1, as_json=as_json, quiet=quiet)


def _find(dataset: Dataset, file: Any) -> Swaps:
    from .questions import Swaps

    swaps = Swaps.of(dataset, file)
    if not swaps.known:
        found = "none of its true captions is a caption that the dataset has of that image"
        print(f"tonics: {file.path}: {found}; are these the same images?", file=sys.stderr)
    return swaps


def _runs(stages: Sequence[Stage]) -> list[EvalStage]:
    from ..stages.evaluate import EvalStage

    return [stage for stage in stages if isinstance(stage, EvalStage)]


def _models(
    dataset: Dataset, wanted: Wanted, chosen: Sequence[Stage]
) -> tuple[list[Embedder], list[dict[str, Any]]]:
    """What can be asked further questions, and the reports of what is not ours."""
    if wanted.embeddings:
        return [], [_vectors(dataset, wanted)]
    if not wanted.clip:
        from .embedders import RunEmbedder

        return [RunEmbedder(stage) for stage in _runs(chosen)], []
    from .embedders import ClipEmbedder
    from .outsiders import evaluate_clip

    model = ClipEmbedder(dataset, wanted.clip, wanted.split or "test")
    return [model], [{"name": model.evaluation.name, **evaluate_clip(model)}]


def _vectors(dataset: Dataset, wanted: Wanted) -> dict[str, Any]:
    from .outsiders import evaluate_vectors

    assert wanted.embeddings
    one, report = evaluate_vectors(
        dataset,
        wanted.split or "test",
        wanted.embeddings,
        wanted.name or "vectors",
        wanted.image_ids,
        wanted.pair_keys,
    )
    return {"name": one.name, **report}


def _ask(
    dataset: Dataset, models: Sequence[Embedder], swaps: Sequence[Swaps], wanted: Wanted
) -> tuple[list[dict[str, Any]], list[InputError]]:
    """Reports of further questions, and what could not be asked."""
    if not models or not (swaps or wanted.eccv):
        return [], []
    from .questions import ask_eccv, ask_swaps

    found: list[dict[str, Any]] = []
    problems: list[InputError] = []
    for model in models:
        asked, more = _each(swaps, partial(ask_swaps, model))
        richer, missing = _each(
            [wanted.eccv] if wanted.eccv else [], partial(ask_eccv, dataset, model)
        )
        problems += more + missing
        found += [{"name": model.evaluation.name, **report} for report in asked + richer]
    return found, problems
