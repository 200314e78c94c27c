"""``tonics runs``: what was evaluated, side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import AsJson, open_dataset, print_rows

runs_app = typer.Typer(
    no_args_is_help=True,
    help="Look at evaluated runs, and compare them.\n\n"
    "Example: tonics -C my-dataset runs compare random mixed",
)


@runs_app.command("list")
def runs_list(context: typer.Context, as_json: AsJson = False) -> None:
    """All that was evaluated: retrieval and same-object accuracy, in percent.

    A note says what cannot be held against the others: scored on another query set, in an older
    format, or no longer in tonics.toml.

    Example: tonics -C my-dataset runs list
    """
    from ..artifact import read_json
    from .evaluating.evaluations import evaluations
    from .evaluating.standing import notes_of
    from .results import results_legend, results_rows

    dataset = open_dataset(context)
    known = evaluations(dataset)
    reports = {name: read_json(one.report) for name, one in known.items()}
    columns, rows = results_rows(reports, notes_of(dataset, known.values(), reports))
    print_rows(columns, rows, as_json, results_legend(columns))


@runs_app.command("compare")
def runs_compare(
    context: typer.Context,
    base: Annotated[str, typer.Argument(help="A run, or a pattern: 'random-*'.")],
    others: Annotated[list[str], typer.Argument(help="Runs or patterns to hold against it.")],
    draws: Annotated[int, typer.Option(min=100, help="Bootstrap draws.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Differences of models, with paired bootstrap intervals over the test images.

    Runs of several seeds are pooled by a pattern, and paired by what its star stands for:
    random-0 with mixed-0. Other models are named as in 'runs list': clip-NAME, vectors-NAME.

    Example: tonics -C my-dataset runs compare 'random-*' 'mixed-*'
    """
    from .evaluating.comparing import (
        compare_groups,
        find_group,
        format_comparison,
        legend,
        require_current,
    )
    from .evaluating.evaluations import evaluations
    from .tables import format_json

    dataset = open_dataset(context)
    known = evaluations(dataset)
    first = find_group(base, known)
    groups = [find_group(name, known) for name in others]
    require_current(dataset, [first, *groups])
    found = [compare_groups(first, group, draws=draws, seed=seed) for group in groups]
    if as_json:
        typer.echo(format_json([one.json() for one in found]))
    else:
        typer.echo("\n\n".join([*map(format_comparison, found), legend(found)]))
