"""Token states of packed captions, from any BERT-family encoder of transformers, without padding.

The captions of a batch go through the encoder as one row of tokens, each with its position in its
own caption; every linear layer then works on real tokens only. Attention is a function that
transformers lets one register: it spreads the tokens by caption, and collects them again. Whether
an encoder takes that is tried, once, on four made-up captions: one whose numbers are not those of
the padded way is run the padded way.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from .packed import Layout, Packed, attend

ATTENTION = "tonics_packed"
_TOLERANCE = 1e-3


def token_states(encoder: Any, tokens: Packed) -> torch.Tensor:
    """Encode packed token ids; (sum t, hidden) states of the last layer, differentiable."""
    layout = Layout.of(tokens.cu_seqlens, len(tokens.rows), tokens.longest)
    offset = _offset(encoder)
    if offset is None:
        return _padded(encoder, tokens.rows, layout)
    return _packed(encoder, tokens.rows, layout, offset)


def padding(encoder: Any, tokens: Packed) -> float:
    """Padding that the encoder's linear layers compute, as a share of the real tokens."""
    if _offset(encoder) is not None or not len(tokens.rows):
        return 0.0
    return len(tokens) * tokens.longest / len(tokens.rows) - 1


def prepare(encoder: Any) -> Any:
    """Find out how an encoder is run best; returns it."""
    encoder.tonics_offset = _probe(encoder)
    return encoder


@torch.no_grad()
def leak(encoder: Any) -> float:
    """How far longer captions beside it move a caption's states, as a share of the largest number.

    Args:
        encoder: in evaluation mode, float32, run the padded way.
    """
    tokens = _made_up(encoder)
    layout = Layout.of(tokens.cu_seqlens, len(tokens.rows), tokens.longest)
    beside = _padded(encoder, tokens.rows, layout)
    alone = []
    for ids in tokens.rows.split(tokens.cu_seqlens.diff().tolist()):
        bounds = torch.tensor([0, len(ids)], device=ids.device)
        alone.append(_padded(encoder, ids, Layout.of(bounds, len(ids), len(ids))))
    return float((beside - torch.cat(alone)).abs().max() / beside.abs().max())


def _offset(encoder: Any) -> int | None:
    if not hasattr(encoder, "tonics_offset"):
        prepare(encoder)
    found: int | None = encoder.tonics_offset
    return found


def _packed(encoder: Any, ids: torch.Tensor, layout: Layout, offset: int) -> torch.Tensor:
    found = encoder(
        input_ids=ids.long()[None],
        position_ids=(layout.positions + offset)[None],
        attention_mask=None,
        tonics_layout=layout,
        tonics_present=layout.present(),
    )
    return found.last_hidden_state[0]


def _padded(encoder: Any, ids: torch.Tensor, layout: Layout) -> torch.Tensor:
    pad = float(encoder.config.pad_token_id or 0)
    mask = layout.present().long()
    found = encoder(input_ids=layout.spread(ids.long(), pad), attention_mask=mask)
    return layout.collect(found.last_hidden_state)


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    tonics_layout: Layout | None = None,
    tonics_present: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers calls it: (1, heads, sum t, width) each, to (1, sum t, heads, width)."""
    assert tonics_layout is not None, "packed attention needs the layout of the captions"
    assert tonics_present is not None, "and which of its places hold a token"
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    seen = attend(q, k, v, tonics_layout, tonics_present, dropout=dropout, scale=scaling)
    return seen[None], None


@functools.cache
def _register() -> None:
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(ATTENTION, _attention)
    AttentionMaskInterface.register(ATTENTION, lambda *args, **kwargs: None)


@torch.no_grad()
def _probe(encoder: Any) -> int | None:
    """What to add to positions in the packed way; None where only the padded way is right."""
    if not getattr(encoder, "_supports_attention_backend", False):
        return None
    _register()
    training, usual = encoder.training, encoder.config._attn_implementation
    encoder.eval()
    try:
        tokens = _made_up(encoder)
        layout = Layout.of(tokens.cu_seqlens, len(tokens.rows), tokens.longest)
        wanted = _padded(encoder, tokens.rows, layout)
        encoder.set_attn_implementation(ATTENTION)
        for offset in (0, int(encoder.config.pad_token_id or 0) + 1):
            if _agrees(encoder, tokens.rows, layout, offset, wanted):
                return offset
        encoder.set_attn_implementation(usual)
        return None
    finally:
        encoder.train(training)


def _agrees(
    encoder: Any, ids: torch.Tensor, layout: Layout, offset: int, wanted: torch.Tensor
) -> bool:
    try:
        found = _packed(encoder, ids, layout, offset)
    except Exception:  # whatever an encoder that was not made for it does
        return False
    return found.shape == wanted.shape and bool(
        torch.allclose(found, wanted, rtol=_TOLERANCE, atol=_TOLERANCE)
    )


def _made_up(encoder: Any) -> Packed:
    """Four captions of 1 to 9 tokens that are no padding."""
    lengths, config = torch.tensor([3, 9, 1, 5]), encoder.config
    count = int(lengths.sum())
    known = torch.arange(config.vocab_size)
    known = known[known != (config.pad_token_id or 0)]
    ids = known[torch.arange(1, count + 1) * 7 % len(known)]
    bounds = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    return Packed(
        rows=ids.int().to(encoder.device),
        cu_seqlens=bounds.int().to(encoder.device),
        longest=int(lengths.max()),
    )
