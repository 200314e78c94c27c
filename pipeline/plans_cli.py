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


def _open(context: typer.Context) -> Dataset:
    from .dataset import Dataset

    folder = context.obj
    if not folder.is_dir():
        raise InputError(folder, "no such folder", do="make one with 'tonics init'")
    return Dataset.open(folder)
