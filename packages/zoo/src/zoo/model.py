"""Attention-only transformers, in plain torch for fast training.

    x_0 = W_E[t] + W_pos[i],   x_{l+1} = x_l + Attn_l(LN(x_l)),   logits = LN(x_L) W_U + b_U

(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", with LayerNorm and biases.) Parameters carry
the names of a TransformerLens bridge, so that the saved weights load into one for analysis; a test requires the same
logits from both.
"""

from __future__ import annotations

import math
from typing import cast

import msgspec
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional


class AttentionOnlyConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Shape of an attention-only transformer; the config.json of a model folder."""

    n_layers: int
    d_model: int
    n_heads: int
    d_head: int
    d_vocab: int
    n_ctx: int
    model_type: str = "attention_only"


class Attention(nn.Module):
    """Causal multi-head attention over d_model -> n_heads x d_head -> d_model, with biases."""

    def __init__(self, config: AttentionOnlyConfig) -> None:
        super().__init__()
        self.n_heads, width = config.n_heads, config.n_heads * config.d_head
        self.q = nn.Linear(config.d_model, width)
        self.k = nn.Linear(config.d_model, width)
        self.v = nn.Linear(config.d_model, width)
        self.o = nn.Linear(width, config.d_model)

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        batch, length, _ = x.shape
        q, k, v = (
            projection(x).view(batch, length, self.n_heads, -1).transpose(1, 2)
            for projection in (self.q, self.k, self.v)
        )
        z = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return cast(Tensor, self.o(z.transpose(1, 2).reshape(batch, length, -1)))


class Block(nn.Module):
    def __init__(self, config: AttentionOnlyConfig) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(config.d_model)
        self.attn = Attention(config)

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        return cast(Tensor, x + self.attn(self.ln1(x)))


class AttentionOnly(nn.Module):
    """An attention-only transformer; `seed` fixes the initial weights.

    Position embeddings start as sinusoids (and are trained): previous-token heads, and so induction heads, then form
    several times sooner than from random position embeddings.
    """

    def __init__(self, config: AttentionOnlyConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.d_vocab, config.d_model)
        self.pos_embed = nn.Embedding(config.n_ctx, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.ln_final = nn.LayerNorm(config.d_model)
        self.unembed = nn.Linear(config.d_model, config.d_vocab)
        self._initialise(torch.Generator().manual_seed(seed))

    def forward(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        x = self.embed(tokens) + self.pos_embed.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return cast(Tensor, self.unembed(self.ln_final(x)))

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        deviation = 0.8 / math.sqrt(self.config.d_model)
        into_residual = deviation / math.sqrt(2 * max(1, self.config.n_layers))
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                std = into_residual if name.endswith("attn.o.weight") else deviation
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
            elif name.endswith("bias"):
                parameter.zero_()
        sinusoids = sinusoidal_positions(self.config.n_ctx, self.config.d_model)
        self.pos_embed.weight.copy_(sinusoids * deviation * math.sqrt(2))


def sinusoidal_positions(n_ctx: int, d_model: int, longest: float = 1000.0) -> Float[Tensor, "n_ctx d_model"]:
    """sin and cos of i / longest^(2j / d_model), sines first (Vaswani et al. 2017, section 3.5)."""
    position = torch.arange(n_ctx, dtype=torch.float32)[:, None]
    rate = longest ** (-torch.arange(d_model // 2) / (d_model // 2))
    return torch.cat([torch.sin(position * rate), torch.cos(position * rate)], dim=1)


def next_token_losses(
    logits: Float[Tensor, "batch pos d_vocab"], tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch pos-1"]:
    """Cross-entropy in nats of each token given those before it."""
    return functional.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")
