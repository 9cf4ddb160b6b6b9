"""Task vectors: the stream of a prompt with another query, put in place of the stream of a prompt without examples.

    theta_l = h_l at the last token of (demonstrations, dummy query x')           (Hendel et al. 2023, section 3)
    f(x; theta) = the prediction for the zero-shot query x with  h_l := theta_l  at its last token

The dummy query x' is another than x, so that theta knows the demonstrations and not the query. The public code draws
two dummy queries for each prompt and takes their mean; `per` does.

Conflicting demonstrations (section 4.2): the prompt shows task B, the task vector of A is put in. If the vector carries
the task, the answer of A comes out, whatever the demonstrations say.

    patched wins = mean [prediction = A's answer],    prompt wins = mean [prediction = B's answer]

The layer is chosen on other prompts than those that are scored (`selection.choose`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from function_vectors.encoding import Encoded
from function_vectors.runners import Runner, replacing
from function_vectors.scores import Scores
from interventions import Prompts


def task_vectors(runner: Runner, dummies: Prompts, *, per: int = 1) -> Float[Tensor, "vector layer d_model"]:
    """theta of every layer, of each prompt or of the mean of `per` that follow one another.

    Args:
        dummies: prompts with demonstrations and a dummy query; those of one task vector side by side.

    Raises:
        ValueError: their number is not a multiple of `per`.
    """
    if per < 1 or len(dummies) % per:
        raise ValueError(f"{len(dummies)} prompts, per={per}: expected a multiple of per, prompts for each vector")
    streams = runner.last_stream(dummies)
    return streams.view(-1, per, *streams.shape[1:]).mean(dim=1)


@dataclass(frozen=True)
class Conflict:
    """Which task's answer comes out: with A's task vector in prompts that show task B, by layer, and without it.

    `patched` and `prompt` have the axis layer and count A's and B's answers; `clean_patched` and `clean_prompt` are the
    same of the prompts as they are.
    """

    patched: Scores
    prompt: Scores
    clean_patched: Scores
    clean_prompt: Scores


def conflict(
    runner: Runner,
    regular: Encoded,
    patched_first: Int[Tensor, " prompt"],
    states: Float[Tensor, "prompt_or_1 layer d_model"],
    *,
    layers: Sequence[int] | None = None,
) -> Conflict:
    """Put A's task vectors into prompts whose demonstrations show B.

    Args:
        regular: prompts of task B, with B's answers.
        patched_first: the first token of A's answer to each query.
        states: `task_vectors` of A, one for each prompt or one for all.

    Raises:
        ValueError: not an answer for each prompt; a query with the same first token under both tasks, which cannot
            tell them apart; layers or states that do not fit.
    """
    if len(patched_first) != len(regular.prompts):
        raise ValueError(f"{len(patched_first)} answers for {len(regular.prompts)} prompts: expected one for each")
    ours, theirs = patched_first.cpu()[:, None], regular.first.cpu()[:, None]
    if bool((ours == theirs).any()):
        prompt = int((ours == theirs).nonzero()[0, 0])
        raise ValueError(
            f"prompt {prompt}: both tasks answer with token {int(theirs[prompt])}: expected different first tokens; "
            f"leave that query out"
        )
    at = tuple(range(runner.n_layers)) if layers is None else tuple(layers)
    found = runner.predictions_by_layer(regular.prompts, replacing(states), at)
    clean = runner.predictions(regular.prompts)
    return Conflict(
        patched=Scores(found == ours, ("layer",), (at,)),
        prompt=Scores(found == theirs, ("layer",), (at,)),
        clean_patched=Scores(clean == ours[:, 0]),
        clean_prompt=Scores(clean == theirs[:, 0]),
    )
