"""The benchmark `reprise bench circuits`: each primitive beside the straightforward version of the same numbers.

Rows are (name, name of the row it is compared with, callable), on a random attention-only model of the shipped shape
and (`bench_gpt2`) on a random GPT-2 small.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import circuits
from circuits import bench_gpt2

Row = tuple[str, str | None, Callable[[], object]]
DETECTORS = (
    circuits.current_token_scores,
    circuits.previous_token_scores,
    circuits.first_token_scores,
    circuits.duplicate_token_scores,
    circuits.prefix_matching_scores,
    circuits.induction_scores,
)


def rows(n: int = 32) -> tuple[Row, ...]:
    """The rows, over `n` sequences of 127 tokens where they are of the shipped shape."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    model = TransformerBridge.boot_native(
        TransformerBridgeConfig(
            n_layers=2,
            d_model=192,
            n_heads=12,
            d_head=16,
            d_vocab=1024,
            n_ctx=128,
            attn_only=True,
            act_fn="relu",
            normalization_type="LN",
            init_weights=True,
            seed=0,
        )
    )
    tokens = circuits.repeated_random_tokens(n, 63, 1024, seed=0, bos=0)

    def full_log_softmax() -> Tensor:
        with torch.no_grad():
            table: Tensor = model(tokens)[:, :-1].log_softmax(dim=-1)
        return table.gather(-1, tokens[:, 1:, None]).squeeze(-1)

    separately, at_once = "six detectors, a forward pass each", "log-probabilities, all logits at once"
    return (
        (separately, None, lambda: [score(model, tokens) for score in DETECTORS]),
        (
            "six detectors, one forward pass",
            "six detectors, a forward pass each",
            lambda: circuits.head_scores(model, tokens),
        ),
        (at_once, None, full_log_softmax),
        (
            "log-probabilities, in chunks",
            at_once,
            lambda: circuits.next_token_log_probs(model, tokens),
        ),
        *bench_gpt2.rows(),
    )
