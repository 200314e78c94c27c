"""A part of a stage, for one machine of several: every so many shards."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Every ``of``-th shard of a stage, from the ``number``-th on, counted from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read ``3/16``.

        Raises:
            InputError: it is something else.
        """
        match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
        if match is None or int(match[1]) > int(match[2]):
            raise InputError("--shards", repr(text), expected="K/N, K from 1 to N, such as 3/16")
        return cls(number=int(match[1]), of=int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"
