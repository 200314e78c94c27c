"""The window encoder of a spaCy tagger, computed for many captions at once.

A layer sees a word and its two neighbours, so what it gives depends on three of the vectors below
it: equal threes are computed once. Every multiplication has ``_ROWS`` rows, whatever there is to
compute: what a caption gives then does not depend on the captions beside it.

Shapes: N words or windows, D width, P pieces of a maxout, T tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

_ROWS = 256  # of a multiplication: few enough for the cache of a core
_EPSILON = 1e-8  # as thinc's layer norm

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class Gemm(Protocol):
    """As thinc's ``Ops.gemm``."""

    def __call__(self, x: Floats, y: Floats, *, out: Floats | None = None) -> Floats:
        """Multiply two matrices."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A residual maxout layer over (left, word, right): weight (3 D, P D), bias (P D,)."""

    weight_IO: Floats
    bias_O: Floats
    gain_D: Floats
    shift_D: Floats

    @classmethod
    def of(cls, weight: Floats, bias: Floats, gain: Floats, shift: Floats) -> Layer:
        """Take thinc's parameters: weight (D, P, 3 D), bias (D, P)."""
        pieces_first = weight.transpose(1, 0, 2).reshape(-1, weight.shape[2])
        return cls(
            weight_IO=np.ascontiguousarray(pieces_first.T),
            bias_O=np.ascontiguousarray(bias.T).reshape(-1),
            gain_D=gain,
            shift_D=shift,
        )


class WindowNetwork:
    """Tags words by the vectors of their types.

    Args:
        gemm: multiplies matrices, on one thread: numpy's would keep every core busy with waiting.
    """

    def __init__(
        self, layers: Sequence[Layer], weight_TD: Floats, bias_T: Floats, gemm: Gemm
    ) -> None:
        self.layers, self.weight_DT = layers, np.ascontiguousarray(weight_TD.T)
        self.bias_T, self.gemm = bias_T, gemm
        width = len(weight_TD[0])
        self._windows = np.zeros((_ROWS, 3, width), np.float32)
        self._pieces = np.empty((_ROWS, len(layers[0].bias_O)), np.float32)

    def tags(self, vectors_ND: Floats, types: Ints, lengths: Ints) -> Ints:
        """Tag every word of some texts.

        Args:
            vectors_ND: the vector of every word type; row 0 is zero: what is beyond a text.
            types: (sum lengths,) the types of all words of all texts, one text after the other.
            lengths: words in each text.

        Returns:
            (sum lengths,) numbers of tags.
        """
        depth = len(self.layers)
        places = np.arange(len(types)) + depth * (1 + np.repeat(np.arange(len(lengths)), lengths))
        row = np.zeros(len(types) + depth * (len(lengths) + 1), np.int64)
        row[places] = types
        vectors = vectors_ND
        for number, layer in enumerate(self.layers, 1):
            reach = depth - number  # so far beyond a text's ends do the layers above look
            at = _around(places, reach, len(row))
            keys = (row[at - 1] * len(vectors) + row[at]) * len(vectors) + row[at + 1]
            distinct, which = np.unique(keys, return_inverse=True)
            row = np.zeros_like(row)
            row[at] = which
            vectors = self._encode(layer, vectors, _neighbours(distinct, len(vectors)))
        return self._best_tags(vectors)[row[places]]

    def _encode(self, layer: Layer, vectors_ND: Floats, windows_N3: Ints) -> Floats:
        """Compute what a layer gives for windows of vectors below it."""
        out_ND = np.empty((len(windows_N3), vectors_ND.shape[1]), np.float32)
        for start in range(0, len(windows_N3), _ROWS):
            some = windows_N3[start : start + _ROWS]
            np.take(vectors_ND, some, axis=0, out=self._windows[: len(some)], mode="clip")
            self.gemm(self._windows.reshape(_ROWS, -1), layer.weight_IO, out=self._pieces)
            out_ND[start : start + len(some)] = self._finish(layer)[: len(some)]
        return out_ND

    def _finish(self, layer: Layer) -> Floats:
        """Take the largest pieces, normalise them, and add the words below."""
        self._pieces += layer.bias_O
        best = self._pieces.reshape(_ROWS, -1, len(layer.gain_D)).max(axis=1)
        best -= best.mean(axis=1, keepdims=True)
        variance = np.einsum("nd,nd->n", best, best) / best.shape[1] + _EPSILON
        best *= (1 / np.sqrt(variance))[:, None]
        best *= layer.gain_D
        best += layer.shift_D
        best += self._windows[:, 1]
        return best

    def _best_tags(self, vectors_ND: Floats) -> Ints:
        tags = np.empty(len(vectors_ND), np.int64)
        words_ND = np.zeros((_ROWS, vectors_ND.shape[1]), np.float32)
        for start in range(0, len(vectors_ND), _ROWS):
            some = vectors_ND[start : start + _ROWS]
            words_ND[: len(some)] = some
            scores_NT = self.gemm(words_ND, self.weight_DT) + self.bias_T
            tags[start : start + len(some)] = scores_NT.argmax(axis=1)[: len(some)]
        return tags


def _around(places: Ints, reach: int, size: int) -> Ints:
    """Places and those up to ``reach`` beside them, in order."""
    near = np.zeros(size, bool)
    for offset in range(-reach, reach + 1):
        near[places + offset] = True
    return np.flatnonzero(near)


def _neighbours(keys: Ints, base: int) -> Ints:
    """Take keys apart into (left, word, right)."""
    rest, right = np.divmod(keys, base)
    left, word = np.divmod(rest, base)
    return np.stack([left, word, right], axis=1)
