"""The search for a circuit, stage by stage (`discovery`): ranking, search, and its score on other prompts.

Heads are ranked and circuits searched on the part "search", and scored on the part "scores", which has other names.
What a circuit published for the model's shape says is looked up behind the search, for precision and recall alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from replications.indirect_object_identification import discovery
from replications.indirect_object_identification.ablation import Ablation
from replications.indirect_object_identification.circuit import (
    Head,
    circuit_of_heads,
    overlap,
    published,
    whole,
)
from replications.indirect_object_identification.discovery import Measure
from replications.indirect_object_identification.grouping import Group
from replications.indirect_object_identification.measured_circuits import (
    EFFORT,
    ELIMINATION,
    PATHS,
    RANKING,
    ablation,
    all_heads,
    discovered,
    in_facts,
    nodes_of,
)
from replications.indirect_object_identification.setting import (
    SCORES,
    SEARCH,
    Array,
    Setting,
    array,
    settle,
    stored,
)
from torch import Tensor

from interventions import Given, attribution_patch
from reprise import Job, Result

FLOOR = 0.9  # faithfulness on the search prompts below which no head is taken away
PATH_EFFECTS = ("effects", "keys.effects", "values.effects")


def ranking(job: Job) -> Result:
    """`attribution` [prompt, layer, head]: what mean ablation of a head does to F, by integrated gradients.

    `paths` [step, layer, head] is the mean effect of every step of path patching. The facts hold the three orders.
    """
    setting = settle(job)
    effort = EFFORT[setting.tier]
    prompts = ablation(job, setting, effort.attributed, SEARCH)
    attribution = array(attributions(prompts, effort.steps, job))
    steps = path_effects(job)
    paths = np.stack(list(steps.values()))
    orders = {"attribution": by_size(attribution.mean(axis=0)), "paths": by_size(np.abs(paths).max(axis=0))}
    orders["better"] = discovery.by_better_rank(*orders.values())
    listed = {name: [list(head) for head in order] for name, order in orders.items()}
    facts = {**setting.facts(), "orders": listed, "steps": list(steps)}
    return Result({"attribution": attribution, "paths": paths}, facts)


def attributions(prompts: Ablation, steps: int, job: Job) -> Tensor:
    """Integrated gradients of mean ablation, [prompt, layer, head]; all at once, as few of a length as there are."""
    every = Group(torch.arange(len(prompts.prompts)), prompts.prompts.tokens.shape[1], {})
    found = attribution_patch(
        prompts.network,
        prompts.prompts.prompts,
        Given({layer: prompts.mean(layer, every) for layer in range(prompts.means.z.shape[1])}),
        every.metric(prompts.prompts),
        component="z",
        over=("layer", "head"),
        positions=None,
        steps=steps,
        progress=job.progress,
    )
    return found.effects


def path_effects(job: Job) -> dict[str, Array]:
    """Mean effects [layer, head] of every step of path patching that was run.

    What was measured into published heads is not looked at: the search is not to be told of them.
    """
    results = {stage: stored(job, stage) for stage in PATHS}
    return {
        f"{stage}/{name}": result[name].mean(axis=0)
        for stage, result in results.items()
        for name in PATH_EFFECTS
        if name in result.arrays
    }


def by_size(effects: NDArray[np.floating]) -> tuple[Head, ...]:
    """Heads by the size of their effect, [layer, head], the largest first."""
    order = np.argsort(-np.abs(effects), axis=None, kind="stable").tolist()
    return tuple(divmod(at, effects.shape[1]) for at in order)


def elimination(job: Job) -> Result:
    """The searches `backward` and `forward`: faithfulness [round] on the search prompts.

    The facts hold the `circuit` that the backward one proposes, and of each search the order of heads and the sizes.
    """
    setting = settle(job)
    effort = EFFORT[setting.tier]
    measure = measure_on(ablation(job, setting, effort.search, SEARCH), setting)
    heads = all_heads(setting)
    order = ranked(job, "better")
    start = len(heads)
    if len(heads) > effort.all_of:
        sizes = [size for size in discovery.sizes_to_measure(len(heads)) if size]
        start = discovery.shortest_faithful(measure, order, sizes, FLOOR)
    backward = discovery.eliminate(measure, order[:start], FLOOR, effort.at_once, job.progress)
    forward = discovery.grow(measure, order[: effort.among], FLOOR, effort.grown)
    facts = {
        **setting.facts(),
        "floor": FLOOR,
        "start": start,
        "circuit": [list(head) for head in backward.circuit],
        "forward_circuit": [list(head) for head in forward.circuit],
    }
    searches = {"backward": backward, "forward": forward}
    for name, steps in searches.items():
        facts[name] = {"order": [list(head) for head in steps.order], "sizes": list(steps.sizes)}
    arrays = {name: np.array(steps.faithfulness, dtype=np.float32) for name, steps in searches.items()}
    return Result(arrays, facts)


def score(job: Job) -> Result:
    """F of every prompt with the discovered circuit and its controls, and with the first heads of every order.

    `random` [prompt, draw] are circuits of as many heads, `complement` is all heads but the circuit's. `curve.ORDER`
    [prompt, size] has the facts' sizes, those that the order reaches, on the first prompts alone where the model is
    large.
    """
    setting = settle(job)
    effort = EFFORT[setting.tier]
    heads, circuit = all_heads(setting), discovered(job)
    random = Random(f"{setting.seed}/circuits")
    sets: dict[str, Sequence[Head]] = {
        "model": heads,
        "nothing": (),
        "circuit": circuit,
        "forward": in_facts(stored(job, ELIMINATION).facts["forward_circuit"]),
        "complement": [head for head in heads if head not in circuit],
    }
    draws = [random.sample(heads, len(circuit)) for _ in range(effort.draws)]
    prompts = ablation(job, setting, setting.trials.validated, SCORES)
    measured = array(differences(prompts, setting, [*sets.values(), *draws]))
    arrays = {name: measured[:, at] for at, name in enumerate(sets)}
    arrays["random"] = measured[:, len(sets) :]
    orders = {**orders_of(job), "random": random.sample(heads, len(heads))}
    sizes = discovery.sizes_to_measure(len(heads))
    few = ablation(job, setting, min(effort.curves, setting.trials.validated), SCORES)
    for done, (name, order) in enumerate(orders.items()):
        job.progress(done, len(orders))
        curve = [order[:size] for size in sizes if size <= len(order)]
        arrays[f"curve.{name}"] = array(differences(few, setting, curve))
    facts = {**setting.facts(), "circuit": [list(head) for head in circuit], "sizes": sizes}
    return Result(arrays, {**facts, "published": against_published(setting, circuit, orders)})


def orders_of(job: Job) -> dict[str, Sequence[Head]]:
    """The heads in the order of each ranking and search, the most important first.

    Behind the heads that the backward search began with are the others, as they were ranked.
    """
    found = stored(job, ELIMINATION).facts
    backward = in_facts(found["backward"]["order"])[::-1]
    rest = [head for head in ranked(job, "better") if head not in backward]
    named = {name: ranked(job, name) for name in ("attribution", "paths")}
    return {"elimination": [*backward, *rest], "grown": in_facts(found["forward"]["order"]), **named}


def against_published(
    setting: Setting, circuit: Sequence[Head], orders: Mapping[str, Sequence[Head]]
) -> dict[str, object] | None:
    """Precision and recall of what was found against a published circuit; None where there is none.

    Of an order, those of as many first heads as the published circuit has; `by_chance` is the precision of heads drawn
    at random.
    """
    known = published(setting.model.network.config)
    if known is None:
        return None
    theirs = known[0].heads
    return {
        "name": known[0].name,
        "heads": [list(head) for head in theirs],
        "circuit": overlap(circuit, theirs),
        "orders": {name: overlap(order[: len(theirs)], theirs) for name, order in orders.items()},
        "by_chance": len(theirs) / (setting.n_layers * setting.n_heads),
    }


def differences(prompts: Ablation, setting: Setting, sets: Iterable[Iterable[Head]]) -> Float[Tensor, "prompt circuit"]:
    """F of every prompt with sets of heads kept at all tokens."""
    return prompts.logit_differences([nodes_of(setting, circuit_of_heads("kept", heads)) for heads in sets])


def ranked(job: Job, order: str) -> tuple[Head, ...]:
    return in_facts(stored(job, RANKING).facts["orders"][order])


def measure_on(prompts: Ablation, setting: Setting) -> Measure:
    """Faithfulness on some prompts, of sets of heads kept at all tokens."""
    full = float(prompts.logit_differences([whole(setting.n_layers, setting.n_heads)]).double().mean())

    def measure(sets: Sequence[frozenset[Head]]) -> list[float]:
        if not sets:
            return []
        means = differences(prompts, setting, sets).double().mean(dim=0)
        return [faithfulness(full, value) for value in means.tolist()]

    return measure


def faithfulness(full: float, value: float) -> float:
    """1 - |F(M) - F(C)| / |F(M)|."""
    return 1 - abs(full - value) / max(abs(full), torch.finfo(torch.float32).tiny)
