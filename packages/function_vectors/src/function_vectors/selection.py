"""Choosing the number of heads and the layer, on prompts that are not scored afterwards; and the queries to look at.

    order = top_heads(average_indirect_effect(...), n)          from prompts with shuffled labels
    choice = choose(score_by_k(runner, chosen_on, z, order, ks))
    score_by_layer(runner, scored_on, adding(vector), layers=[choice.layer])

`chosen_on` and `scored_on` are two encodings of prompts with different queries, such as those of the two parts of
`tasks.split`. What is chosen as the best of many is too good on the prompts that it was chosen by.

The public code of Todd et al. 2024 takes means over, and scores, only those queries that the model answers right with
ten clean examples. `answered` keeps them: prompts of one seed ask for the same queries with and without examples.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from function_vectors.encoding import Encoded
from function_vectors.scores import Scores


@dataclass(frozen=True)
class Choice:
    """The place of highest accuracy: `k` heads (None where only layers were compared), added at `layer`."""

    k: int | None
    layer: int
    accuracy: float


def choose(scores: Scores) -> Choice:
    """The layer, or the k and layer, of highest accuracy; of equal ones the smallest k, then the earliest layer.

    Args:
        scores: of `evaluation.score_by_layer` or `score_by_k`, on prompts kept for choosing.

    Raises:
        ValueError: scores over other axes.
    """
    if scores.axes not in (("layer",), ("k", "layer")):
        raise ValueError(f"scores over {scores.axes}: expected those of score_by_layer or score_by_k")
    accuracy = scores.accuracy.view(-1, scores.right.shape[-1])
    ks = scores.coordinates[0] if len(scores.axes) == 2 else (None,)
    layers = scores.coordinates[-1]
    places = [
        (-float(accuracy[row, column]), k or 0, layer, k)
        for row, k in enumerate(ks)
        for column, layer in enumerate(layers)
    ]
    highest, _, layer, k = min(places, key=lambda place: place[:3])
    return Choice(k, layer, -highest)


def answered(encoded: Encoded, right: Bool[Tensor, " prompt"]) -> Encoded:
    """The prompts whose query is answered right, such as `score(runner, ten_shot).right` says of the same queries.

    Raises:
        ValueError: not a verdict for each prompt, or none is right.
    """
    if len(right) != len(encoded.answers) or not bool(right.any()):
        raise ValueError(
            f"{len(right)} verdicts, {int(right.sum())} right, for {len(encoded.answers)} prompts: expected one for "
            f"each, and at least one right; a task that the model cannot do has no such prompts"
        )
    places = right.cpu().nonzero()[:, 0]
    return Encoded(encoded.prompts.take(places), tuple(encoded.answers[place] for place in places.tolist()))
