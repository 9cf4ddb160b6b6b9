r"""Whether a circuit is the whole story: faithfulness, completeness and minimality (Wang et al. 2022, section 4).

    faithfulness    |F(M) - F(C)|, and F(C) / F(M)
    completeness    |F(C \ K) - F(M \ K)|            for subsets K of the circuit: small for all K if nothing is missing
    minimality      |F(C \ (K + v)) - F(C \ K)|       for a head v of it and a K that shows it: large if v is needed

F is the mean over prompts of logit(IO) - logit(S) with all outside ablated (`ablation`); each stage stores the values
of every prompt. K are: nothing, each role, random ones (each head with probability 1/2), and greedy ones that were
searched for on other prompts to make the score large. Of v, K is nothing, the rest of v's role, the movers, or both of
these, whichever shows v most on the search prompts. The naive circuit is judged beside the circuit for the first two.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from jaxtyping import Float
from replications.indirect_object_identification.ablation import Ablation
from replications.indirect_object_identification.circuit import (
    MOVERS,
    Circuit,
    Head,
    Nodes,
    circuit_of_heads,
    whole,
    without,
)
from replications.indirect_object_identification.measured_circuits import (
    EFFORT,
    Effort,
    ablation,
    all_heads,
    discovered,
    facts_of,
    judged,
    nodes_of,
)
from replications.indirect_object_identification.setting import SCORES, SEARCH, Setting, array, settle
from torch import Tensor

from reprise import Job, Result

Subset = tuple[str, tuple[Head, ...]]
"""What kind of K, and its heads."""


def faithfulness(job: Job) -> Result:
    """F of every prompt: the model, the circuit, the naive one, and controls.

    `everywhere` is the circuit with all tokens of its heads, `discovered` the search's proposal, `complement` the model
    without the circuit's nodes, `nothing` without any head, and `random` [prompt, draw] circuits of as many heads in
    the circuit's roles.
    """
    setting = settle(job)
    which = judged(job, setting)
    prompts = ablation(job, setting, setting.trials.validated, SCORES)
    model, circuit = whole(setting.n_layers, setting.n_heads), nodes_of(setting, which.circuit)
    nodes = {
        "model": model,
        "circuit": circuit,
        "naive": nodes_of(setting, which.naive),
        "everywhere": nodes_of(setting, which.circuit.everywhere()),
        "discovered": nodes_of(setting, circuit_of_heads("discovered", discovered(job))),
        "complement": without(model, which.circuit.heads, circuit),
        "nothing": torch.zeros_like(model),
    }
    random = Random(f"{setting.seed}/faithfulness")
    draws = [
        nodes_of(setting, in_same_roles(which.circuit, setting, random)) for _ in range(EFFORT[setting.tier].draws)
    ]
    measured = array(prompts.logit_differences([*nodes.values(), *draws], progress=job.progress))
    arrays = {name: measured[:, at] for at, name in enumerate(nodes)}
    arrays["random"] = measured[:, len(nodes) :]
    facts = {"circuit": facts_of(which.circuit), "naive": facts_of(which.naive), "is_published": which.is_published}
    return Result(arrays, {**setting.facts(), **facts})


def in_same_roles(circuit: Circuit, setting: Setting, random: Random) -> Circuit:
    """A circuit of other heads, each head of the circuit replaced by one that is drawn."""
    drawn = dict(zip(circuit.heads, random.sample(all_heads(setting), len(circuit.heads)), strict=True))
    roles = {role: tuple(drawn[head] for head in heads) for role, heads in circuit.roles.items()}
    return Circuit("random", roles, circuit.words)


def completeness(job: Job) -> Result:
    r"""F(C \ K) and F(M \ K) of every prompt, [prompt, subset], as `circuit`, `circuit.model`, `naive`, `naive.model`.

    The facts' `subsets` say which K, by circuit: [kind, heads].
    """
    setting = settle(job)
    which = judged(job, setting)
    scored = ablation(job, setting, setting.trials.validated, SCORES)
    searched = ablation(job, setting, EFFORT[setting.tier].search, SEARCH)
    judged_ones, subsets, arrays = {"circuit": which.circuit, "naive": which.naive}, {}, {}
    for done, (name, circuit) in enumerate(judged_ones.items()):
        job.progress(done, 3)
        random = Random(f"{setting.seed}/completeness/{name}")
        subsets[name] = [
            ("nothing", ()),
            *((role, heads) for role, heads in circuit.roles.items()),
            *(("random", drawn_subset(circuit, random)) for _ in range(setting.trials.subsets)),
            *(("greedy", heads) for heads in greedy_subsets(searched, circuit, setting, random)),
        ]
    asked = [(circuit, [heads for _, heads in subsets[name]]) for name, circuit in judged_ones.items()]
    for name, (of_circuit, of_model) in zip(judged_ones, both(scored, setting, asked), strict=True):
        arrays[name], arrays[f"{name}.model"] = array(of_circuit), array(of_model)
    listed = {name: [[kind, [list(head) for head in heads]] for kind, heads in of] for name, of in subsets.items()}
    return Result(arrays, {**setting.facts(), "subsets": listed})


def drawn_subset(circuit: Circuit, random: Random) -> tuple[Head, ...]:
    """Each head with probability 1/2."""
    return tuple(head for head in circuit.heads if random.random() < 0.5)


def both(
    prompts: Ablation, setting: Setting, asked: Sequence[tuple[Circuit, Sequence[Sequence[Head]]]]
) -> list[tuple[Float[Tensor, "prompt subset"], Float[Tensor, "prompt subset"]]]:
    r"""F(C \ K) and F(M \ K) of every prompt and subset, for circuits with their subsets; all measured together."""
    model, together = whole(setting.n_layers, setting.n_heads), list[Nodes]()
    for circuit, subsets in asked:
        nodes = nodes_of(setting, circuit)
        together += [without(of, heads, nodes) for of in (nodes, model) for heads in subsets]
    sizes = [len(subsets) for _, subsets in asked for _ in (0, 1)]
    each = iter(torch.split(prompts.logit_differences(together), sizes, dim=1))
    return list(zip(each, each, strict=True))


def greedy_subsets(prompts: Ablation, circuit: Circuit, setting: Setting, random: Random) -> list[tuple[Head, ...]]:
    r"""Subsets that make |F(C \ K) - F(M \ K)| large: grown by the best of some heads that are drawn anew each step.

    As the paper's, with the best K on the way kept.
    """

    def incompleteness(subsets: Sequence[tuple[Head, ...]]) -> list[float]:
        ((of_circuit, of_model),) = both(prompts, setting, [(circuit, subsets)])
        return [float(gap) for gap in (of_circuit.mean(dim=0) - of_model.mean(dim=0)).abs()]

    effort: Effort = EFFORT[setting.tier]
    found: list[tuple[Head, ...]] = []
    for _ in range(effort.greedy):
        best: tuple[Head, ...] = ()
        subset, largest = best, -1.0
        for _ in range(min(effort.greedy_steps, len(circuit.heads))):
            others = [head for head in circuit.heads if head not in subset]
            drawn = random.sample(others, min(effort.greedy_among, len(others)))
            gaps = incompleteness([(*subset, head) for head in drawn])
            at = max(range(len(drawn)), key=gaps.__getitem__)
            subset = (*subset, drawn[at])
            if gaps[at] > largest:
                best, largest = subset, gaps[at]
        found.append(tuple(sorted(best)))
    return found


def minimality(job: Job) -> Result:
    r"""F(C \ K) and F(C \ (K + v)) of every prompt, [prompt, head], as `without_k` and `without_both`.

    The facts' `heads`, `roles`, `kinds` and `subsets` say which v and K.
    """
    setting = settle(job)
    circuit = judged(job, setting).circuit
    nodes = nodes_of(setting, circuit)
    options = [(head, kind, subset) for head in circuit.heads for kind, subset in options_of(circuit, head)]
    searched = ablation(job, setting, EFFORT[setting.tier].search, SEARCH)
    without_k, without_both = with_and_without(searched, nodes, [(head, subset) for head, _, subset in options])
    shown = (without_k - without_both).mean(dim=0).abs().tolist()
    best: dict[Head, int] = {}
    for at, (head, _, _) in enumerate(options):
        if head not in best or shown[at] > shown[best[head]]:
            best[head] = at
    chosen = [options[at] for at in best.values()]
    scored = ablation(job, setting, setting.trials.validated, SCORES)
    without_k, without_both = with_and_without(scored, nodes, [(head, subset) for head, _, subset in chosen])
    facts = {
        "heads": [list(head) for head in best],
        "roles": [list(circuit.roles_of(head)) for head in best],
        "kinds": [kind for _, kind, _ in chosen],
        "subsets": [[list(other) for other in subset] for _, _, subset in chosen],
    }
    arrays = {"without_k": array(without_k), "without_both": array(without_both)}
    return Result(arrays, {**setting.facts(), **facts})


def with_and_without(
    prompts: Ablation, nodes: Nodes, pairs: Sequence[tuple[Head, Sequence[Head]]]
) -> tuple[Float[Tensor, "prompt pair"], Float[Tensor, "prompt pair"]]:
    r"""F(C \ K) and F(C \ (K + v)) of every prompt and pair of v and K."""
    of_k = [without(nodes, subset, nodes) for _, subset in pairs]
    of_both = [without(nodes, (head, *subset), nodes) for head, subset in pairs]
    measured = prompts.logit_differences([*of_k, *of_both])
    return measured[:, : len(pairs)], measured[:, len(pairs) :]


def options_of(circuit: Circuit, head: Head) -> list[Subset]:
    """The K among which one is chosen for a head."""
    rest = tuple(other for role in circuit.roles_of(head) for other in circuit.roles[role] if other != head)
    movers = tuple(other for other in circuit.roles.get(MOVERS, ()) if other != head)
    named = {"nothing": (), "rest of its role": rest, "movers": movers, "both": tuple(sorted({*rest, *movers}))}
    options: list[Subset] = []
    for kind, heads in named.items():
        if set(heads) not in [set(known) for _, known in options]:
            options.append((kind, heads))
    return options
