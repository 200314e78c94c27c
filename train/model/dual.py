"""The dual encoder: packed region features and captions into one space of unit vectors.

Regions of all images of a batch lie end to end, and so do the tokens of all captions: no padding is
computed by a linear layer. Each tower projects its rows, refines them by a residual MLP, and pools
those of an item to one vector of unit length in float32 (``pooling``). The text tower starts from
caption vectors (``text = "vectors"``) or token states (``"states"``) computed beforehand, or runs
an encoder that is trained along (``"encoder"``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from ...errors import InputError
from .packed import Layout, Packed, draw_kept, segment_mean
from .pooling import Block, Projection, ResidualMLP, blocks_of, exact, make_pool
from .token_states import padding, prepare, token_states

if TYPE_CHECKING:
    from ..stream.batch import Batch

GEOMETRY = 6  # x1, y1, x2, y2, width, height, as shares of the image
PLACE = 64  # numbers a region's place is embedded in
_MULTIPLE = 8  # places of an item on a GPU: few shapes, and those its kernels like


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Everything that decides the shape of a model.

    Attributes:
        feature_dim: numbers of a region. text_dim: numbers of a caption vector or token state.
        text: what the text tower is given; see above.
        pooling: of regions, one of ``POOLINGS``. text_pooling: of tokens, likewise.
        embedding_dim: numbers of the shared space. hidden: width inside the residual MLPs.
        dropout: share of input and hidden numbers dropped in training.
        region_dropout, token_dropout: share of an item's rows left out of its vector in training.
        train_layers: how many of the encoder's last layers are trained; None for all of it.
        temperature: where the learned temperature starts; it stays within the two limits.
    """

    feature_dim: int
    text_dim: int
    text: Literal["vectors", "states", "encoder"] = "vectors"
    pooling: str = "gpo"
    text_pooling: str = "gpo"
    embedding_dim: int = 512
    hidden: int = 512
    dropout: float = 0.3
    region_dropout: float = 0.2
    token_dropout: float = 0.2
    train_layers: int | None = None
    temperature: float = 0.07
    min_temperature: float = 0.01
    max_temperature: float = 1.0


# What a trainer's owner sets under the same names.
SHARED = (
    "pooling",
    "text_pooling",
    "embedding_dim",
    "hidden",
    "dropout",
    "region_dropout",
    "token_dropout",
    "train_layers",
    "temperature",
)


class DualEncoder(nn.Module):
    """An image tower, a text tower and a temperature.

    Args:
        config: the shapes.
        encoder: a transformers encoder, for ``text = "encoder"`` only.
    """

    def __init__(self, config: ModelConfig, encoder: Any = None) -> None:
        super().__init__()
        assert (encoder is not None) == (config.text == "encoder"), "encoder fits config.text"
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
        self,
        features: torch.Tensor,
        geometry: torch.Tensor,
        cu_seqlens: torch.Tensor,
        longest: int | None = None,
    ) -> torch.Tensor:
        """Encode the regions of B images, laid end to end.

        Args:
            features: (sum n, D) any float. geometry: (sum n, 6). cu_seqlens: (B + 1,) int.
            longest: the most regions of an image; asked of the device when omitted.

        Returns:
            (B, E) float32 unit vectors.
        """
        if longest is None:
            longest = int(cu_seqlens.diff().max()) if len(cu_seqlens) > 1 else 0
        layout = Layout.of(cu_seqlens, len(features), _places(longest, features.device))
        return unit(self.image(features, geometry, layout))

    def encode_texts(self, texts: torch.Tensor | Packed) -> torch.Tensor:
        """Encode captions: (B, text_dim) vectors, packed token states, or packed token ids.

        Returns:
            (B, E) float32 unit vectors.
        """
        return unit(self.text(texts))

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode both sides of a batch."""
        regions = (batch.features, batch.geometry, batch.cu_seqlens)
        return self.encode_images(*regions, batch.longest), self.encode_texts(batch.texts)


class ImageTower(nn.Module):
    """Normalised regions and their places, projected, refined and pooled."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.embedding_dim
        self.feature_dim = config.feature_dim
        self.project = Projection(config.feature_dim, width, config.dropout)
        self.place = nn.Linear(GEOMETRY, PLACE)
        self.project_place = nn.Linear(PLACE, width)
        self.head = Head(config, config.pooling, config.region_dropout)

    def forward(
        self, features: torch.Tensor, geometry: torch.Tensor, layout: Layout
    ) -> torch.Tensor:
        places = exact(F.gelu(self.place(exact(geometry).to(self.place.weight.dtype))))
        if self.head.averages:  # what follows is linear up to the mean: computed once an image
            regions = F.layer_norm(exact(features), (self.feature_dim,))
            features, places = self.head.average(layout, regions, places)
        by_item = None if self.head.averages else layout
        rows = exact(self.project(features, by_item)) + exact(self.project_place(places))
        return self.head(rows, layout)


