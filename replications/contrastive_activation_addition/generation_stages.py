"""Stage 7: what is written under a vector, scored, beside what should do less and what plain words do.

A vector acts from the prompt's last token on, as in the paper, in the chosen layer. Every condition draws its tokens by
the same numbers. Beside each score stand the perplexity of what is written, under the unsteered model, and whether its
sentences are grammatical (where the data says how to tell).

    unsteered, +-1, +-2       the vector
    random                    several vectors of its norm, at +1
    another                   the next behaviour's vector, at +1
    last layer                the vector at the output of the last layer, at +1
    logit bias                one constant on the logits at every step, the mean effect of the vector at +1
    prompt only               the vector at all of the prompt but its last token, at +1 and -1: through attention
    header                    a prompt that names the behaviour, or its contrary, in words
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from replications.contrastive_activation_addition.behaviours import OpenEnded, following
from replications.contrastive_activation_addition.choice_stages import layer_of
from replications.contrastive_activation_addition.setting import (
    MINUS,
    PLUS,
    Array,
    Setting,
    is_main,
    settle,
    vectors_of,
)

from reprise import Job, Result
from steering import (
    AfterPrompt,
    Completions,
    Condition,
    Everywhere,
    Outcome,
    Positions,
    PromptOnly,
    Steer,
    SteeringVector,
    Writing,
    mean_effect,
    measured,
    random_like,
    written,
    written_together,
)

UNSTEERED, RANDOM, ANOTHER, LAST_LAYER, LOGIT_BIAS = "0", "random", "another", "last layer", "logit bias"
PROMPT_ONLY, HEADER = "prompt only", "header"
MEASURES = ("score", "loss", "tokens", "wellformed")
SHOWN_TEXTS = 2


def signed(name: str, end: float) -> str:
    """The name of a condition with a sign: what is towards the behaviour, or towards its contrary."""
    return f"{name} {end:+g}"


def open_ended(job: Job) -> Result:
    """Scores of completions [prompt, sample] by behaviour and condition, and a few texts."""
    if not is_main(job):
        return Result({})
    setting = settle(job)
    vectors = vectors_of(setting, job.inputs.of("extraction")[job.model.name])
    return completions(job, setting, vectors, layer_of(job), multipliers=setting.trials.open_multipliers)


def completions(
    job: Job,
    setting: Setting,
    vectors: dict[str, SteeringVector],
    layer: int,
    *,
    multipliers: tuple[float, ...],
    everywhere: bool = False,
    headers: bool = True,
) -> Result:
    """The same of any vectors, added from the prompt's last token on, or at all tokens; with the headers or without."""
    asked = {of: of.open_ended for of in setting.behaviours if of.open_ended is not None}
    arrays: dict[str, Array] = {}
    texts: dict[str, dict[str, list[str]]] = {}
    for done, (behaviour, ended) in enumerate(asked.items()):
        job.progress(done, len(asked))
        kept = ended if headers else replace(ended, headers=None)
        for name, outcome in _outcomes(setting, behaviour.name, kept, vectors, layer, multipliers, everywhere).items():
            parts = (outcome.values, outcome.losses, outcome.tokens, outcome.wellformed)
            arrays[f"{name}/{behaviour.name}"] = np.stack(
                [np.full(outcome.values.shape, np.nan) if part is None else part.double().numpy() for part in parts]
            )
            texts.setdefault(behaviour.name, {})[name] = list(outcome.texts[:SHOWN_TEXTS])
    facts = {"scored": [behaviour.name for behaviour in asked], "texts": texts, "layer": layer}
    return Result(arrays, {**setting.facts(), **facts, "multipliers": list(multipliers)})


def _outcomes(
    setting: Setting,
    behaviour: str,
    ended: OpenEnded,
    vectors: dict[str, SteeringVector],
    layer: int,
    multipliers: tuple[float, ...],
    everywhere: bool,
) -> dict[str, Outcome]:
    model, trials = setting.model, setting.trials
    prompts = ended.prompts[: trials.prompts]
    vector, acting = vectors[behaviour].at(layer), Everywhere() if everywhere else AfterPrompt()
    how = Writing(
        trials.new_tokens, trials.temperature, samples=trials.samples, seed=setting.seed, batch_size=trials.rows
    )

    def steer(of: SteeringVector, multiplier: float, positions: Positions = acting) -> Steer:
        return Steer(of, multiplier, positions=positions)

    under = {f"{multiplier:+g}": Condition(prompts, [steer(vector, multiplier)]) for multiplier in multipliers}
    for draw in range(trials.random):
        under[f"{RANDOM} {draw}"] = Condition(prompts, [steer(random_like(vector, seed=setting.seed + draw), PLUS)])
    if len(vectors) > 1:
        other = vectors[following(list(vectors), behaviour)]
        under[ANOTHER] = Condition(prompts, [steer(other.at(layer), PLUS)])
    under[LAST_LAYER] = Condition(prompts, [steer(vector.moved(layer, setting.n_layers - 1), PLUS)])
    for end in (PLUS, MINUS):
        under[signed(PROMPT_ONLY, end)] = Condition(prompts, [steer(vector, end, PromptOnly())])
        if ended.headers is not None:
            under[signed(HEADER, end)] = Condition(prompts, prefix=ended.headers[0 if end == PLUS else 1])
    plain = written(model, prompts, how)
    bias = mean_effect(model, plain, [steer(vector, PLUS)], batch_size=trials.batch)
    texts = {UNSTEERED: plain, LOGIT_BIAS: written(model, prompts, how, bias=bias)}
    texts |= dict(zip(under, written_together(model, list(under.values()), how), strict=True))
    return {name: _measured(setting, prompts, ended, of) for name, of in texts.items()}


def _measured(setting: Setting, prompts: tuple[str, ...], ended: OpenEnded, of: Completions) -> Outcome:
    return measured(
        setting.model, prompts, of, ended.score, wellformed=ended.wellformed, batch_size=setting.trials.batch
    )
