"""The command line: parses what the user typed, calls the room that does it, prints the answer.

Exit codes: 0 done, 1 failed, 2 the user's input was wrong, 130 interrupted. Whatever goes wrong for
a reason the user can act on is one line on standard error.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import __version__
from ..errors import TonicsError
from .asking import Format
from .eval_cli import eval_command
from .features_cli import features_app
from .options import AsJson, Quiet, open_dataset
from .plans_cli import plans_app
from .runs_cli import runs_app

app = typer.Typer(
    name="tonics",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Decide beforehand which image-caption pairs share a minibatch.\n\n"
    "A dataset is a folder with a tonics.toml; 'tonics init' writes one, 'tonics run' builds it."
    "\n\nExample: tonics -C my-dataset run",
)
show_app = typer.Typer(
    no_args_is_help=True,
    help="Show one object, batch or image.\n\nExample: tonics -C my-dataset show object dog",
)
app.add_typer(plans_app, name="plans")
app.add_typer(runs_app, name="runs")
app.add_typer(show_app, name="show")
app.add_typer(features_app, name="features")


Names = Annotated[list[str] | None, typer.Argument(help="Names in tonics.toml; all when omitted.")]
Workers = Annotated[
    int,
    typer.Option("--workers", "-w", min=0, help="Processes; 0: as in tonics.toml, or a core each."),
]


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    folder: Annotated[Path, typer.Option("-C", help="The dataset folder.", metavar="DIR")] = Path(),
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Keep the dataset folder for the command."""
    if version:
        typer.echo(f"tonics {__version__}")
        raise typer.Exit
    context.obj = folder


def main() -> None:
    """Run the command line; the only place where errors become exit codes."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        app()
    except TonicsError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except Interrupted:
        _complain("interrupted; what is finished is kept, run the same command again to go on")
        sys.exit(130)


class Interrupted(BaseException):
    """Ctrl-C or a polite kill; not KeyboardInterrupt, which typer would answer itself."""


def _interrupt(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    raise Interrupted


def _complain(message: str) -> None:
    print(f"tonics: {message}", file=sys.stderr)


# -- making a dataset ------------------------------------------------------------------------------


@app.command(rich_help_panel="Start")
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to put it.")] = Path("tonics-demo"),
    scenes: Annotated[int, typer.Option(min=20, help="How many images to compose.")] = 1500,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other scenes.")] = 0,
    stamps: Annotated[Path | None, typer.Option(help="Folder of the stamps' photographs.")] = None,
    workers: Workers = 0,
    quiet: Quiet = False,
) -> None:
    """Build, train and evaluate on a small offline dataset.

    Composes scenes from photographs of Debian's tuxpaint-stamps-default, captions them, and runs
    every stage. Run it again and it continues where it stopped.

    Example: tonics demo /tmp/demo --scenes 600
    """
    from .demo_run import run_demo

    run_demo(folder, scenes=scenes, seed=seed, stamps=stamps, workers=workers, quiet=quiet)


@app.command(rich_help_panel="Start")
def init(
    folder: Annotated[Path, typer.Argument(help="The dataset folder; made when absent.")],
    images: Annotated[
        Path | None, typer.Option(help="The folder your photos are in; not needed for tars.")
    ] = None,
    captions: Annotated[
        list[Path] | None,
        typer.Option(help="A caption file, or a folder of tars or parquet tables; repeatable."),
    ] = None,
    source_format: Annotated[
        str,
        typer.Option(
            "--format",
            help="auto, coco, karpathy, flickr, conceptual, csv, tsv, jsonl, parquet, webdataset.",
        ),
    ] = "auto",
    features_only: Annotated[
        bool, typer.Option("--features-only", help="You have features, and no images.")
    ] = False,
    column: Annotated[
        list[str] | None, typer.Option(help="caption=title: what your columns are called.")
    ] = None,
    val: Annotated[
        float, typer.Option(min=0, max=1, help="Share of images for validation.")
    ] = 0.05,
    test: Annotated[float, typer.Option(min=0, max=1, help="Share of images for testing.")] = 0.1,
    batch_size: Annotated[int, typer.Option(min=2, help="Pairs in a minibatch.")] = 128,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each plan.")] = 10,
) -> None:
    """Write a commented tonics.toml to start from.

    Example: tonics init flickr --images photos/ --captions captions.csv --column caption=text
    """
    from .init import init_dataset

    path = init_dataset(
        folder,
        images=images,
        captions=captions or [],
        source_format=source_format,
        columns=column or [],
        features_only=features_only,
        val=val,
        test=test,
        batch_size=batch_size,
        epochs=epochs,
    )
    then = ["ingest", "features import imported FILE"] if features_only else ["run -n"]
    commands = ", and ".join(f"tonics -C {folder} {command}" for command in then)
    typer.echo(f"wrote {path}; look at it, then: {commands}")


@app.command(rich_help_panel="Start")
def assets(
    source: Annotated[
        list[Path] | None, typer.Option("--from", help="An unpacked Debian tree to take from.")
    ] = None,
    offline: Annotated[bool, typer.Option(help="Do not ask nltk's downloader.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make WordNet available, and say which models and photographs are here.

    Example: tonics assets --from ~/debian-packages
    """
    from dataclasses import asdict

    from .assets import check_assets
    from .tables import format_json

    found = check_assets(sources=source or [], download=not offline)
    if as_json:
        typer.echo(format_json([asdict(asset) for asset in found]))
    for asset in [] if as_json else found:
        state = asset.found or f"MISSING, needed for {asset.needed_for}: {asset.get}"
        typer.echo(f"{asset.name:<20} {state}")
    if not found[0].found:
        raise typer.Exit(1)


