"""``tonics plans``: the plans of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import AsJson, Quiet, open_dataset, print_rows

plans_app = typer.Typer(
    no_args_is_help=True,
    help="Look at the plans of a dataset, compare, export and import them.\n\n"
    "Example: tonics -C my-dataset plans list",
)


@plans_app.command("list")
def plans_list(context: typer.Context, as_json: AsJson = False) -> None:
    """All plans: batches, coverage, how alike their batches are beside random ones.

    Example: tonics -C my-dataset plans list
    """
    from .results import PLANS_LEGEND, plans_rows

    print_rows(*plans_rows(open_dataset(context)), as_json, PLANS_LEGEND)


@plans_app.command("compare")
def plans_compare(
    context: typer.Context,
    a: Annotated[str, typer.Argument(help="Name of a plan.")],
    b: Annotated[str, typer.Argument(help="Name of another plan.")],
    as_json: AsJson = False,
) -> None:
    """Two plans: settings that differ, figures side by side, how many batches they share.

    Example: tonics -C my-dataset plans compare random mixed
    """
    from .comparing import compare_plans, format_comparison
    from .show import open_plan
    from .tables import format_json

    dataset = open_dataset(context)
    found = compare_plans(*((name, open_plan(dataset, name)) for name in (a, b)))
    typer.echo(format_json(found) if as_json else format_comparison(found))


@plans_app.command("export")
def plans_export(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the plan.")],
    file: Annotated[Path, typer.Argument(help="The .parquet file to write.")],
    epochs: Annotated[
        bool, typer.Option("--epochs", help="Add a column epoch, which import reads.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite that file.")] = False,
) -> None:
    """Write a plan as a table that needs no TOnICS: batch, position, pair_key, image_id.

    A row a pair, in training order; what the plan is stands in the file's metadata.

    Example: tonics -C my-dataset plans export mixed batches.parquet
    """
    from .plan_exchange import export_plan
    from .tables import size_text

    done = export_plan(open_dataset(context), name, file, force=force, epochs=epochs)
    size = size_text(done.bytes)
    typer.echo(f"wrote {file}: {done.batches:,} batches, {done.rows:,} rows, {size}")


@plans_app.command("import")
def plans_import(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the plan in tonics.toml.")],
    file: Annotated[Path, typer.Argument(help="A .parquet file with a row a pair.")],
    drop_conflicts: Annotated[
        bool,
        typer.Option(
            "--drop-conflicts", help="Leave out batches with an image or a caption twice."
        ),
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Forget what was imported before.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Make a plan of batches that somebody else decided; the file may be deleted afterwards.

    It needs the columns batch (whole numbers, ascending in training order) and pair_key, and may
    have position (else rows of a batch are in order), image_id (then checked) and epoch. In
    tonics.toml the plan has curriculum = "import" and the batch_size of the file. Pairs must be
    eligible, as in any plan.

    Example: tonics -C my-dataset plans import theirs batches.parquet
    """
    from .build import bring_up
    from .plan_exchange import import_batches

    stage = import_batches(
        open_dataset(context), name, file, drop_conflicts=drop_conflicts, replace_all=replace
    )
    bring_up(
        [stage],
        rebuild=[],
        asked=[stage.key],
        workers=1,
        as_json=as_json,
        quiet=quiet,
        tables=True,
    )