class TextTower(nn.Module):
    """Caption vectors or token states, given or those of an encoder, projected and pooled."""

    def __init__(self, config: ModelConfig, encoder: Any) -> None:
        super().__init__()
        self.encoder = prepare(encoder) if encoder is not None else None
        self.fixed = fix_layers(encoder, config.train_layers) if encoder is not None else []
        self.project = Projection(config.text_dim, config.embedding_dim, config.dropout)
        pooling = "mean" if config.text == "vectors" else config.text_pooling
        self.head = Head(config, pooling, config.token_dropout)

    def train(self, mode: bool = True) -> TextTower:
        """As any module; layers that are not trained drop nothing either."""
        super().train(mode)
        for module in self.fixed:
            module.eval()
        return self

    def padding(self, texts: torch.Tensor | Packed) -> float:
        """Padding that linear layers compute for some captions, as a share of their tokens."""
        if self.encoder is None or not isinstance(texts, Packed):
            return 0.0
        return padding(self.encoder, texts)

    def forward(self, texts: torch.Tensor | Packed) -> torch.Tensor:
        if not isinstance(texts, Packed):
            return self.head.refine(exact(self.project(texts)))
        states = texts.rows if self.encoder is None else token_states(self.encoder, texts)
        layout = Layout.of(texts.cu_seqlens, len(states), _places(texts.longest, states.device))
        if self.head.averages:
            (states,) = self.head.average(layout, exact(states))
        by_item = None if self.head.averages else layout
        return self.head(exact(self.project(states, by_item)), layout)


class Head(nn.Module):
    """What both towers end in: transformer layers (if any), a residual MLP, and the pooling."""

    def __init__(self, config: ModelConfig, pooling: str, row_dropout: float) -> None:
        super().__init__()
        width, dropout = config.embedding_dim, config.dropout
        self.averages = pooling == "mean"
        self.row_dropout = row_dropout
        self.blocks = nn.ModuleList(
            Block(width, config.hidden, dropout) for _ in range(blocks_of(pooling))
        )
        self.refine = ResidualMLP(width, config.hidden, dropout)
        self.pool = None if self.averages else make_pool(pooling, width)

    def average(self, layout: Layout, *rows: torch.Tensor) -> list[torch.Tensor]:
        """The means of rows by item, over the same rows for all; (n, .) each."""
        kept = self._kept(layout)
        weights = torch.ones(len(layout.slots), device=rows[0].device) if kept is None else kept
        return [segment_mean(r, layout.cu_seqlens, weights.to(r.dtype)) for r in rows]

    def forward(self, rows: torch.Tensor, layout: Layout) -> torch.Tensor:
        """Pool (sum t, E) rows to (n, E); rows that are averaged already are (n, E)."""
        if self.pool is None:
            return self.refine(rows)
        present = layout.present(self._kept(layout))
        for block in self.blocks:
            rows = block(rows, layout, present)
        return self.pool(self.refine(rows, layout), layout, present)

    def _kept(self, layout: Layout) -> torch.Tensor | None:
        """Draw which rows stay, in training; None for all."""
        if not (self.training and self.row_dropout):
            return None
        return draw_kept(layout.cu_seqlens, len(layout.slots), self.row_dropout)


def unit(x: torch.Tensor) -> torch.Tensor:
    """Scale rows to length one, in float32 (or float64)."""
    return F.normalize(exact(x), dim=-1)


def fix_layers(encoder: Any, trained: int | None) -> list[nn.Module]:
    """Let only an encoder's last layers be trained.

    Args:
        trained: how many layers; None for everything, 0 for nothing.

    Returns:
        The modules of which no part is trained, which are to drop nothing either; whole layers are
        among them, because attention looks at its own mode to drop weights.
    """
    if trained is None:
        return []
    lists = [list(m) for m in encoder.modules() if isinstance(m, nn.ModuleList)]
    layers = max(lists, key=len, default=[])
    if trained > len(layers):
        found = f"{trained}, and the encoder has {len(layers)} layers"
        raise InputError("train.train_layers", found, expected=f"0 to {len(layers)}")
    last = nn.ModuleList(layers[len(layers) - trained :])
    free = {id(part) for part in (*last.modules(), *last.parameters())}
    for parameter in encoder.parameters():
        parameter.requires_grad_(id(parameter) in free)
    return [m for m in encoder.modules() if free.isdisjoint(map(id, m.modules()))]


def _places(longest: int, device: torch.device) -> int:
    """How many places to give each item."""
    return longest if device.type == "cpu" else -(-longest // _MULTIPLE) * _MULTIPLE
