"""``tonics features``: features of other programs in, ours out, old stores made new."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError, TooManyRejects
from .options import Quiet, open_dataset

features_app = typer.Typer(
    no_args_is_help=True,
    help="Import features of other programs, export ours.\n\n"
    "Example: tonics -C my-dataset features import imported features.tsv",
)


class Rule(StrEnum):
    """How image ids are matched."""

    auto = "auto"
    id = "id"
    stem = "stem"
    number = "number"


_RULES = {"id": "image id", "stem": "file stem", "number": "number"}

Name = Annotated[str, typer.Argument(help="Name of the feature set in tonics.toml.")]


@features_app.command("import")
def import_(
    context: typer.Context,
    name: Name,
    files: Annotated[
        list[Path], typer.Argument(help="Feature files, or folders with a features.tsv.")
    ],
    kind: Annotated[
        str,
        typer.Option(
            "--format",
            help="auto, scene_graph, oscar, oscar_captioning, bottom_up, lxmert or vinvl_fe.",
        ),
    ] = "auto",
    vocabulary: Annotated[
        Path | None,
        typer.Option(help="Names of labels: VinVL's label map, a vocabulary.json, or a text file."),
    ] = None,
    attributes: Annotated[
        Path | None, typer.Option(help="Names of attributes, where they have a file of their own.")
    ] = None,
    sizes: Annotated[
        Path | None,
        typer.Option(help="An hw.tsv, where the files do not say how large images are."),
    ] = None,
    ids: Annotated[
        Rule, typer.Option(help="How images are recognised; auto tries all, the surest first.")
    ] = Rule.auto,
    append: Annotated[bool, typer.Option(help="Add to what was imported before.")] = False,
    replace: Annotated[bool, typer.Option(help="Forget what was imported before.")] = False,
    workers: Annotated[
        int,
        typer.Option(
            "--workers", "-w", min=0, help="Processes; 0: as in tonics.toml, or a core each."
        ),
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    quiet: Quiet = False,
) -> None:
    """Read features that another program extracted; the files may be deleted afterwards.

    The format is recognised by the first line. An import that was stopped goes on when the same
    command is run again.

    Example: tonics -C my-dataset features import imported predictions.tsv --vocabulary labels.json
    """
    from .build import bring_up
    from .feature_files import Wanted
    from .importing import survey_files, take_back, with_advice
    from .matching import RULES

    if append and replace:
        raise InputError("--append", "together with --replace", expected="one of them")
    wanted = Wanted(
        files=tuple(files),
        format=kind,
        vocabulary=vocabulary,
        attributes=attributes,
        sizes=sizes,
        rules=RULES if ids is Rule.auto else (_RULES[ids.value],),
    )
    stage = survey_files(
        open_dataset(context),
        name,
        wanted,
        append=append,
        replace_all=replace,
        quiet=quiet or as_json,
    )
    try:
        bring_up(
            [stage], rebuild=[], asked=[stage.key], workers=workers, as_json=as_json, quiet=quiet
        )
    except TooManyRejects as error:
        taken_back = append and take_back(stage)
        raise with_advice(error, wanted, taken_back=taken_back) from error


@features_app.command("export")
def export(
    context: typer.Context,
    name: Name,
    folder: Annotated[Path, typer.Argument(help="Where to write; made, or empty.")],
    ids: Annotated[
        str, typer.Option(help="What images are called: id, stem or number (522418 for COCO).")
    ] = "id",
    geometry: Annotated[
        bool, typer.Option(help="Append the six numbers of box geometry: 2048 becomes 2054.")
    ] = True,
    replace: Annotated[bool, typer.Option(help="Replace what is in the folder.")] = False,
) -> None:
    """Write features as Oscar and VinVL's programs read them.

    features.tsv, predictions.tsv, their .lineidx, and imageid2idx.json.

    Example: tonics -C my-dataset features export imported oscar/ --ids number
    """
    from .importing import export_features
    from .tables import size_text

    done = export_features(
        open_dataset(context), name, folder, ids=ids, geometry=geometry, replace_all=replace
    )
    typer.echo(f"wrote {folder}: {done.images:,} images, {size_text(done.bytes)}")


@features_app.command("migrate")
def migrate(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(help="Names in tonics.toml; all when omitted.")
    ] = None,
) -> None:
    """Bring stores that an older tonics wrote up to date, without extracting anything again.

    Example: tonics -C my-dataset features migrate
    """
    from .migrate import migrate_features

    for line in migrate_features(open_dataset(context), names or []):
        typer.echo(line)
