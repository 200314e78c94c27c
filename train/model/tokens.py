"""Captions as token ids, packed without padding, and how to cut them by length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError

if TYPE_CHECKING:
    from .packed import Packed

MAX_TOKENS = 64
_BLOCK = 8192  # captions handed to the tokenizer at once: bounds its memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Token ids of n captions, one after the other.

    Attributes:
        ids: (sum t,) int32.
        cu_seqlens: (n + 1,) int64; caption k is ``ids[cu_seqlens[k]:cu_seqlens[k + 1]]``.
    """

    ids: np.ndarray
    cu_seqlens: np.ndarray

    def __len__(self) -> int:
        return len(self.cu_seqlens) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(n,) tokens of each caption, special tokens included."""
        return np.diff(self.cu_seqlens)

    def take(self, rows: np.ndarray) -> Tokens:
        """Pick captions by position, in the order asked for; repeats allowed."""
        cu_seqlens = np.concatenate([[0], np.cumsum(self.lengths[rows])])
        return Tokens(ids=self.ids[self.places(rows)], cu_seqlens=cu_seqlens)

    def places(self, rows: np.ndarray) -> np.ndarray:
        """Where in ``ids`` the tokens of some captions stand, caption after caption."""
        return packed_places(self.cu_seqlens[:-1][rows], self.lengths[rows])

    def packed(self) -> Packed:
        """The same as tensors."""
        import torch

        from .packed import Packed

        return Packed(
            rows=torch.from_numpy(self.ids),
            cu_seqlens=torch.from_numpy(self.cu_seqlens.astype(np.int32)),
            longest=int(self.lengths.max(initial=0)),
        )

    def padded(self, pad: int) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and a 0/1 mask, both (n, longest) int64."""
        lengths = self.lengths
        mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
        ids = np.full(mask.shape, pad, np.int64)
        ids[mask] = self.ids
        return ids, mask.astype(np.int64)


def packed_places(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Spell out runs of places.

    >>> packed_places(np.array([7, 2]), np.array([2, 3])).tolist()
    [7, 8, 2, 3, 4]
    """
    ends = np.cumsum(lengths)
    return np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1] if len(ends) else 0)


def tokenise(tokenizer: Any, captions: Sequence[str], max_tokens: int = MAX_TOKENS) -> Tokens:
    """Turn captions into packed token ids, each cut off after ``max_tokens``.

    Raises:
        InputError: a caption yields no token at all.
    """
    limit = min(max_tokens, tokenizer.model_max_length)
    ids, lengths = [], []
    for start in range(0, len(captions), _BLOCK):
        block = tokenizer(
            list(captions[start : start + _BLOCK]),
            truncation=True,
            max_length=limit,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        rows = block["input_ids"]  # lists of Python's numbers, of a hundred times the size
        lengths.append(np.fromiter(map(len, rows), np.int64, len(rows)))
        if not lengths[-1].all():
            empty = start + int(np.argmin(lengths[-1]))
            raise InputError(f"caption {empty}", f"{captions[empty]!r} has no tokens")
        total = int(lengths[-1].sum())
        ids.append(np.fromiter(chain.from_iterable(rows), np.int32, total))
    bounds = np.cumsum(np.concatenate([[0], *lengths]), dtype=np.int64)
    return Tokens(ids=np.concatenate([np.zeros(0, np.int32), *ids]), cu_seqlens=bounds)


def length_batches(
    lengths: np.ndarray, max_tokens: int, max_waste: float = 0.125
) -> list[np.ndarray]:
    """Group rows of like length; a function of the lengths alone.

    Args:
        lengths: (n,) tokens of each row.
        max_tokens: most tokens in a group, padding included (a longer row stands alone).
        max_waste: most padding in a group, as a share of its real tokens.

    Returns:
        Row numbers of each group, ascending by length, ties by position; every row once.

    >>> [g.tolist() for g in length_batches(np.array([9, 3, 3, 8]), 20)]
    [[1, 2], [3, 0]]
    """
    order = np.argsort(lengths, kind="stable")
    cuts, first, real = [], 0, 0
    for at, length in enumerate(lengths[order].tolist()):
        padded = length * (at + 1 - first)
        if at > first and (padded > max_tokens or padded > (1 + max_waste) * (real + length)):
            cuts.append(at)
            first, real = at, 0
        real += length
    return [group for group in np.split(order, cuts) if len(group)]
