"""The numbers of a model card, computed in plain torch.

They are computed here, without hooks and without TransformerLens, so that the detectors of `circuits` have an
independent oracle.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zoo.batches import windows
from zoo.corpus import BOS_ID
from zoo.model import AttentionOnly, Block, next_token_losses

RAREST = 1e-4  # share of the held-out text below which a token is never drawn: bytes that no text holds, mostly


def common_tokens(text: Int[Tensor, " length"], d_vocab: int) -> Int[Tensor, " common"]:
    """Tokens, BOS apart, that make up at least `RAREST` of the text.

    Random tokens are drawn from these, as Olsson et al. 2022 leave out the least common ones: a token that was never
    trained on says nothing about a head.
    """
    counts = torch.bincount(text, minlength=d_vocab)
    counts[BOS_ID] = 0
    return (counts >= max(1.0, RAREST * len(text))).nonzero().flatten()


def repeated_random_tokens(
    n: int, length: int, vocabulary: Int[Tensor, " common"], seed: int
) -> Int[Tensor, "n 1+2*{length}"]:
    """BOS, then `length` random tokens of the vocabulary, none of them twice, and the same segment again."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(n, len(vocabulary), generator=generator).argsort(dim=1)[:, :length]
    segment = vocabulary[places]
    return torch.cat([torch.full((n, 1), BOS_ID), segment, segment], dim=1)


@torch.no_grad()
def attention_patterns(
    model: AttentionOnly, tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "layer batch head pos pos"]:
    """softmax(Q K^T / sqrt(d_head)) of every layer, written out."""
    x = model.embed(tokens) + model.pos_embed.weight[: tokens.shape[1]]
    future = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=tokens.device).triu(1)
    patterns = []
    for block in model.blocks:
        assert isinstance(block, Block)
        normal = block.ln1(x)
        q, k = (
            projection(normal).unflatten(-1, (model.config.n_heads, model.config.d_head)).transpose(1, 2)
            for projection in (block.attn.q, block.attn.k)
        )
        scores = q @ k.transpose(-1, -2) / model.config.d_head**0.5
        patterns.append(scores.masked_fill(future, -torch.inf).softmax(dim=-1))
        x = block(x)
    if not patterns:
        return torch.empty(0, len(tokens), model.config.n_heads, *future.shape)
    return torch.stack(patterns)


@torch.no_grad()
def evaluate(model: AttentionOnly, held_out: Int[Tensor, " length"], *, n_windows: int = 256) -> dict[str, float]:
    """Held-out loss, loss on the two halves of repeated random tokens, and the best head of two kinds."""
    config, length, device = model.config, (model.config.n_ctx - 2) // 2, model.embed.weight.device
    natural = windows(held_out, n_windows, config.n_ctx, torch.Generator().manual_seed(7)).to(device)
    losses = torch.cat([next_token_losses(model(chunk), chunk) for chunk in natural.chunk(max(1, n_windows // 32))])
    common = common_tokens(held_out, config.d_vocab)
    repeated = repeated_random_tokens(32, length, common, seed=8).to(device)
    halves = next_token_losses(model(repeated), repeated).mean(dim=0)
    patterns = attention_patterns(model, repeated).mean(dim=1)
    query = torch.arange(length + 1, 2 * length + 1)
    induction = patterns[..., query, query - length + 1].mean(dim=-1)
    previous = patterns[..., query, query - 1].mean(dim=-1)
    return {
        "held_out_loss": losses.mean().item(),
        "random_tokens_first_half_loss": halves[:length].mean().item(),
        "random_tokens_second_half_loss": halves[length:].mean().item(),
        "best_induction_score": induction.max().item() if induction.numel() else 0.0,
        "best_previous_token_score": previous.max().item() if previous.numel() else 0.0,
    }
