"""What the commands of all groups share: options, opening the dataset, rows as a table or JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError

if TYPE_CHECKING:
    from .dataset import Dataset

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


def open_dataset(context: typer.Context) -> Dataset:
    """The dataset of the folder that ``-C`` names.

    Raises:
        InputError: there is no such folder, or no dataset in it.
    """
    from .dataset import Dataset

    folder = context.obj
    if not folder.is_dir():
        raise InputError(folder, "no such folder", do="make one with 'tonics init'")
    return Dataset.open(folder)


def print_rows(columns: list[str], rows: list[list[Any]], as_json: bool, legend: str = "") -> None:
    """Print a table with its legend, or the rows as JSON."""
    from .tables import format_json, format_table, rows_as_dicts

    if as_json:
        typer.echo(format_json(rows_as_dicts(columns, rows)))
    else:
        typer.echo(format_table(columns, rows) + (f"\n\n{legend}" if legend else ""))
