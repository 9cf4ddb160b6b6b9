"""The logit lens: what the residual stream would predict if the model stopped early.

    log p_l = log softmax( Norm_final(x_l) W_U + b_U ) = log softmax( x_l / s(x_l) W_U' + b_U' )

(nostalgebraist 2020, "interpreting GPT: the logit lens".) x_l is the stream before block l; x_0 is the embedding and
x_L what the model itself reads, so the last row is the model's own prediction. W_U' and b_U' have the final norm folded
in (`weights.py`), which is exact. The lens itself is a reading, not a mechanism: nothing makes the stream of early
layers speak the language of the unembedding.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.bridge import Bridge, chunks, record
from circuits.tokens import check_tokens
from circuits.weights import Weights, read_weights


def stream_hooks(n_layers: int) -> list[str]:
    """Hook points of the residual stream x_0, ..., x_L: before every block, and before the final norm."""
    return [*(f"blocks.{layer}.hook_resid_pre" for layer in range(n_layers)), "ln_final.hook_in"]


@torch.no_grad()
def logit_lens(
    model: Bridge,
    tokens: Int[Tensor, "batch pos"],
    *,
    targets: Int[Tensor, "batch pos-1"] | None = None,
    weights: Weights | None = None,
    batch_size: int = 8,
) -> Float[Tensor, "depth batch pos-1"]:
    """log p_l of the target tokens for l = 0..n_layers (depth = n_layers + 1), in nats; float32.

    On the model's device. The last row is `next_token_log_probs`. At most `batch_size` x pos x d_vocab logits exist at
    once.

    Args:
        targets: column i is the token looked up at position i; by default the next one, `tokens[:, 1:]`.
        weights: of `read_weights(model)`, if they have been read already.

    Raises:
        ValueError: from `check_tokens` (at least 2 positions), `check_targets` and `read_weights`.

    Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
    """
    check_tokens(model, tokens, shortest=2)
    weights = read_weights(model) if weights is None else weights
    targets = tokens[:, 1:] if targets is None else targets
    check_targets("targets", targets, tokens, weights)
    parts = []
    for rows in chunks(len(tokens), batch_size):
        wanted = targets[rows, :, None].to(weights.W_U.device)
        by_layer = [
            logits[:, :-1].gather(-1, wanted).squeeze(-1) - logits[:, :-1].logsumexp(dim=-1)
            for logits in _lens_logits(model, weights, tokens[rows])
        ]
        parts.append(torch.stack(by_layer))
    return torch.cat(parts, dim=1)


@torch.no_grad()
def logit_lens_top(
    model: Bridge, tokens: Int[Tensor, "batch pos"], k: int, *, weights: Weights | None = None, batch_size: int = 8
) -> tuple[Float[Tensor, "depth batch pos k"], Int[Tensor, "depth batch pos k"]]:
    """The k likeliest next tokens by the lens at every layer: their log p_l (nats), falling, and the tokens themselves.

    Raises:
        ValueError: k is not 1 to d_vocab; from `check_tokens` and `read_weights`.

    Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
    """
    check_tokens(model, tokens)
    weights = read_weights(model) if weights is None else weights
    if not 1 <= k <= weights.W_U.shape[1]:
        raise ValueError(f"k is {k}: expected 1 to {weights.W_U.shape[1]}, the tokens that the model can predict")
    log_probs, top_tokens = [], []
    for rows in chunks(len(tokens), batch_size):
        values, picks = [], []
        for logits in _lens_logits(model, weights, tokens[rows]):
            top = logits.topk(k, dim=-1)
            values.append(top.values - logits.logsumexp(dim=-1, keepdim=True))
            picks.append(top.indices)
        log_probs.append(torch.stack(values))
        top_tokens.append(torch.stack(picks))
    return torch.cat(log_probs, dim=1), torch.cat(top_tokens, dim=1)


def check_targets(name: str, targets: Tensor, tokens: Int[Tensor, "batch pos"], weights: Weights) -> None:
    """Refuse target tokens that are not one for every predicted position.

    Raises:
        ValueError: `targets` are not integers [batch, pos - 1] in the output vocabulary.
    """
    expected = (tokens.shape[0], tokens.shape[1] - 1)
    if targets.shape != expected:
        raise ValueError(
            f"{name} have shape {tuple(targets.shape)}: expected {expected}, [batch, pos - 1] of the tokens; give one "
            f"token for every position but the last"
        )
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise ValueError(f"{name} are {targets.dtype}: expected integers; convert them with .long()")
    d_vocab = weights.W_U.shape[1]
    outside = ((targets < 0) | (targets >= d_vocab)).nonzero()
    if len(outside):
        row, column = outside[0].tolist()
        raise ValueError(
            f"{name}[{row}, {column}] is {int(targets[row, column])}: expected 0 to {d_vocab - 1} (the vocabulary); "
            f"use the tokenizer of this model"
        )


def _lens_logits(
    model: Bridge, weights: Weights, tokens: Int[Tensor, "batch pos"]
) -> Iterator[Float[Tensor, "batch pos d_vocab_out"]]:
    """Logits of x_0, ..., x_L, one layer at a time."""
    names = stream_hooks(weights.n_layers)
    seen = record(model, tokens, names)
    for name in names:
        x = seen[name].float()
        yield x / weights.scale(x) @ weights.W_U + weights.b_U
