"""What the model's class and attribute numbers are called: VinVL's label map, a JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import ConfigError, InputError, MissingAsset
from ..detector import Label, Vocabulary
from .config import DOWNLOAD, WHERE, VinVLConfig

BACKGROUND, NO_ATTRIBUTE = "__background__", "__no_attribute__"


def read_vocabulary(label_map: str | Path | Mapping[str, Any], config: VinVLConfig) -> Vocabulary:
    """Read a label map: ``label_to_idx`` and ``attribute_to_idx``, numbered from 1.

    Where one of them is absent, ``idx_to_label`` or ``idx_to_attribute`` will do.
    Number 0 becomes the background, and "no attribute".

    Raises:
        MissingAsset: there is no such file.
        InputError: it is no label map.
        ConfigError: it names another number of classes or attributes than the config says.
    """
    where: object = label_map if isinstance(label_map, str | Path) else "label map"
    content = _read_json(Path(label_map)) if isinstance(label_map, str | Path) else label_map
    labels = (BACKGROUND, *_names(content, "label", where))
    attributes = (NO_ATTRIBUTE, *_names(content, "attribute", where))
    for key, names in (("num_classes", labels), ("num_attributes", attributes)):
        wanted = getattr(config, key)
        if wanted is not None and wanted != len(names):
            expected = f"{len(names)}, as {where} has with number 0"
            raise ConfigError(WHERE, f"{key} = {wanted}", expected=expected)
    return Vocabulary(labels=tuple(Label(name) for name in labels), attributes=attributes)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingAsset(path, "no such file", do=DOWNLOAD) from error
    except (OSError, ValueError) as error:
        raise InputError(path, f"not a label map ({error})", do=DOWNLOAD) from error


def _names(content: Any, kind: str, where: object) -> list[str]:
    """List the names in the order of their numbers, which must be 1, 2, 3 ..."""
    key, pairs = _numbered(content, kind, where)
    try:
        by_number = {int(number): str(name) for number, name in pairs}
    except (TypeError, ValueError) as error:
        raise InputError(where, f"{key}: {error}", expected="whole numbers") from error
    if sorted(by_number) != list(range(1, len(pairs) + 1)):
        found = f"{key} has numbers from {min(by_number)} to {max(by_number)} for {len(pairs)}"
        raise InputError(where, f"{found} names", expected=f"1 to {len(pairs)}, each once")
    return [by_number[number] for number in sorted(by_number)]


def _numbered(content: Any, kind: str, where: object) -> tuple[str, list[tuple[Any, Any]]]:
    """Find the key of a label map that names this kind, and its (number, name) pairs."""
    forth, back = f"{kind}_to_idx", f"idx_to_{kind}"
    for key in (forth, back):
        entries = content.get(key) if isinstance(content, Mapping) else None
        if isinstance(entries, Mapping) and entries:
            pairs = list(entries.items())
            return key, pairs if key == back else [(number, name) for name, number in pairs]
    expected = f"an object of names and their numbers, or {back!r} the other way round"
    raise InputError(where, f"has no {forth!r}", expected=expected, do=DOWNLOAD)
