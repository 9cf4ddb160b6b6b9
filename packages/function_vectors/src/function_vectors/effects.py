"""Which heads carry the task: the causal indirect effect of every attention head.

    CIE(l, h | p) = P(y | p, z_lh := mean z_lh) - P(y | p)            p: a prompt with shuffled labels, y its answer
    AIE(l, h)     = mean over tasks of the mean over prompts of CIE(l, h | p)

(Todd et al. 2024, section 2.3.) The head's z is replaced at the last token alone, by its mean over
clean prompts of the same task (`vectors.mean_z`), and P is the probability of the first token of the answer. A head of
large effect brings back a task that the shuffled labels hide. Exact: every head is one forward pass with that one z
replaced, however the runner computes it.

Heads are chosen on these prompts. Score the vector on others, encoded from other pairs: a vector is easily good on the
very prompts that it was chosen by.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from function_vectors.encoding import Encoded
from function_vectors.runners import Head, Runner
from interventions import SweepResult


def indirect_effects(runner: Runner, shuffled: Encoded, z: Float[Tensor, "layer head d_head"]) -> SweepResult:
    """CIE of every head on each prompt: `.effects` [prompt, layer, head], in units of probability.

    `.clean` is P(y | p), `.values` the probability with the head replaced; `.mean()`, `.interval(seed=...)` are over
    prompts.

    Args:
        shuffled: prompts with shuffled labels, of the task whose mean `z` is given; answers may have several tokens, of
            which the first counts.
        z: `vectors.mean_z` over clean prompts.

    Raises:
        ValueError: z is of another model.
    """
    if z.shape[:2] != (runner.n_layers, runner.n_heads):
        raise ValueError(
            f"mean z has shape {tuple(z.shape)}: expected [{runner.n_layers}, {runner.n_heads}, d_head], layers and "
            f"heads of the model; compute it by mean_z with the same runner"
        )
    return runner.with_head_replaced(shuffled.prompts, shuffled.first, z)


def average_indirect_effect(tasks: Sequence[SweepResult]) -> Float[Tensor, "layer head"]:
    """AIE: the mean over tasks, each counted alike whatever its number of prompts.

    Raises:
        ValueError: there is no task, or they are of models of different shapes.
    """
    shapes = {tuple(result.values.shape[1:]) for result in tasks}
    if len(shapes) != 1:
        raise ValueError(
            f"indirect effects of {len(tasks)} tasks, of shapes {sorted(shapes)}: expected at least one task, all of "
            f"one model"
        )
    return torch.stack([result.mean() for result in tasks]).mean(dim=0)


def top_heads(effects: Float[Tensor, "layer head"], k: int) -> tuple[Head, ...]:
    """The k heads of largest effect, the largest first; of equal ones the earlier.

    Effects are compared with their sign, as the paper does: a head that lowers the answer's probability comes last.

    Raises:
        ValueError: k is below 1 or above the number of heads, or an effect is not a number.
    """
    n = effects.numel()
    if not 1 <= k <= n:
        raise ValueError(f"k={k} heads: expected 1 to {n}, the heads of {effects.shape[0]} layers")
    if bool(effects.isnan().any()):
        layer, head = effects.isnan().nonzero()[0].tolist()
        raise ValueError(f"the effect of head ({layer}, {head}) is not a number: expected numbers; check the logits")
    order = effects.flatten().argsort(descending=True, stable=True)[:k]
    return tuple(divmod(int(place), effects.shape[1]) for place in order)
