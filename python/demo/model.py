"""A small byte-level transformer, in plain PyTorch. It knows nothing of Stoker."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """The sizes of the model. The default has 0.5 million parameters: seconds on two cores show it learning."""

    vocabulary: int = 256  # one token a byte
    block_size: int = 128  # tokens that it sees at once
    width: int = 128
    heads: int = 4
    layers: int = 2


class Layer(nn.Module):
    """Causal self-attention, then a feed-forward network, each added to its input."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.before_attention = nn.LayerNorm(shape.width)
        self.query_key_value = nn.Linear(shape.width, 3 * shape.width)
        self.project = nn.Linear(shape.width, shape.width)
        self.before_feed_forward = nn.LayerNorm(shape.width)
        self.feed_forward = nn.Sequential(
            nn.Linear(shape.width, 4 * shape.width), nn.GELU(), nn.Linear(4 * shape.width, shape.width)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Map hidden states [batch, tokens, width] to new ones of the same shape."""
        batch, tokens, width = hidden.shape
        parts = self.query_key_value(self.before_attention(hidden))
        parts = parts.view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
        hidden = hidden + self.project(attended.transpose(1, 2).reshape(batch, tokens, width))
        return hidden + torch.as_tensor(self.feed_forward(self.before_feed_forward(hidden)))


class LanguageModel(nn.Module):
    """Predicts the next byte of a text."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Embedding(shape.block_size, shape.width)
        self.layers = nn.Sequential(*(Layer(shape) for _ in range(shape.layers)))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.02)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss in nats a byte; x and y are [batch, block_size] integers."""
        hidden = self.tokens(x) + self.positions(torch.arange(x.shape[1], device=x.device))
        logits = self.head(self.norm(self.layers(hidden)))
        return functional.cross_entropy(logits.flatten(0, 1), y.flatten())
