"""JingbiaoMei's VinVL_FE: LXMERT's columns, ids from 1, sixteen attributes a region."""

from __future__ import annotations

from collections.abc import Sequence

from ..regions import MAX_ATTRIBUTES
from . import lxmert
from .row import FeatureFormat, Row

_FIRST = 1


def matches(columns: Sequence[bytes]) -> bool:
    """LXMERT's columns with sixteen attributes a region."""
    return lxmert.matches(columns, MAX_ATTRIBUTES)


def read(columns: Sequence[bytes], mate: Sequence[bytes] | None = None) -> Row:
    """Read a line."""
    return lxmert.read(columns, mate, _FIRST, MAX_ATTRIBUTES)


FORMAT = FeatureFormat(
    about="VinVL_FE (LXMERT's columns, n x 16 attributes)",
    matches=matches,
    read=read,
    first_number=_FIRST,
)