@app.command(rich_help_panel="Start")
def run(
    context: typer.Context,
    stage: Annotated[
        list[str] | None, typer.Argument(help="Stages to bring up to date, with their inputs.")
    ] = None,
    dry: Annotated[bool, typer.Option("-n", "--dry-run", help="Only say what would run.")] = False,
    rebuild: Annotated[
        list[str] | None, typer.Option(help="Make a stage anew; repeatable.", metavar="STAGE")
    ] = None,
    workers: Workers = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Bring stages up to date: everything, or the named ones with all they read from.

    A stage is a kind (plan) or one of its names (plan/mixed). A run that was stopped goes on.

    Example: tonics -C my-dataset run -n
    """
    from .build import bring_up, print_forecast
    from .graph import choose, stages_of, with_inputs

    dataset = open_dataset(context)
    stages = stages_of(dataset)
    anew = choose(stages, rebuild) if rebuild else []
    chosen = with_inputs(stages, [*choose(stages, stage or []), *anew])
    if dry:
        waiting = [one for one in chosen if one.waits_for]
        for one in chosen:
            if one not in waiting:
                one.check()
        print_forecast(dataset, chosen, [s.key for s in anew], as_json, workers)
        for one in waiting:
            typer.echo(f"{one.key} waits for '{one.waits_for}'", err=as_json)
        return
    bring_up(
        chosen,
        rebuild=[s.key for s in anew],
        asked=stage or [],
        workers=workers,
        as_json=as_json,
        quiet=quiet,
    )


# -- single stages
# -----------------------------------------------------------------------------------


def _stage_command(kind: str, text: str, example: str) -> None:
    def command(
        context: typer.Context,
        names: Names = None,
        workers: Workers = 0,
        shards: str = typer.Option(
            "",
            hidden=kind not in ("extract", "parse", "embed"),
            metavar="K/N",
            help="Only every N-th shard from the K-th on, without finishing the stage.",
        ),
        as_json: AsJson = False,
        quiet: Quiet = False,
    ) -> None:
        from .build import bring_up, make_parts, require_inputs
        from .graph import choose, stages_of
        from .together import together

        stages = stages_of(open_dataset(context))
        keys = [f"{kind}/{name}" for name in names or []] or [kind]
        with together(choose(stages, keys) if kind == "train" else []) as leads:
            if not leads:
                return
            require_inputs(stages, choose(stages, keys), [])
            if shards:
                chosen = choose(stages, keys)
                make_parts(chosen, shards, workers=workers, as_json=as_json, quiet=quiet)
                return
            bring_up(
                choose(stages, keys),
                rebuild=[],
                asked=keys,
                workers=workers,
                as_json=as_json,
                quiet=quiet,
                tables=kind == "plan",
            )

    command.__doc__ = f"{text}\n\nExample: tonics -C my-dataset {example}"
    app.command(name=kind, rich_help_panel="Stages")(command)


_stage_command("ingest", "Read caption files and image headers into tables.", "ingest")
_stage_command("extract", "Turn images into region features.", "extract grid")
_stage_command("detections", "List what detectors saw, detections.duckdb.", "detections")
_stage_command("parse", "Find the nouns of every caption.", "parse")
_stage_command("ontology", "Build the object ontology, ontology.duckdb.", "ontology")
_stage_command("embed", "Turn captions into vectors.", "embed captions")
_stage_command("plan", "Decide the minibatches.", "plan mixed")
_stage_command(
    "train",
    "Train a dual encoder on a plan.\n\nSeveral processes share every batch where torchrun starts "
    "them: torchrun --nproc-per-node 2 --no-python tonics -C my-dataset train mixed",
    "train mixed",
)
app.command(name="eval", rich_help_panel="Stages")(eval_command)


@app.command(rich_help_panel="Stages")
def pack(
    context: typer.Context,
    plan: Annotated[str, typer.Argument(help="Name of the plan.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The folder to write; shards/PLAN when omitted."),
    ] = None,
    ranks: Annotated[
        int, typer.Option(min=1, help="Tars for each of so many ranks, of its rows.", metavar="W")
    ] = 1,
    shard_bytes: Annotated[
        int, typer.Option(min=1, help="The most bytes of a tar; a large batch may need more.")
    ] = 1_000_000_000,
    force: Annotated[bool, typer.Option("--force", help="Replace a pack that is there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write a plan as webdataset tars, a sample a batch; see docs/packs.md.

    It says first how many bytes that will be, and refuses when the disk has no room for them. An
    image is stored once a tar, and again in the next: larger tars make a smaller pack.

    Example: tonics -C my-dataset pack mixed --ranks 2 --output /data/mixed
    """
    from .packing import pack_plan

    done = pack_plan(
        open_dataset(context),
        plan,
        output=output,
        ranks=ranks,
        shard_bytes=shard_bytes,
        force=force,
        quiet=quiet,
        tell=typer.echo,
    )
    typer.echo(f"wrote {done.folder}")


# -- looking at a dataset
# ----------------------------------------------------------------------------


@app.command(rich_help_panel="Look")
def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Say where every stage stands.

    Example: tonics -C my-dataset status
    """
    from .status import dataset_status
    from .tables import format_json, format_table

    rows = dataset_status(open_dataset(context))
    if as_json:
        typer.echo(format_json(rows))
        return
    shown = [[r["stage"], r["state"], r["in"], r["out"], r["rejected"], r["why"]] for r in rows]
    typer.echo(format_table(["stage", "state", "in", "out", "rejected", "why"], shown))


@app.command(rich_help_panel="Look")
def verify(context: typer.Context) -> None:
    """Re-read every file and compare it with its hash; delete what is damaged, for 'run' to make.

    What cannot be made again is kept, and its damaged images are listed: imported features whose
    file is gone, and the tables of ingest.

    Example: tonics -C my-dataset verify
    """
    from .graph import stages_of
    from .verify import verify_dataset

    stages = stages_of(open_dataset(context))
    verified = verify_dataset(list(stages.values()))
    for problem in verified.problems:
        typer.echo(problem)
    if verified.problems:
        count, kept = len(verified.problems), verified.kept
        found = f"{count} problem{'s' * (count != 1)}; {count - kept} deleted, {kept} kept"
        do = "'tonics run' makes just the damaged shards anew" if count > kept else ""
        raise TonicsError("verify", found, do=do)
    missing = len(stages) - verified.stages
    rest = f"; {missing} stages are not made yet" if missing else ""
    typer.echo(f"{verified.files} files of {verified.stages} stages are as they were written{rest}")


@app.command(rich_help_panel="Look")
def clean(
    context: typer.Context,
    unnamed: Annotated[
        bool, typer.Option(help="Also delete what tonics.toml no longer names.")
    ] = False,
) -> None:
    """Delete what killed runs left half-written; list what tonics.toml no longer names.

    Example: tonics -C my-dataset clean --unnamed
    """
    from .clean import clean_dataset

    for line in clean_dataset(open_dataset(context), unnamed=unnamed):
        typer.echo(line)


@app.command(rich_help_panel="Look")
def sql(
    context: typer.Context,
    query: Annotated[
        str | None, typer.Argument(help="One SELECT; without it a prompt, or standard input.")
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help="table, csv, json or parquet; else as --output ends.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A csv, json or parquet file to write.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite that file.")] = False,
    rows: Annotated[
        int | None,
        typer.Option(min=0, help="Rows a table shows; 0: all. 100 on a terminal, else all."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds before a question is stopped.")] = 60,
    memory: Annotated[
        str,
        typer.Option(
            help="What tables, joins and sorts may take; single huge strings are not counted."
        ),
    ] = "2GB",
    history: Annotated[bool, typer.Option("--history", help="Print what was asked.")] = False,
) -> None:
    """Ask the ontology questions in SQL, read-only.

    With no question: a prompt on a terminal, else the statements of standard input, in turn. What
    detections.duckdb holds is there as detections.NAME. Tables and macros: .tables and .macros at
    the prompt.

    Example: tonics -C my-dataset sql "SELECT * FROM pairs_of('dog.n.01') LIMIT 10"
    """
    from .asking.command import Wanted, ask, print_history

    dataset = open_dataset(context)
    if history:
        print_history(dataset)
        return
    wanted = Wanted(
        form=form, output=output, force=force, rows=rows, timeout_s=timeout, memory=memory
    )
    ask(dataset, query, wanted)


@show_app.command("object")
def show_object(
    context: typer.Context,
    word: Annotated[str, typer.Argument(help="A word or a synset: dog, dog.n.01.")],
    as_json: AsJson = False,
) -> None:
    """An object: gloss, counts, how its words were decided, what is below and beside it, captions.

    Example: tonics -C my-dataset show object dog
    """
    from .asking.object_page import describe_object, format_object
    from .asking.opening import open_ontology
    from .tables import format_json

    with open_ontology(open_dataset(context)) as ontology:
        found = describe_object(ontology, word)
        min_images = int(ontology.meta["min_images"])
    typer.echo(format_json(found) if as_json else format_object(found, min_images))


@show_app.command("batch")
def show_batch(
    context: typer.Context,
    plan: Annotated[str, typer.Argument(help="Name of the plan.")],
    number: Annotated[int, typer.Argument(help="Which batch, from 0.")],
    as_json: AsJson = False,
) -> None:
    """A planned batch: what its pairs share, or those of each group, and their captions.

    Example: tonics -C my-dataset show batch mixed 17
    """
    from . import show
    from .tables import format_json

    dataset = open_dataset(context)
    if as_json:
        typer.echo(format_json(show.describe_batch(dataset, plan, number)))
    else:
        typer.echo(show.show_batch(dataset, plan, number))


@show_app.command("image")
def show_image(
    context: typer.Context,
    image_id: Annotated[str, typer.Argument(help="The source's id of the image.")],
) -> None:
    """An image: size, captions, best regions.

    Example: tonics -C my-dataset show image 1000268201_693b08cb0e.jpg
    """
    from . import show

    typer.echo(show.show_image(open_dataset(context), image_id))


@show_app.command("rejected")
def show_rejected(
    context: typer.Context,
    stage: Annotated[str, typer.Argument(help="Of one stage only.")] = "",
    as_json: AsJson = False,
) -> None:
    """What was left out and why: the first inputs of every reason.

    Example: tonics -C my-dataset show rejected ingest
    """
    from . import show
    from .tables import format_json, format_table, rows_as_dicts

    columns, rows = show.rejected_rows(open_dataset(context), stage)
    if as_json:
        typer.echo(format_json(rows_as_dicts(columns, rows)))
    else:
        typer.echo(format_table(columns, rows) if rows else "nothing was rejected")
