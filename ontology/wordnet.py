"""WordNet: found where nltk looks for it, put there when missing, read through nltk's reader.

Nouns only. Synsets go by their names (``dog.n.01``); a lemma is written with spaces and in lower
case (``fire hydrant``), as it stands in a caption.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from ..artifact import atomic_folder
from ..errors import MissingAsset

ROOT = "entity.n.01"
PHYSICAL = "physical_entity.n.01"
_POS = ("noun", "verb", "adj", "adv")
_DATABASE = tuple(f"{kind}.{pos}" for pos in _POS for kind in ("data", "index"))
_EXCEPTIONS = tuple(f"{pos}.exc" for pos in _POS)
_COPIED = (*_DATABASE, *_EXCEPTIONS, "index.sense", "cntlist.rev")
_NEEDED = (*_DATABASE, *_EXCEPTIONS, "index.sense", "lexnames")
_FINGERPRINTED = ("data.noun", "index.noun", "noun.exc", "lexnames")
_DEBIAN = Path("usr/share/wordnet")  # in an unpacked package
_SYSTEM = Path("/usr/share/wordnet")
_CORPUS = Path("corpora/wordnet")
_LEXNAMES = Path(__file__).with_name("lexnames.tsv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Synset:
    """One noun synset; hypernyms sorted by name, those of instances (``paris.n.01``) apart."""

    name: str
    lemmas: tuple[str, ...]
    definition: str
    lexname: str
    hypernyms: tuple[str, ...]
    instance_hypernyms: tuple[str, ...]


class WordNet:
    """The nouns of one WordNet, read through nltk; calls from several threads take turns.

    Attributes:
        version: ``3.0`` or whatever the data files say.
        folder: where it was read from.
    """

    def __init__(self, root: Any) -> None:
        from nltk.corpus.reader.wordnet import WordNetCorpusReader

        class EnglishReader(WordNetCorpusReader):
            def map_wn(self, version: str = "wordnet") -> None:
                """Skip the mapping to WordNet 3.0: only other languages need it, and it is slow."""

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nltk announces that the other languages are absent
            self._reader = EnglishReader(root, None)
        self._root = root
        self.folder = str(root)
        self.version = str(self._reader.get_version())
        self._lock = threading.RLock()
        self._lemmas = frozenset(self._reader.all_lemma_names(pos="n"))

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the noun files' content: the same for the same data, wherever it lies."""
        return _fingerprint_of(self._root)

    def knows(self, lemma: str) -> bool:
        """Say whether a lemma is a noun of WordNet exactly as written, without any stemming."""
        return lemma.replace(" ", "_").lower() in self._lemmas

    def noun_synsets(self, lemma: str) -> tuple[str, ...]:
        """List the senses of exactly this lemma, the most frequent first; empty when unknown."""
        key = lemma.replace(" ", "_").lower()
        if key not in self._lemmas:
            return ()
        with self._lock:
            found = self._reader.synsets(key, pos="n")
            exact = [s for s in found if key in (n.lower() for n in s.lemma_names())]
        return tuple(s.name() for s in exact)

    def morphy(self, word: str) -> str | None:
        """Reduce a plural to a noun that WordNet knows (``geese`` -> ``goose``), or None."""
        with self._lock:
            base = self._reader.morphy(word.replace(" ", "_").lower(), "n")
        return base.replace("_", " ") if base else None

    def resolve(self, name: str) -> str | None:
        """Return the noun synset that a name stands for under its own first name, or None.

        >>> open_wordnet().resolve("chest.n.01")  # doctest: +SKIP
        'thorax.n.02'
        """
        from nltk.corpus.reader.wordnet import WordNetError

        try:
            found = self._synset(name)
        except (WordNetError, ValueError):
            return None
        return str(found.name()) if found.pos() == "n" else None

    def synset(self, name: str) -> Synset:
        """Read one synset by its name."""
        found = self._synset(name)
        with self._lock:
            return Synset(
                name=found.name(),
                lemmas=tuple(n.replace("_", " ") for n in found.lemma_names()),
                definition=found.definition(),
                lexname=found.lexname(),
                hypernyms=_names(found.hypernyms()),
                instance_hypernyms=_names(found.instance_hypernyms()),
            )

    def hypernyms(self, name: str) -> tuple[str, ...]:
        """List the direct hypernyms of a synset by name, those of instances last."""
        found = self.synset(name)
        return found.hypernyms + found.instance_hypernyms

    def ancestors(self, name: str) -> frozenset[str]:
        """Return every synset above this one, itself included."""
        return self._ancestors(name)

    def is_physical(self, name: str) -> bool:
        """Say whether a synset lies under ``physical_entity.n.01``."""
        return PHYSICAL in self.ancestors(name)

    @functools.lru_cache(maxsize=200_000)  # noqa: B019 (a WordNet lives as long as its process)
    def _ancestors(self, name: str) -> frozenset[str]:
        above = [self._ancestors(parent) for parent in self.hypernyms(name)]
        return frozenset({name}.union(*above))

    def _synset(self, name: str) -> Any:
        with self._lock:
            return self._reader.synset(name)


def _names(synsets: list[Any]) -> tuple[str, ...]:
    """Sort by name: nltk keeps pointers in a set, whose order changes from process to process."""
    return tuple(sorted(s.name() for s in synsets))


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
    return _fingerprint_of(root)


def _fingerprint_of(root: Any) -> str:
    state = xxhash.xxh3_128()
    for name in _FINGERPRINTED:
        with root.join(name).open() as file:
            data = file.read()
        state.update(f"{name}:{len(data)}:".encode() + data)
    return state.hexdigest()


def provide_wordnet(
    *, sources: Sequence[Path] = (), target: Path | None = None, download: bool = True
) -> tuple[Path, str]:
    """Make WordNet available to nltk.

    Args:
        sources: folders below which Debian's ``usr/share/wordnet`` may lie (an unpacked package),
            tried before the system's own.
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
    for folder in _debian_folders(sources):
        made = _assemble(folder, target)
        return made, f"WordNet {_reopen(target).version}: copied from {folder} to {made}"
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
            except (OSError, ValueError, AssertionError, IndexError) as error:
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


def _debian_folders(sources: Sequence[Path]) -> Iterator[Path]:
    candidates = [folder for source in sources for folder in (source / _DEBIAN, source)]
    for folder in (*candidates, _SYSTEM):
        if all((folder / name).is_file() for name in _COPIED):
            yield folder


def _assemble(source: Path, target: Path) -> Path:
    """Copy Debian's files (copies: a package may be removed) and add the table it does not ship."""
    with atomic_folder(target / _CORPUS) as tmp:
        for name in _COPIED:
            (tmp / name).write_bytes((source / name).read_bytes())
        (tmp / "lexnames").write_bytes(_LEXNAMES.read_bytes())
    return target / _CORPUS


def _download(target: Path) -> bool:
    """Let nltk fetch WordNet; False when it cannot (no network, no room)."""
    import nltk

    try:
        return bool(nltk.download("wordnet", download_dir=str(target), quiet=True))
    except (OSError, ValueError):
        return False
