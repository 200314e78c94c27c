"""The caption vectors and token states of a dataset, ``embeddings/NAME``, by pair number."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..errors import StaleInput
from ..train.model.tokens import packed_places
from .dataset import Dataset

STATES, LENGTHS = "states-", "lengths-"  # what files of token states begin with


class Vectors:
    """The vectors of a set, by pair number: memory-mapped files with a row a pair.

    Raises:
        StaleInput: (when made) the set has not been computed.
    """

    def __init__(self, dataset: Dataset, name: str) -> None:
        self.parts = _mapped(dataset, name, "")
        self.starts = np.cumsum([0, *(len(part) for part in self.parts)])
        self.dim = int(self.parts[0].shape[1])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __call__(self, pairs: np.ndarray) -> np.ndarray:
        """Read the vectors of pairs, any order, repeats allowed: (n, dim) float16."""
        pairs = _checked(pairs, len(self))
        out = np.empty((len(pairs), self.dim), np.float16)
        for part, rows, at in _by_part(self.starts, pairs):
            out[rows] = self.parts[part][at]
        return out


class States:
    """The token states of a set, by pair number: memory-mapped files with a row a token.

    Raises:
        StaleInput: (when made) the set has not been computed, or without ``states = true``.
    """

    def __init__(self, dataset: Dataset, name: str) -> None:
        self.parts = _mapped(dataset, name, STATES)
        self.lengths = [np.asarray(part) for part in _mapped(dataset, name, LENGTHS)]
        self.offsets = [np.concatenate([[0], np.cumsum(n, dtype=np.int64)]) for n in self.lengths]
        self.starts = np.cumsum([0, *map(len, self.lengths)])
        self.dim = int(self.parts[0].shape[1])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __call__(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read the states of pairs: (sum t, dim) float16 pair after pair, and (n,) lengths."""
        pairs = _checked(pairs, len(self))
        lengths = np.empty(len(pairs), np.int64)
        for part, rows, at in _by_part(self.starts, pairs):
            lengths[rows] = self.lengths[part][at]
        out = np.empty((int(lengths.sum()), self.dim), np.float16)
        firsts = np.cumsum(lengths) - lengths
        for part, rows, at in _by_part(self.starts, pairs):
            stored = packed_places(self.offsets[part][at], lengths[rows])
            out[packed_places(firsts[rows], lengths[rows])] = self.parts[part][stored]
        return out, lengths


def _mapped(dataset: Dataset, name: str, kind: str) -> list[np.ndarray]:
    files = sorted(dataset.embeddings(name).glob(f"{kind}[0-9]*.npy"))
    if not files:
        folder, what = dataset.embeddings(name), "token states" if kind else "caption vectors"
        raise StaleInput(folder, f"no {what} here", do=f"run 'tonics embed {name}'")
    return [np.load(file, mmap_mode="r") for file in files]


def _checked(pairs: np.ndarray, count: int) -> np.ndarray:
    pairs = np.asarray(pairs)
    if len(pairs) and not 0 <= pairs.min() <= pairs.max() < count:
        found = f"pairs up to {pairs.max()}, vectors of {count}"
        raise StaleInput("embeddings", found, do="run 'tonics embed'")
    return pairs


def _by_part(starts: np.ndarray, pairs: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """For each file: its number, which of the pairs lie there, and their rows in it."""
    part_of = np.searchsorted(starts, pairs, side="right") - 1
    for part in np.unique(part_of):
        rows = np.flatnonzero(part_of == part)
        yield int(part), rows, pairs[rows] - starts[part]
