"""The dual encoder: packed region features and captions into one space of unit vectors.

Both towers end in the same shape: projection, residual MLP, unit length in float32. The image tower
works on the regions of all images of a batch laid end to end, so no padding is ever computed; it
averages each image's normalised regions first. The text tower starts from caption vectors computed
beforehand (``text = "frozen"``) or from an encoder trained along (``text = "finetune"``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from .encoders import mean_states
from .packed import Packed
from .tokens import Tokens

GEOMETRY = 6  # x1, y1, x2, y2, width, height, as shares of the image
PLACE = 64  # numbers a region's place is embedded in


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Everything that decides the shape of a model.

    Attributes:
        feature_dim: numbers of a region. text_dim: numbers of a caption vector or token state.
        embedding_dim: numbers of the shared space. hidden: width inside the residual MLPs.
        dropout: share of input and hidden numbers dropped in training.
        region_dropout: share of regions left out of an image's mean in training.
        temperature: where the learned temperature starts; it stays within the two limits.
    """

    feature_dim: int
    text_dim: int
    text: Literal["frozen", "finetune"] = "frozen"
    embedding_dim: int = 512
    hidden: int = 512
    dropout: float = 0.3
    region_dropout: float = 0.2
    temperature: float = 0.07
    min_temperature: float = 0.01
    max_temperature: float = 1.0


class DualEncoder(nn.Module):
    """An image tower, a text tower and a temperature.

    Args:
        config: the shapes.
        encoder: a transformers encoder, for ``text = "finetune"`` only.
    """

    def __init__(self, config: ModelConfig, encoder: Any = None) -> None:
        super().__init__()
        assert (encoder is not None) == (config.text == "finetune"), "encoder fits config.text"
        self.config = config
        self.image = ImageTower(config)
        self.text = TextTower(config, encoder)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))

    @property
    def temperature(self) -> torch.Tensor:
        """The scalar that divides the cosines."""
        return self.log_temperature.exp()

    @torch.no_grad()
    def clamp_temperature(self) -> None:
        """Keep the temperature within its limits; called after each optimizer step."""
        low, high = math.log(self.config.min_temperature), math.log(self.config.max_temperature)
        self.log_temperature.clamp_(low, high)

    def encode_images(
        self, features: torch.Tensor, geometry: torch.Tensor, cu_seqlens: torch.Tensor
    ) -> torch.Tensor:
        """Encode the regions of B images, laid end to end.

        Args:
            features: (sum n, D) any float. geometry: (sum n, 6). cu_seqlens: (B + 1,) int.

        Returns:
            (B, E) float32 unit vectors.
        """
        return unit(self.image(features, geometry, cu_seqlens))

    def encode_texts(self, texts: torch.Tensor | Packed) -> torch.Tensor:
        """Encode captions: (B, text_dim) vectors when frozen, tokens when fine-tuned.

        Returns:
            (B, E) float32 unit vectors.
        """
        return unit(self.text(texts))

    def forward(
        self,
        features: torch.Tensor,
        geometry: torch.Tensor,
        cu_seqlens: torch.Tensor,
        texts: torch.Tensor | Packed,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode both sides of a batch."""
        return self.encode_images(features, geometry, cu_seqlens), self.encode_texts(texts)


class ImageTower(nn.Module):
    """The mean of the normalised regions and of their places, projected, and an MLP.

    Averaging comes first: what follows it is computed once an image, not once a region.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.embedding_dim
        self.feature_dim = config.feature_dim
        self.project = Projection(config.feature_dim, width, config.dropout)
        self.place = nn.Linear(GEOMETRY, PLACE)
        self.project_place = nn.Linear(PLACE, width)
        self.mlp = ResidualMLP(width, config.hidden, config.dropout)
        self.region_dropout = config.region_dropout

    def forward(
        self, features: torch.Tensor, geometry: torch.Tensor, cu_seqlens: torch.Tensor
    ) -> torch.Tensor:
        weights = torch.ones(len(features), device=features.device)
        if self.training and self.region_dropout:
            weights = kept_regions(cu_seqlens, len(features), self.region_dropout)
        regions = F.layer_norm(features.float(), (self.feature_dim,))
        places = F.gelu(self.place(geometry.float())).float()
        mean = segment_mean(regions, cu_seqlens, weights)
        place = segment_mean(places, cu_seqlens, weights)
        return self.mlp(self.project(mean) + self.project_place(place))


class TextTower(nn.Module):
    """Caption vectors, or the mean token states of an encoder, projected, and an MLP."""

    def __init__(self, config: ModelConfig, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.project = Projection(config.text_dim, config.embedding_dim, config.dropout)
        self.mlp = ResidualMLP(config.embedding_dim, config.hidden, config.dropout)

    def forward(self, texts: torch.Tensor | Packed) -> torch.Tensor:
        if isinstance(texts, Packed):
            tokens = Tokens(ids=texts.rows.cpu().numpy(), cu_seqlens=texts.cu_seqlens.cpu().numpy())
            texts = mean_states(self.encoder, tokens)
        states = texts
        return self.mlp(self.project(states))


class Projection(nn.Module):
    """LayerNorm, dropout, Linear.

    The norm has no weights of its own: the linear layer after it would absorb them.
    """

    def __init__(self, width_in: int, width_out: int, dropout: float) -> None:
        super().__init__()
        self.width_in = width_in
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width_in, width_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.dropout(F.layer_norm(x.float(), (self.width_in,))))


class ResidualMLP(nn.Module):
    """``x + MLP(LayerNorm(x))``."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.narrow = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.dropout(F.gelu(self.widen(self.norm(x.float()))))
        return x.float() + self.narrow(inner).float()


def unit(x: torch.Tensor) -> torch.Tensor:
    """Scale rows to length one, in float32."""
    return F.normalize(x.float(), dim=-1)


def segment_mean(
    rows: torch.Tensor, cu_seqlens: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Average rows image by image; an image without rows gives zeros.

    An embedding bag with one bag an image: unlike ``index_add`` it adds in a fixed order on a
    GPU too.

    Args:
        rows: (sum n, E) float32. cu_seqlens: (B + 1,). weights: (sum n,) of each row in its mean.

    Returns:
        (B, E).
    """
    at = torch.arange(len(rows), device=rows.device)
    offsets = cu_seqlens.to(at.dtype)
    sums = F.embedding_bag(
        at, rows, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )
    return sums / segment_sum(weights, cu_seqlens).clamp(min=1e-6)[:, None]


def segment_sum(values: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
    """Sum values (sum n,) image by image; exact for whole numbers below 2**24."""
    running = F.pad(values.cumsum(0), (1, 0))[cu_seqlens.long()]
    return running.diff()


def kept_regions(cu_seqlens: torch.Tensor, count: int, share: float) -> torch.Tensor:
    """Draw which regions stay: (sum n,) of 0.0 and 1.0; an image that would lose all keeps all."""
    keep = (torch.rand(count, device=cu_seqlens.device) >= share).float()
    lost_all = segment_sum(keep, cu_seqlens) == 0
    lengths = cu_seqlens.diff().long()
    return keep.maximum(lost_all.float().repeat_interleave(lengths, output_size=count))
