"""From texts to tokens: the model's BOS in front, and every text with at least one token of its own.

A text is encoded as it stands. A leading space is part of it: byte-level tokenizers have other tokens for " weddings"
than for "weddings", and what a prompt goes on with has to bring its space along. A word-level tokenizer drops spaces,
so that " " has no tokens there.
"""

from __future__ import annotations

from collections.abc import Iterable

from interventions import Model, ModelError, Prompts, as_prompts
from steering.errors import SteeringError


def encode(model: Model, text: str, *, allow_empty: bool = False) -> list[int]:
    """The tokens of a text, with the model's BOS in front unless the text begins with it.

    Args:
        allow_empty: take a text without tokens of its own, if there is a BOS: a prompt to begin anywhere.

    Raises:
        SteeringError: the model has no tokenizer, or the text no tokens or more than n_ctx.
    """
    if model.tokenizer is None:
        raise SteeringError(f"{model.name} has no tokenizer: expected one beside the weights; put its files there")
    own = model.tokenizer.encode(text)
    if model.bos is not None and own[:1] == [model.bos]:
        own = own[1:]
    start = [] if model.bos is None else [model.bos]
    if not own and not (allow_empty and start):
        raise SteeringError(
            f"text {_short(text)} has no tokens in {model.name}: expected at least one; write something that its "
            f"tokenizer knows"
        )
    n_ctx = longest(model)
    if n_ctx is not None and len(start) + len(own) > n_ctx:
        raise SteeringError(
            f"text {_short(text)} has {len(start) + len(own)} tokens in {model.name}: expected at most n_ctx={n_ctx}; "
            f"shorten it"
        )
    return start + own


def longest(model: Model) -> int | None:
    """The most tokens that the model takes, where its config says so."""
    try:
        return model.n_ctx
    except ModelError:
        return None


def encode_texts(model: Model, texts: Iterable[str], *, allow_empty: bool = False) -> Prompts:
    """Texts as one batch, padded on the left; on the CPU.

    Raises:
        SteeringError: as `encode`, or there is no text.
    """
    rows = [encode(model, text, allow_empty=allow_empty) for text in texts]
    if not rows:
        raise SteeringError("no texts: expected at least one")
    return as_prompts(rows)


def continuation(model: Model, prompt: str, text: str) -> tuple[list[int], list[int]]:
    """The tokens of a prompt, and those of a text as it follows it (`text` brings its space along).

    The two are encoded together: what a tokenizer makes of the text alone need not be what follows the prompt.

    Raises:
        SteeringError: as `encode`, the tokenizer merges across their border, or the text adds no token.
    """
    before, whole = encode(model, prompt), encode(model, prompt + text)
    if whole[: len(before)] != before:
        raise SteeringError(
            f"{_short(text)} behind {_short(prompt[-30:])}: {model.name}'s tokenizer merges across the border; begin "
            f"the text with a space, or end the prompt elsewhere"
        )
    if len(whole) == len(before):
        raise SteeringError(f"text {_short(text)} adds no token to its prompt: expected at least one")
    return before, whole[len(before) :]


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
