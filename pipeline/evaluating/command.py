"""``tonics eval``: brings stages up to date, then asks models what was wanted."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ..build import bring_up, require_inputs
from ..dataset import Dataset
from ..graph import choose, stages_of
from ..results import results_table
from ..stage import Stage
from ..tables import format_json, format_table
from .swap_files import column_names

if TYPE_CHECKING:
    from .embedders import Embedder

_SWAPS = ("rows", "captions", "altered", "accuracy", "chance", "beaten", "margin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be scored, and on what.

    Attributes:
        names: runs; none: all. clip: a CLIP model instead. embeddings: files of vectors instead.
        split: of the query set for those two. name: what to call the vectors.
        image_ids, pair_keys: files that name the vectors' rows.
        swaps: files of altered captions. columns: ``caption=title``. eccv: COCO's caption file.
    """

    names: Sequence[str] = ()
    clip: str = ""
    embeddings: tuple[Path, Path] | None = None
    split: str = "test"
    name: str = "vectors"
    image_ids: Path | None = None
    pair_keys: Path | None = None
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
            InputError: two models at once, or questions to vectors.
        """
        if self.clip and self.embeddings:
            raise InputError("eval", "--clip and --embeddings", expected="one of them")
        if self.other and self.names:
            found = f"runs {', '.join(self.names)} beside --clip or --embeddings"
            raise InputError("eval", found, expected="runs, or another model")
        if self.embeddings and (self.swaps or self.eccv):
            found = "--swaps and --eccv ask a model, and vectors are none"
            raise InputError("eval", found, expected="a run, or --clip")
        if (self.image_ids or self.pair_keys) and not self.embeddings:
            raise InputError("eval", "--image-ids, --pair-keys without --embeddings")


def run_eval(dataset: Dataset, wanted: Wanted, *, as_json: bool, quiet: bool) -> None:
    """Score, and print what came out; questions beyond the stage come after its own lines."""
    asks = bool(wanted.other or wanted.swaps or wanted.eccv)
    columns = column_names(wanted.columns)
    with contextlib.redirect_stdout(sys.stderr) if as_json and asks else contextlib.nullcontext():
        stages = _bring_up(dataset, wanted, as_json=as_json and not asks, quiet=quiet)
    if not asks:
        return
    scored: list[dict[str, Any]] = []
    models: list[Embedder] = []
    if wanted.embeddings:
        scored.append(_vectors(dataset, wanted, wanted.embeddings))
    elif wanted.clip:
        model, report = _clip(dataset, wanted)
        models, scored = [model], [report]
    else:
        models = _runs(stages)
    answers = [_ask(dataset, model, wanted, columns) for model in models]
    if as_json:
        print(format_json(scored + [a for asked in answers for a in asked]))
    else:
        _print(dataset, scored, [a for asked in answers for a in asked])


def evaluate_vectors_alone(files: tuple[Path, Path], owners: Path) -> None:
    """Score vectors without a dataset, and print the report as JSON."""
    from .outsiders import score_owned

    print(format_json(score_owned(files, owners)))


def _bring_up(dataset: Dataset, wanted: Wanted, *, as_json: bool, quiet: bool) -> list[Stage]:
    """Bring the stages up to date that are read; the runs' own, or just the query sets."""
    if wanted.other:
        from .outsiders import query_stages

        own, chosen = [], query_stages(dataset, wanted.split)
        stages = {**stages_of(dataset), **{stage.key: stage for stage in chosen}}
    else:
        stages = stages_of(dataset)
        chosen = choose(stages, [f"eval/{name}" for name in wanted.names] or ["eval"])
        read = {key for stage in chosen for key in stage.inputs}
        own = [key for key in stages if key in read and not key.startswith("train/")]
    require_inputs(stages, chosen, own)
    bring_up(
        choose(stages, [*own, *(stage.key for stage in chosen)]),
        rebuild=[],
        asked=[stage.key for stage in chosen],
        workers=1,
        as_json=as_json,
        quiet=quiet,
    )
    return chosen


def _runs(stages: Sequence[Stage]) -> list[Embedder]:
    from ..stages.evaluate import EvalStage
    from .embedders import RunEmbedder

    return [RunEmbedder(stage) for stage in stages if isinstance(stage, EvalStage)]


def _clip(dataset: Dataset, wanted: Wanted) -> tuple[Embedder, dict[str, Any]]:
    from .embedders import ClipEmbedder
    from .outsiders import evaluate_clip

    model = ClipEmbedder(dataset, wanted.clip, wanted.split)
    report = evaluate_clip(model)
    return model, {"name": model.evaluation.name, **report}


def _vectors(dataset: Dataset, wanted: Wanted, files: tuple[Path, Path]) -> dict[str, Any]:
    from .outsiders import evaluate_vectors

    named = (wanted.image_ids, wanted.pair_keys)
    one, report = evaluate_vectors(dataset, wanted.split, files, wanted.name, *named)
    return {"name": one.name, **report}


def _ask(
    dataset: Dataset, model: Embedder, wanted: Wanted, columns: dict[str, str]
) -> list[dict[str, Any]]:
    from .questions import ask_eccv, ask_swaps

    found = [ask_swaps(dataset, model, file, columns) for file in wanted.swaps]
    found += [ask_eccv(dataset, model, wanted.eccv)] if wanted.eccv else []
    return [{"name": model.evaluation.name, **report} for report in found]


def _print(
    dataset: Dataset, scored: Sequence[dict[str, Any]], answers: Sequence[dict[str, Any]]
) -> None:
    """Print tables: all that is evaluated when something new is, and the answers by kind."""
    parts = []
    for report in scored:
        parts += [f"{report['name']}: {note}" for note in _notes(report)]
        parts.append(results_table(dataset, list(dataset.config.runs)))
    if swaps := [a for a in answers if a["format"] == "tonics-swaps"]:
        rows = [[a["name"], a["file"], *(a[column] for column in _SWAPS)] for a in swaps]
        parts.append(format_table(["model", "file", *_SWAPS], rows))
        parts += [f"{a['name']}: {note}" for a in swaps for note in _swap_notes(a)]
    for answer in (a for a in answers if a["format"] == "tonics-eccv"):
        rows = [[k, v["i2t"], v["t2i"]] for k, v in answer.items() if isinstance(v, dict)]
        parts.append(format_table([answer["name"], "i2t", "t2i"], rows))
    print("\n" + "\n\n".join(parts))


def _notes(report: dict[str, Any]) -> list[str]:
    """What was left out of the scores of a model that reads images and captions itself."""
    rejected = report.get("rejected_images", {})
    found = [f"{n:,} images rejected ({reason})" for reason, n in rejected.items()]
    if report.get("captions_left_out"):
        found.append(f"{report['captions_left_out']:,} captions left out with them")
    if report.get("truncated_captions"):
        found.append(f"{report['truncated_captions']:,} captions were cut off")
    return ["; ".join(found)] if found else []


def _swap_notes(answer: dict[str, Any]) -> list[str]:
    counts = {
        "without an altered caption": "not_altered",
        "of images that are not in the dataset": "not_in_dataset",
        "of images that cannot be embedded": "not_usable",
    }
    found = [f"{answer[key]:,} rows {what}" for what, key in counts.items() if answer[key]]
    return ["; ".join(found)] if found else []
