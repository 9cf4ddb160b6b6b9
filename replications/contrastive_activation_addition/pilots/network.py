"""The pilots' network: a small pre-norm transformer whose unembedding is its embedding.

    h <- h + attention(N(h)),   h <- h + W_down relu(W_up N(h)),   logits = W_E^T N(h)

A vector may be added behind a layer, and the attention of some places to others be blocked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from replications.contrastive_activation_addition.pilots.settings import Settings
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

Stream = Float[Tensor, "row place d_model"]


class Block(nn.Module):
    """One layer: attention, then a network of one hidden layer four times as wide."""

    def __init__(self, d_model: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln1, self.qkv, self.o = nn.LayerNorm(d_model), nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
        self.ln2, self.up = nn.LayerNorm(d_model), nn.Linear(d_model, 4 * d_model)
        self.down = nn.Linear(4 * d_model, d_model)

    def forward(self, x: Stream, seen: Bool[Tensor, "place place"] | None) -> Stream:
        rows, places, d_model = x.shape
        qkv = self.qkv(self.ln1(x)).view(rows, places, 3, self.heads, d_model // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=seen is None)
        x = x + self.o(z.transpose(1, 2).reshape(rows, places, d_model))
        out: Tensor = x + self.down(F.relu(self.up(self.ln2(x))))
        return out


class Network(nn.Module):
    """Weights are drawn from torch's random state."""

    def __init__(self, settings: Settings, vocabulary: int, width: int) -> None:
        super().__init__()
        d_model = settings.d_model
        self.embedding, self.positions = nn.Embedding(vocabulary, d_model), nn.Embedding(width, d_model)
        self.blocks = nn.ModuleList([Block(d_model, settings.heads) for _ in range(settings.layers)])
        self.ln = nn.LayerNorm(d_model)
        for matrix in (p for p in self.parameters() if p.dim() == 2):
            nn.init.normal_(matrix, std=0.5 / math.sqrt(matrix.shape[1]))
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.positions.weight.data = 0.15 * sinusoids(width, d_model)

    def forward(
        self,
        tokens: Int[Tensor, "row place"],
        added: Mapping[int, Float[Tensor, "rows place d_model"]] | None = None,
        blocked: Bool[Tensor, "place place"] | None = None,
    ) -> Float[Tensor, "row place token"]:
        """Logits.

        Args:
            added: to the stream behind a layer, for all rows or for each.
            blocked: [from, to], which places' attention to which is taken away; each place must see at least one.
        """
        logits: Tensor = self.ln(self._through(tokens, added or {}, blocked)[-1]) @ self.embedding.weight.T
        return logits

    def streams(self, tokens: Int[Tensor, "row place"]) -> list[Stream]:
        """The stream behind every layer."""
        return self._through(tokens, {}, None)

    def _through(
        self, tokens: Int[Tensor, "row place"], added: Mapping[int, Tensor], blocked: Bool[Tensor, "place place"] | None
    ) -> list[Stream]:
        places = tokens.shape[1]
        seen = None
        if blocked is not None:
            seen = torch.ones(places, places, dtype=torch.bool).tril() & ~blocked[:places, :places]
        x, kept = self.embedding(tokens) + self.positions.weight[:places], []
        for layer, block in enumerate(self.blocks):
            x = block(x, seen)
            if layer in added:
                x = x + added[layer]
            kept.append(x)
        return kept


def sinusoids(width: int, d_model: int) -> Float[Tensor, "place d_model"]:
    """Sines and cosines of the place, of wavelengths from 2 pi to 200 pi: where the embedding of places begins."""
    half = d_model // 2
    angles = torch.arange(width)[:, None] * torch.exp(-math.log(100.0) * torch.arange(half) / half)
    return torch.cat([torch.sin(angles), torch.cos(angles)], 1)
