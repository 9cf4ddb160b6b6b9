"""Next-token losses, and in-context learning as their fall over the context.

    log p_i = log softmax(logits_{i-1})[t_i],    loss_i = -log p_i
    in-context learning score = mean over sequences of  loss_500 - loss_50

(Olsson et al. 2022, "In-context Learning and Induction Heads", Argument 1.) All in nats. The softmax is taken in
float32 whatever the dtype of the model.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.bridge import Bridge, chunks, inference
from circuits.tokens import check_tokens


def next_token_log_probs(
    model: Bridge, tokens: Int[Tensor, "batch pos"], *, batch_size: int = 8
) -> Float[Tensor, "batch pos-1"]:
    """log p of each token given those before it, in nats; column i is token i + 1. float32, on the device of `tokens`.

    At most `batch_size` x pos x d_vocab logits exist at once.

    Raises:
        ValueError: from `check_tokens` (at least 2 positions).
    """
    check_tokens(model, tokens, shortest=2)
    return torch.cat([_log_probs(model, tokens[rows]) for rows in chunks(len(tokens), batch_size)])


def in_context_learning_score(
    log_probs: Float[Tensor, "batch targets"], *, early: int = 50, late: int = 500, width: int = 1
) -> Float[Tensor, " batch"]:
    """loss_late - loss_early of each sequence, in nats: the more negative, the more is learned in context.

    Args:
        log_probs: of `next_token_log_probs`: column i is the token at position i + 1.
        early, late: positions of predicted tokens, counted from 0. With a BOS at position 0 they are the 50th and the
            500th token of the text, as in Olsson et al. 2022.
        width: how many positions centred there are averaged, an odd number; the paper has 1, short contexts want more.

    Raises:
        ValueError: a window lies beyond the sequence, `early` is not before `late`, or `width` is not odd.
    """
    if width < 1 or width % 2 == 0:
        raise ValueError(f"width is {width}: expected an odd number of positions, so that they have a centre")
    if early >= late:
        raise ValueError(f"early={early}, late={late}: expected early before late")
    return _mean_loss(log_probs, "late", late, width) - _mean_loss(log_probs, "early", early, width)


def _log_probs(model: Bridge, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos-1"]:
    with inference(model):
        logits: Tensor = model(tokens.to(model.cfg.device))[:, :-1].float()
        right = tokens[:, 1:, None].to(logits.device)
        return (logits.gather(-1, right).squeeze(-1) - logits.logsumexp(dim=-1)).to(tokens.device)


def _mean_loss(
    log_probs: Float[Tensor, "batch targets"], name: str, position: int, width: int
) -> Float[Tensor, " batch"]:
    first = position - width // 2
    last = position + width // 2
    if first < 1 or last > log_probs.shape[1]:
        raise ValueError(
            f"{name}={position} with width={width} needs positions {first} to {last}: expected them within 1 to "
            f"{log_probs.shape[1]}, the predicted positions; choose positions inside the context"
        )
    return -log_probs[:, first - 1 : last].mean(dim=1)
