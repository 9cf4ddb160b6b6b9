"""The in-context models: GPT-2 of the transformers library, so that every tool for such models reads them.

L = sum over the kinds of rows  w_kind / |answers of the kind|  sum over answers  -log p(answer | what precedes it)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from zoo.gpt2_recipes import Shape
from zoo.model import sinusoidal_positions
from zoo.words import BOS_ID

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel


@dataclass(frozen=True)
class Batch:
    """Rows, the answer that follows each position (or `segments.NO_TARGET`), and what an answer of a row weighs."""

    tokens: Int[Tensor, "row pos"]
    targets: Int[Tensor, "row pos"]
    weights: Float[Tensor, " row"]

    def to(self, device: str | torch.device) -> Batch:
        return Batch(self.tokens.to(device), self.targets.to(device), self.weights.to(device))


def build(shape: Shape, d_vocab: int, seed: int = 0) -> GPT2LMHeadModel:
    """A GPT-2 without dropout; `seed` fixes the initial weights and leaves torch's random state as it was.

    Position embeddings start as sinusoids and are trained, so that heads that look at the token before, and with them
    learning in context, form sooner. The unembedding is a matrix of its own: with it tied to the embedding two pilots
    had not begun to tell the names apart after 350 and 650 steps.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=d_vocab,
        n_positions=shape.n_ctx,
        n_embd=shape.d_model,
        n_layer=shape.n_layers,
        n_head=shape.n_heads,
        n_inner=shape.d_mlp,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=BOS_ID,
        eos_token_id=BOS_ID,
        initializer_range=shape.initial_std,
        tie_word_embeddings=False,
        architectures=["GPT2LMHeadModel"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config)
    with torch.no_grad():
        sinusoids = sinusoidal_positions(shape.n_ctx, shape.d_model)
        model.transformer.wpe.weight.copy_(sinusoids * shape.initial_std * math.sqrt(2))
    return model


def answer_logits(
    model: GPT2LMHeadModel, tokens: Int[Tensor, "row pos"], targets: Int[Tensor, "row pos"]
) -> tuple[Float[Tensor, "answer d_vocab"], Int[Tensor, " answer"]]:
    """Logits at every position that an answer follows, row by row, and the answers; no other logit is computed."""
    asked = targets >= 0
    resid = model.transformer(tokens, use_cache=False).last_hidden_state
    return model.lm_head(resid[asked]), targets[asked]


def loss(model: GPT2LMHeadModel, batch: Batch) -> Tensor:
    """The weighted sum of the answers' losses, in nats."""
    logits, answers = answer_logits(model, batch.tokens, batch.targets)
    weights = batch.weights[:, None].expand_as(batch.targets)[batch.targets >= 0]
    return (weights * functional.cross_entropy(logits, answers, reduction="none")).sum()
