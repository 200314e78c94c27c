"""Does a model read a caption, or just its words? True captions against rearranged ones.

As in ARO (Yuksekgonul et al. 2023): "a child holding an umbrella" against "an umbrella holding a
child". The image has to score higher with the true caption than with the altered one; a tie is a
loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .retrieval import own_scores


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Swapped:
    """How captions fared against their altered ones.

    Attributes:
        of: (m,) which caption each altered one was made of.
        right: (n,) bool: the true caption beats all its altered ones.
        beaten: (m,) bool, an altered caption: the true one beats it.
        margin: (m,) float32: by how much.
    """

    of: np.ndarray
    right: np.ndarray
    beaten: np.ndarray
    margin: np.ndarray

    def report(self) -> dict[str, float]:
        """Percentages and counts; ``chance`` is that of a model that knows nothing."""
        altered = np.bincount(self.of, minlength=len(self.right))
        return {
            "captions": len(self.right),
            "altered": len(self.beaten),
            "accuracy": round(100 * float(self.right.mean()), 2),
            "chance": round(100 * float((1 / (altered + 1)).mean()), 2),
            "beaten": round(100 * float(self.beaten.mean()), 2),
            "margin": round(float(self.margin.mean()), 4),
        }


def swapped(images: np.ndarray, true: np.ndarray, altered: np.ndarray, of: np.ndarray) -> Swapped:
    """Score true captions against altered ones.

    Args:
        images, true: (n, d) vectors of an image and its caption. altered: (m, d) vectors of altered
            captions. of: (m,) which of the n each was made of; every one has at least one.
    """
    right = own_scores(images, true, np.arange(len(true)))
    wrong = own_scores(images, altered, of)
    beaten = right[of] > wrong
    lost = np.bincount(of, ~beaten, minlength=len(true)) > 0
    return Swapped(of=of, right=~lost, beaten=beaten, margin=right[of] - wrong)
