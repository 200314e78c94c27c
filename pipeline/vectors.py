"""The caption vectors of a dataset, ``embeddings/NAME``, by pair number."""

from __future__ import annotations

import numpy as np

from ..errors import StaleInput
from .dataset import Dataset


class Vectors:
    """The vectors of a set, by pair number: memory-mapped files with a row a pair.

    Raises:
        StaleInput: (when made) the set has not been computed.
    """

    def __init__(self, dataset: Dataset, name: str) -> None:
        files = sorted(dataset.embeddings(name).glob("[0-9]*.npy"))
        if not files:
            folder = dataset.embeddings(name)
            raise StaleInput(folder, "no caption vectors here", do=f"run 'tonics embed {name}'")
        self.parts = [np.load(file, mmap_mode="r") for file in files]
        self.starts = np.cumsum([0, *(len(part) for part in self.parts)])
        self.dim = int(self.parts[0].shape[1])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __call__(self, pairs: np.ndarray) -> np.ndarray:
        """Read the vectors of pairs, any order, repeats allowed: (n, dim) float16."""
        pairs = np.asarray(pairs)
        if len(pairs) and not 0 <= pairs.min() <= pairs.max() < len(self):
            found = f"pairs up to {pairs.max()}, vectors of {len(self)}"
            raise StaleInput("embeddings", found, do="run 'tonics embed'")
        out = np.empty((len(pairs), self.dim), np.float16)
        part_of = np.searchsorted(self.starts, pairs, side="right") - 1
        for part in np.unique(part_of):
            rows = np.flatnonzero(part_of == part)
            out[rows] = self.parts[part][pairs[rows] - self.starts[part]]
        return out
