"""``tonics plans``: the plans of a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError

if TYPE_CHECKING:
    from .dataset import Dataset

plans_app = typer.Typer(
    no_args_is_help=True,
    help="Look at the plans of a dataset.\n\nExample: tonics -C my-dataset plans list",
)
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@plans_app.command("list")
def plans_list(context: typer.Context, as_json: AsJson = False) -> None:
    """All plans: batches, coverage, how alike their batches are beside random ones.

    Example: tonics -C my-dataset plans list
    """
    from .results import PLANS_LEGEND, plans_rows
    from .tables import format_json, format_table, rows_as_dicts

    columns, rows = plans_rows(_open(context))
    if as_json:
        typer.echo(format_json(rows_as_dicts(columns, rows)))
    else:
        typer.echo(format_table(columns, rows) + "\n\n" + PLANS_LEGEND)


@plans_app.command("compare")
def plans_compare(
    context: typer.Context,
    a: Annotated[str, typer.Argument(help="Name of a plan.")],
    b: Annotated[str, typer.Argument(help="Name of another plan.")],
    as_json: AsJson = False,
) -> None:
    """Two plans: settings that differ, figures side by side, how many batches they share.

    Example: tonics -C my-dataset plans compare random tonics
    """
    from .comparing import compare_plans, format_comparison
    from .show import open_plan
    from .tables import format_json

    dataset = _open(context)
    found = compare_plans(*((name, open_plan(dataset, name)) for name in (a, b)))
    typer.echo(format_json(found) if as_json else format_comparison(found))


def _open(context: typer.Context) -> Dataset:
    from .dataset import Dataset

    folder = context.obj
    if not folder.is_dir():
        raise InputError(folder, "no such folder", do="make one with 'tonics init'")
    return Dataset.open(folder)
