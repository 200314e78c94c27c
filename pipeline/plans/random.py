"""``random``: a uniform draw under the constraints; the baseline every plan is compared with."""

from __future__ import annotations

import numpy as np

from ..config import Section
from .builder import Builder, Groups, Offered, make_groups
from .eligible import Eligible
from .fill import fill


class Params(Section):
    """It takes no settings."""


def build(eligible: Eligible, offered: Offered, params: Params, rng: np.random.Generator) -> Groups:
    """Shuffle the rows and cut them."""
    batches, left = fill(eligible, rng.permutation(offered.rows), offered.batch_size)
    return make_groups(batches, left)


BUILDER = Builder(name="random", build=build, params=Params)
