"""``tonics eval``: the stage, other models on the same queries, further questions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import AsJson, Quiet, open_dataset

_FILE: dict[str, Any] = {"exists": True, "dir_okay": False}


def eval_command(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(help="Runs in tonics.toml; all when omitted.")
    ] = None,
    clip: Annotated[
        str, typer.Option(metavar="NAME", help="A CLIP model: package, folder or hub name.")
    ] = "",
    embeddings: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="IMAGES TEXTS", help="Anybody's vectors, two .npy files."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="What --clip, --embeddings are scored on, if not test.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What to call --embeddings, if not vectors.")
    ] = None,
    image_ids: Annotated[
        Path | None, typer.Option(help="The image id of every row of IMAGES, a line each.", **_FILE)
    ] = None,
    pair_keys: Annotated[
        Path | None, typer.Option(help="The pair key of every row of TEXTS, a line each.", **_FILE)
    ] = None,
    owners: Annotated[
        Path | None,
        typer.Option(help="A .npy file: the row of each text's image; no dataset.", **_FILE),
    ] = None,
    swaps: Annotated[
        list[Path] | None,
        typer.Option(help="A csv or tsv of captions and altered ones; repeatable.", **_FILE),
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="caption=title: what the columns of --swaps are.")
    ] = None,
    eccv: Annotated[
        Path | None,
        typer.Option(help="COCO's captions_val2014.json: also by ECCV Caption and CxC.", **_FILE),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score runs on retrieval and same-object choices; or CLIP, or anybody's vectors.

    The scores of a run are in runs/NAME/eval.json, every query's result in eval.parquet beside
    it; those of other models in evaluation/. Vectors are in the order of evaluation/SPLIT.parquet:
    texts by row, images by ascending number; or say what they are of with --image-ids and
    --pair-keys.

    Example: tonics -C my-dataset eval mixed

    Example: tonics -C my-dataset eval --clip openai/clip-vit-base-patch32 --swaps swaps.tsv
    """
    from .evaluating.command import evaluate_vectors_alone, run_eval
    from .evaluating.wanted import Wanted

    wanted = Wanted(
        names=names or [],
        clip=clip,
        embeddings=embeddings,
        split=split,
        name=name,
        image_ids=image_ids,
        pair_keys=pair_keys,
        owners=owners,
        swaps=swaps or [],
        columns=column or [],
        eccv=eccv,
    )
    wanted.check()
    if owners:
        evaluate_vectors_alone(wanted, as_json=as_json)
    else:
        run_eval(open_dataset(context), wanted, as_json=as_json, quiet=quiet)
