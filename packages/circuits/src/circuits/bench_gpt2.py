"""Rows of `reprise bench circuits` at GPT-2-small shapes: 12 layers x 12 heads x 64, d_model 768, vocabulary 50,257.

Weights are random. The straightforward versions are TransformerLens's own where it has one; that of the copying
accuracy multiplies the full OV circuit out, which takes 9.4 GiB.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

import circuits

Row = tuple[str, str | None, Callable[[], object]]
HEAD = (3, 5)
N_HEADS = 144


@cache
def gpt2() -> Any:
    """A bridge around a random GPT-2 small."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    network = GPT2LMHeadModel(GPT2Config(attn_implementation="eager"))
    return build_bridge_from_module(network, "GPT2LMHeadModel", hf_config=network.config).eval()


def straightforward_copying() -> Tensor:
    """Top-1 copying of one head from the full OV circuit, multiplied out by TransformerLens's FactoredMatrix."""
    with torch.no_grad():
        full = gpt2().W_E @ gpt2().OV[HEAD] @ gpt2().W_U
        top: Tensor = full.AB.argmax(dim=-1)
    return (top == torch.arange(len(top))).float().mean()


def straightforward_composition() -> list[Tensor]:
    """Composition of all pairs by TransformerLens, one kind after the other."""
    with torch.no_grad():
        return [gpt2().all_composition_scores(kind).scores for kind in "QKV"]


def straightforward_attribution(tokens: Tensor) -> Tensor:
    """Every head's part of the correct token's logit from TransformerLens's cache, which forms every head's output."""
    with torch.no_grad():
        _, cache = gpt2().run_with_cache(tokens)
        results = cache.stack_head_results(apply_ln=True)[..., :-1, :]
        return torch.einsum("cbpm,mbp->cbp", results, gpt2().W_U[:, tokens[:, 1:]])


def rows() -> tuple[Row, ...]:
    """The rows, on 16 sequences of 128 tokens where tokens are needed."""
    weights = circuits.read_weights(gpt2())
    tokens = torch.randint(0, 50257, (16, 128), generator=torch.Generator().manual_seed(0))
    copying, composed = (
        "OV copying of 1 head, matrix multiplied out",
        "Q-, K- and V-composition of all pairs, TransformerLens",
    )
    attribution = "attribution of 16 x 128 tokens, TransformerLens"
    return (
        (copying, None, straightforward_copying),
        ("OV copying of 1 head", copying, lambda: circuits.copying_accuracy_of_sum(weights, [HEAD])),
        (f"OV copying of all {N_HEADS} heads", None, lambda: circuits.copying_accuracy(weights)),
        (f"OV eigenvalues of all {N_HEADS} heads", None, lambda: circuits.ov_eigenvalues(weights)),
        (composed, None, straightforward_composition),
        ("Q-, K- and V-composition of all pairs", composed, lambda: circuits.composition_scores(weights)),
        (attribution, None, lambda: straightforward_attribution(tokens)),
        (
            "attribution of 16 x 128 tokens",
            attribution,
            lambda: circuits.logit_attribution(gpt2(), tokens, weights=weights),
        ),
    )
