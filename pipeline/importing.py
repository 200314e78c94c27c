"""``tonics features import`` and ``export``: what is asked and checked around the work itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from ..artifact import Manifest, atomic_file, atomic_folder, drop
from ..errors import ConfigError, InputError, StaleInput, TooManyRejects, WouldDiscard
from ..features.formats.export import EXPORTED_FILES, export_oscar
from ..features.schema import INDEX_NAME
from .config import CONFIG_NAME, IMPORTED
from .dataset import Dataset
from .feature_files import Wanted
from .graph import stages_of
from .lock import lock_file, locked
from .matching import number_of, stem_of
from .progress import Progress
from .stage import manifest_file
from .stages.extract import load_store
from .stages.imported import ImportStage, survey_file
from .staleness import status_of
from .survey import Survey
from .surveyor import goes_on, make_survey

# How a foreign program shall call the images.
EXPORTED_IDS: dict[str, Callable[[str], str]] = {"id": str, "stem": stem_of, "number": number_of}


def survey_files(
    dataset: Dataset,
    name: str,
    wanted: Wanted,
    *,
    append: bool = False,
    replace_all: bool = False,
    quiet: bool = False,
) -> ImportStage:
    """Find out what there is to import; the stage that comes back does it.

    The same files again go on where the import stopped.

    Args:
        append: add to what is there. replace_all: forget what is there.

    Raises:
        StaleInput: the images have no numbers yet. ConfigError: no such imported feature set.
        WouldDiscard: other files were imported before. InputError: files of no use.
        LockedError: another import is at work.
    """
    _check_config(dataset, name)
    if not dataset.images_file.exists():
        do = "run 'tonics ingest' first: it numbers the images"
        raise StaleInput(dataset.images_file, "has not been made yet", do=do)
    stage = ImportStage(dataset, name)
    file = survey_file(dataset, name)
    with locked(lock_file(dataset, stage.key), stage.key):
        before = None if replace_all else Survey.read(file)
        survey = goes_on(dataset, before, wanted) if before and not append else None
        if survey is None:
            if not append and not replace_all:
                _refuse_to_replace(stage, before)
                before = None
            survey = make_survey(dataset, name, wanted, before, Progress(quiet=quiet))
            _part_from(stage, survey_file(dataset, name), keep=append)
        survey.write(file)
    return ImportStage(dataset, name)


def _check_config(dataset: Dataset, name: str) -> None:
    section = dataset.config.features.get(name)
    toml = dataset.root / CONFIG_NAME
    if section is None:
        do = f'add the line [features.{name}], and below it the line detector = "{IMPORTED}"'
        raise ConfigError(f"{toml}: features.{name}", "no such section", do=do)
    if section.detector != IMPORTED:
        found, expected = f"detector = {section.detector!r}", f"detector = '{IMPORTED}'"
        do = "give the imported features a section and a name of their own"
        raise ConfigError(f"{toml}: features.{name}", found, expected=expected, do=do)


def _refuse_to_replace(stage: ImportStage, before: Survey | None) -> None:
    """Refuse to forget features; an import that brought none, whatever it read, is no loss."""
    if before is not None and (held := _images_held(stage)):
        names = ", ".join(source.name for source in before.sources[:5])
        found = f"holds {held:,} images of {names}, read otherwise or of other files"
        do = "--append adds to them, --replace forgets them"
        raise WouldDiscard(stage.folder, found, do=do)
    if before is None and any(stage.folder.glob("[0-9]*.arrow")):
        found = "holds features that no import made"
        raise WouldDiscard(stage.folder, found, do="--replace forgets them, or choose another name")


def _part_from(stage: ImportStage, file: Path, *, keep: bool) -> None:
    """Prepare for another survey: the one of before is kept until the import has gone well.

    Args:
        keep: the other one adds to it; else what was merged of it is no longer true.
    """
    earlier = stage.survey_before
    if not keep:
        drop(manifest_file(stage.dataset, stage.key))
        drop(stage.folder / INDEX_NAME)
        earlier.unlink(missing_ok=True)
    elif file.is_file() and status_of(stage).done:
        with atomic_file(earlier) as tmp:
            shutil.copyfile(file, tmp)


def take_back(stage: ImportStage) -> bool:
    """Forget files that were appended and are of no use; whether there were any."""
    with locked(lock_file(stage.dataset, stage.key), stage.key):
        if not stage.survey_before.is_file():
            return False
        os.replace(stage.survey_before, survey_file(stage.dataset, stage.name))
    return True


def _images_held(stage: ImportStage) -> int:
    """How many images there are in the finished shards of an import."""
    files = manifest_file(stage.dataset, stage.key).parent.glob("[0-9]*.json")
    return sum(made.counts["out"] for made in map(Manifest.read, files) if made is not None)


def with_advice(
    error: TooManyRejects, wanted: Wanted, *, taken_back: bool = False
) -> TooManyRejects:
    """The same error, naming the vocabulary where that may be what is wrong."""
    do = error.do
    if "not in the vocabulary" in error.found:
        vocabulary = wanted.vocabulary or "the file that --vocabulary names"
        do = f"see whether {vocabulary} is the vocabulary of these features; {do}"
    if taken_back:
        do += "; what was imported before is kept, the next 'tonics run' puts it in order"
    return TooManyRejects(error.where, error.found, expected=error.expected, do=do)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export wrote."""

    images: int
    bytes: int


