"""Open a dataset's databases: the ontology, and its detections where there are any."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ...errors import InputError, StaleInput, TonicsError
from ..dataset import Dataset

if TYPE_CHECKING:
    from ...ontology import Ontology
    from ...ontology.questions import Session

T = TypeVar("T")


def ontology_file(dataset: Dataset) -> Path:
    """The dataset's ontology database.

    Raises:
        StaleInput: it has not been built.
    """
    file = dataset.ontology_file
    if not file.exists() and not file.is_symlink():
        raise StaleInput(file, "has not been made yet", do="run 'tonics run ontology' first")
    return file


def open_ontology(dataset: Dataset) -> Ontology:
    """The dataset's ontology, for questions of our own; a context manager."""
    from ...ontology import Ontology

    return _with_detections(dataset, partial(Ontology, ontology_file(dataset)))


def open_session(dataset: Dataset, *, memory: str, timeout_s: float) -> Session:
    """The dataset's ontology, for the user's questions; a context manager."""
    from ...ontology.questions import Session

    session = partial(Session, ontology_file(dataset), memory=memory, timeout_s=timeout_s)
    return _with_detections(dataset, session)


@contextlib.contextmanager
def telling_of_detections(dataset: Dataset) -> Iterator[None]:
    """Say of a question that fails on detections that there are none, and what makes them.

    Raises:
        StaleInput: in place of what DuckDB says of names it does not find.
    """
    try:
        yield
    except InputError as error:
        missing = re.search(r"\bdetections\b|images_showing|labels_of|shown_in", str(error))
        if missing is None or dataset.detections_file.exists():
            raise
        do = "run 'tonics run detections' first"
        raise StaleInput(dataset.detections_file, "has not been made yet", do=do) from error


def _with_detections(dataset: Dataset, opened: Callable[..., T]) -> T:
    """Attach what detectors saw; where that file is of no use, say so and go on without it."""
    file = dataset.detections_file
    more: Mapping[str, Path] = {"detections": file} if file.exists() else {}
    try:
        return opened(attach=more)
    except TonicsError as error:
        if error.where != str(file):
            raise
        print(f"tonics: {error.where}: {error.found}; going on without it", file=sys.stderr)
        return opened()
