"""What the text tower needs of a pair: cached vectors, or token ids made once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch

from ...artifact import hash_bytes, hash_json
from ...errors import InputError, PlanMismatch, first_ten
from ..model.packed import Packed
from ..model.tokens import MAX_TOKENS, Tokens, packed_places, tokenise
from ..plan import Plan
from .token_files import kept_tokens, tokens_identity


class Texts(Protocol):
    """What the text tower needs of a pair, by pair number.

    Attributes:
        kind: what comes: (B, d) "vectors", or ``Packed`` "states" or token ids, for the "encoder".
        identity: a hash of all there is, for checkpoints.
    """

    identity: str

    @property
    def kind(self) -> Literal["vectors", "states", "encoder"]: ...

    def __call__(self, pairs: np.ndarray) -> torch.Tensor | Packed: ...


class CachedTexts:
    """Caption vectors computed beforehand, for a frozen text tower.

    Args:
        lookup: maps (n,) pair numbers to (n, dim) vectors of any float.
        dim: numbers of a vector.
        identity: a hash of what the vectors were made from.
    """

    kind: Literal["vectors"] = "vectors"

    def __init__(
        self, lookup: Callable[[np.ndarray], np.ndarray], *, dim: int, identity: str
    ) -> None:
        self.lookup, self.dim, self.identity = lookup, dim, identity

    @classmethod
    def of_rows(cls, vectors: np.ndarray, pairs: np.ndarray | None = None) -> CachedTexts:
        """Serve an array: row k belongs to pair k, or to ``pairs[k]`` (increasing numbers).

        Raises:
            PlanMismatch: (on use) a pair has no row.
        """
        known = np.arange(len(vectors)) if pairs is None else pairs
        identity = hash_json([hash_bytes(np.ascontiguousarray(a).data) for a in (known, vectors)])
        return cls(
            lambda asked: vectors[positions(known, asked)],
            dim=vectors.shape[1],
            identity=identity,
        )

    def __call__(self, pairs: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.array(self.lookup(pairs), np.float32))


class CachedStates:
    """Token states computed beforehand, for a frozen text tower that pools them itself.

    Args:
        lookup: maps (n,) pair numbers to (sum t, dim) states of any float, and (n,) lengths.
        dim: numbers of a state.
        identity: a hash of what the states were made from.
    """

    kind: Literal["states"] = "states"

    def __init__(
        self,
        lookup: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
        *,
        dim: int,
        identity: str,
    ) -> None:
        self.lookup, self.dim, self.identity = lookup, dim, identity

    @classmethod
    def of_rows(cls, states: np.ndarray, lengths: np.ndarray) -> CachedStates:
        """Serve arrays: pair k has ``lengths[k]`` of the (sum t, dim) rows, after pair k - 1's."""
        starts = np.cumsum(lengths) - lengths
        identity = hash_json([hash_bytes(np.ascontiguousarray(a).data) for a in (lengths, states)])
        return cls(
            lambda asked: (states[packed_places(starts[asked], lengths[asked])], lengths[asked]),
            dim=states.shape[1],
            identity=identity,
        )

    def __call__(self, pairs: np.ndarray) -> Packed:
        states, lengths = self.lookup(pairs)
        bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return Packed(
            rows=torch.from_numpy(states),
            cu_seqlens=torch.from_numpy(bounds),
            longest=int(lengths.max(initial=0)),
        )


Cached = CachedTexts | CachedStates


class TokenisedTexts:
    """Token ids, made once, for a text tower that is fine-tuned.

    Args:
        pairs: (n,) increasing pair numbers. captions: the caption of each, or their tokens.
        max_tokens: where a caption is cut off.
    """

    kind: Literal["encoder"] = "encoder"

    def __init__(
        self,
        tokenizer: Any,
        pairs: np.ndarray,
        captions: Sequence[str] | Tokens,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        self.pairs = pairs
        if not isinstance(captions, Tokens):
            captions = tokenise(tokenizer, captions, max_tokens)
        self.tokens = captions
        arrays = (pairs, self.tokens.ids, self.tokens.cu_seqlens)
        self.identity = hash_json([hash_bytes(np.ascontiguousarray(a).data) for a in arrays])

    @classmethod
    def of_plan(
        cls,
        tokenizer: Any,
        plan: Plan,
        max_tokens: int = MAX_TOKENS,
        *,
        cache: Path | str | None = None,
    ) -> TokenisedTexts:
        """Tokenise every caption of a plan's pairs, or map the tokens that were kept of them.

        Args:
            cache: a folder to keep the tokens in, for other ranks and later runs.
        """
        pairs, captions = (plan.pairs.column(name) for name in ("pair", "caption"))
        found: Sequence[str] | Tokens
        if cache is None:
            found = captions.to_pylist()
        else:
            identity = tokens_identity(tokenizer, plan.header["pairs_hash"], max_tokens)
            found = kept_tokens(
                Path(cache) / f"{identity}.tokens.arrow",
                lambda: tokenise(tokenizer, captions.to_pylist(), max_tokens),
            )
        return cls(tokenizer, pairs.to_numpy(), found, max_tokens)

    def __call__(self, pairs: np.ndarray) -> Packed:
        return self.tokens.take(positions(self.pairs, pairs)).packed()


def texts_of(texts: Texts | Any, plan: Plan) -> Texts:
    """Turn a tokenizer into the texts of a plan; what are texts already stay as they are.

    Raises:
        InputError: it is neither.
    """
    if hasattr(texts, "identity"):
        return cast(Texts, texts)
    return TokenisedTexts.of_plan(checked_tokenizer(texts), plan)


def checked_tokenizer(tokenizer: Any) -> Any:
    """Refuse what is no tokenizer.

    Raises:
        InputError: it cannot be called, or does not say how long a text may be.
    """
    if callable(tokenizer) and hasattr(tokenizer, "model_max_length"):
        return tokenizer
    expected = "CachedTexts, TokenisedTexts or a Hugging Face tokenizer"
    raise InputError("texts", f"a {type(tokenizer).__name__}", expected=expected)


def positions(known: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Find pair numbers in an increasing array.

    Raises:
        PlanMismatch: a number is not there.
    """
    at = np.searchsorted(known, pairs)
    found = known.take(at, mode="clip") == pairs if len(known) else np.zeros(len(pairs), bool)
    if not np.all(found):
        missing = first_ten(np.asarray(pairs)[~found].tolist())
        raise PlanMismatch("texts", f"no caption for pairs {missing}", do="run 'tonics embed'")
    return at
