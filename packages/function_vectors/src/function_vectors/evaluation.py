"""How well a model does a task: as it is, and with a vector added (or a state put in) at each layer.

    right = the answer's first token has the highest logit at the last token of the prompt           (Todd et al. 2024,
    right with v at l = the same with  h_l := h_l + v  at the last token                              section 3, top-1)

Which prompts are given is the condition: zero-shot, with shuffled labels, natural text, another template. A layer costs
one row of each prompt, not a pass. Where two logits are equal the token of the lower number counts as predicted, so
that one token alone is right.

Whole answers are compared with greedy continuations: right means that they begin with all tokens of the answer. The
vector acts at the query's last token; the public code of Todd et al. adds it, when it generates, at every token that
follows too, and so do `whole_answers` and `natural_text` unless told otherwise by `every_step=False`. A state of Hendel
et al. replaces that of the query's last token alone.

Score on other prompts than those that heads, k and layer were chosen by.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from function_vectors.encoding import Encoded
from function_vectors.runners import Head, Runner, StreamEdit, adding
from function_vectors.scores import Scores
from function_vectors.vectors import vectors_by_k


def score(runner: Runner, encoded: Encoded, *, candidates: Int[Tensor, " choice"] | None = None) -> Scores:
    """Right or wrong on each prompt, without an edit.

    Args:
        candidates: tokens to choose among instead of all: with the first tokens of the task's answers
            (`encoding.answer_set`) this is the control that tells a task from the class of its answers.

    Raises:
        ValueError: an answer is not among the candidates.
    """
    _check_candidates(encoded, candidates)
    return Scores(runner.predictions(encoded.prompts, candidates) == encoded.first.cpu())


def score_by_layer(
    runner: Runner,
    encoded: Encoded,
    edit: StreamEdit,
    *,
    layers: Sequence[int] | None = None,
    candidates: Int[Tensor, " choice"] | None = None,
) -> Scores:
    """Right or wrong with the edit at each layer, one at a time; axis layer.

    Args:
        edit: `runners.adding(vector)`, `runners.replacing(states)`.
        layers: all by default.

    Raises:
        ValueError: layers that do not exist, an edit for other prompts or another model, an answer that is not among
            the candidates.
    """
    _check_candidates(encoded, candidates)
    at = _all(runner, layers)
    found = runner.predictions_by_layer(encoded.prompts, edit, at, candidates)
    return Scores(found == encoded.first.cpu()[:, None], ("layer",), (at,))


def score_by_edit(
    runner: Runner,
    encoded: Encoded,
    edits: Sequence[StreamEdit],
    *,
    layers: Sequence[int] | None = None,
    candidates: Int[Tensor, " choice"] | None = None,
) -> list[Scores]:
    """`score_by_layer` of several edits: the prompts are run once for all.

    Raises:
        ValueError: no edits; else as `score_by_layer`.
    """
    _check_candidates(encoded, candidates)
    at = _all(runner, layers)
    found = runner.predictions_by_edit(encoded.prompts, edits, at, candidates) == encoded.first.cpu()[:, None, None]
    return [Scores(right, ("layer",), (at,)) for right in found.unbind(dim=1)]


def score_by_k(
    runner: Runner,
    encoded: Encoded,
    z: Float[Tensor, "layer head d_head"],
    heads: Sequence[Head],
    ks: Sequence[int],
    *,
    layers: Sequence[int] | None = None,
) -> Scores:
    """Right or wrong with the vector of the first k of `heads` added at each layer; axes k and layer.

    Raises:
        ValueError: as `vectors.vectors_by_k` and `score_by_layer`.
    """
    vectors = vectors_by_k(runner, z, heads, ks, task="")
    parts = score_by_edit(runner, encoded, [adding(each.vector) for each in vectors], layers=layers)
    right = torch.stack([part.right for part in parts], dim=1)
    return Scores(right, ("k", "layer"), (tuple(ks), _all(runner, layers)))


def whole_answers(
    runner: Runner,
    encoded: Encoded,
    edit: StreamEdit | None = None,
    *,
    layers: Sequence[int] = (0,),
    every_step: bool = True,
) -> Scores:
    """Whether the greedy continuation begins with the whole answer; axis layer, or none without an edit.

    Args:
        every_step: whether an edit that adds also acts at the tokens that are generated.

    Raises:
        ValueError: as `score_by_layer`.
    """
    n_tokens = max(map(len, encoded.answers))

    def right(layer: int) -> Bool[Tensor, " prompt"]:
        found = _generated(runner, encoded, n_tokens, edit, layer, every_step)
        rows = zip(found.tolist(), encoded.answers, strict=True)
        return torch.tensor([tuple(row[: len(answer)]) == answer for row, answer in rows])

    if edit is None:
        return Scores(right(0))
    return Scores(torch.stack([right(layer) for layer in layers], dim=1), ("layer",), (tuple(layers),))


def natural_text(
    runner: Runner,
    encoded: Encoded,
    edit: StreamEdit | None = None,
    *,
    layer: int = 0,
    n_tokens: int = 5,
    every_step: bool = True,
) -> Scores:
    """Whether the answer's tokens stand anywhere in a greedy continuation of `n_tokens`.

    That is how the public code of Todd et al. 2024 scores sentences that mention the query and leave open what follows
    (section 3.1; 5 tokens, 10 for capitals), by text rather than by tokens.

    Raises:
        ValueError: an answer longer than `n_tokens`; else as `score_by_layer`.
    """
    if (longest := max(map(len, encoded.answers))) > n_tokens:
        raise ValueError(f"n_tokens={n_tokens} for answers of up to {longest} tokens: expected at least {longest}")
    found = _generated(runner, encoded, n_tokens, edit, layer, every_step)
    rows = zip(found.tolist(), encoded.answers, strict=True)
    return Scores(torch.tensor([_contains(row, answer) for row, answer in rows]))


def _generated(
    runner: Runner, encoded: Encoded, n_tokens: int, edit: StreamEdit | None, layer: int, every_step: bool
) -> Int[Tensor, "prompt token"]:
    every_step = every_step and edit is not None and not edit.replace
    return runner.generated(encoded.prompts, n_tokens, edit=edit, layer=layer, every_step=every_step)


def _contains(tokens: list[int], answer: tuple[int, ...]) -> bool:
    starts = range(len(tokens) - len(answer) + 1)
    return any(tuple(tokens[start : start + len(answer)]) == answer for start in starts)


def _all(runner: Runner, layers: Sequence[int] | None) -> tuple[int, ...]:
    return tuple(range(runner.n_layers)) if layers is None else tuple(layers)


def _check_candidates(encoded: Encoded, candidates: Int[Tensor, " choice"] | None) -> None:
    if candidates is None:
        return
    outside = ~torch.isin(encoded.first.cpu(), candidates.cpu())
    if bool(outside.any()):
        prompt = int(outside.nonzero()[0])
        raise ValueError(
            f"the answer of prompt {prompt} begins with token {int(encoded.first[prompt])}, which is not among the "
            f"{len(candidates)} candidates: expected the answer set of the prompts' task"
        )