def export_features(
    dataset: Dataset, name: str, folder: Path, *, ids: str, geometry: bool, replace_all: bool
) -> Exported:
    """Write a feature set as Oscar reads it, a whole folder or nothing.

    Args:
        ids: how images are called, a key of ``EXPORTED_IDS``.

    Raises:
        InputError: an unknown feature set, a folder that is not empty, ids that are not unique.
    """
    if name not in dataset.config.features:
        known = ", ".join(sorted(dataset.config.features)) or "none"
        raise InputError("features", repr(name), expected=f"one of {known}")
    if ids not in EXPORTED_IDS:
        raise InputError("--ids", repr(ids), expected=f"one of {', '.join(EXPORTED_IDS)}")
    if folder.exists() and not folder.is_dir():
        raise InputError(folder, "is a file", expected="a folder")
    _check_target(dataset, folder, replace_all=replace_all)
    _require_index(dataset, name)
    store, images = load_store(dataset, name), dataset.images()
    images = images.filter(pc.not_equal(images.column("content_hash"), ""))
    names = zip(*(images.column(c).to_pylist() for c in ("image", "image_id")), strict=True)
    named = {image: EXPORTED_IDS[ids](image_id) for image, image_id in names}
    with atomic_folder(folder.resolve()) as tmp:
        count = export_oscar(store, tmp, named, geometry=geometry)
    return Exported(images=count, bytes=sum(f.stat().st_size for f in folder.iterdir()))


def _check_target(dataset: Dataset, folder: Path, *, replace_all: bool) -> None:
    """Refuse to write where the dataset is, and to replace anything but an older export."""
    whole = folder.resolve()
    taken = [dataset.state, *(p for s in stages_of(dataset).values() for p in s.places)]
    for place in (place.resolve() for place in taken):
        if whole.is_relative_to(place) or place.is_relative_to(whole):
            found = "belongs to the dataset"
            raise InputError(folder, found, expected="a folder of the export's own")
    names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    if names and not replace_all:
        raise WouldDiscard(folder, "is not empty", do="choose another, or --replace it")
    if others := [name for name in names if name not in EXPORTED_FILES]:
        found = f"holds {others[0]!r}, which no export wrote"
        raise WouldDiscard(folder, found, do="choose another folder, or empty it yourself")


def _require_index(dataset: Dataset, name: str) -> None:
    """Refuse an imported feature set that is not there, or not whole, in words that help."""
    stage = ImportStage(dataset, name)
    if dataset.config.features[name].detector != IMPORTED or (stage.folder / INDEX_NAME).exists():
        return
    if survey_file(dataset, name).exists():
        raise StaleInput(stage.folder, "has no index", do=f"run 'tonics run {stage.key}'")
    do = f"run 'tonics features import {name} FILE'"
    raise StaleInput(f"features.{name}", "nothing imported yet", do=do)
