"""Turner et al. 2023, stage by stage.

1. choose: completions with every latent's vector in every layer with every coefficient, both ways of acting (`ways`):
   success, perplexity and grammaticality; and the layer and the coefficient that are judged (`choice`).
2. completions: there, on other prompts and other draws, the vector beside its controls.
3. perplexity: of given texts about the topic and of others, with the vector against without.
4. knowledge: answers to questions that topic vectors are not about.

With --backend the model is run by nnsight, NDIF or a server. The measurements that judge the claims are in `claims.py`;
they read stored results alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from replications.activation_addition import paper_material
from replications.activation_addition.choice import choose, mean_over
from replications.activation_addition.claims import CLAIMS
from replications.activation_addition.material import Group, Latent
from replications.activation_addition.setting import Setting, settle
from replications.activation_addition.text_stages import knowledge, perplexity
from replications.activation_addition.together import outcomes
from replications.activation_addition.ways import WAYS, Way

from interventions import backends
from reprise import Job, Result, Stage
from steering import Condition, Control, Outcome, Steer, Writing, controls, measured, written_together

__all__ = ["CHECK_BACKEND", "CLAIMS", "STAGES"]

CHECK_BACKEND = backends.check
ANOTHER, LATER, LAST_BLOCK = "another vector", "later layer", "last block"
EXAMPLES = 2  # completions of each latent that are kept as text
Array = NDArray[np.floating]


def choosing(job: Job) -> Result:
    """The sweep over layer and coefficient, and what is chosen on it."""
    setting = settle(job)
    trials, chosen, later = setting.trials, dict[str, dict[str, Any]](), dict[str, dict[str, Any]]()
    arrays: dict[str, Array] = {}
    total = len(WAYS) * len(setting.material.groups) * len(setting.layers)
    done = 0
    for kind, group in setting.material.groups.items():
        writing = setting.material.writing_of(kind, setting.seed, scoring=False)

        def write(cells: list[list[Steer]], group: Group = group, writing: Writing = writing) -> list[dict[str, Array]]:
            return outcomes(setting.model, group, group.choosing, cells, writing, setting.material.wellformed)

        (plain,) = write([[]])
        arrays |= {f"plain.{kind}.{name}": array for name, array in plain.items()}
        for way in WAYS:
            vectors = [setting.vector(way, latent) for latent in group.latents]
            cells = []
            for layer in setting.layers:
                cells.append(
                    write([[way.steer(vector, layer, each) for vector in vectors] for each in trials.coefficients])
                )
                done += 1
                job.progress(done, total)
            found = {
                name: np.stack([np.stack([cell[name] for cell in row], axis=1) for row in cells], axis=1)
                for name in plain
            }
            arrays |= {f"{way.name}.{kind}.{name}": array for name, array in found.items()}
            of = (found["success"], found["losses"], found["tokens"], plain["losses"], plain["tokens"])
            chosen.setdefault(way.name, {})[kind] = judged(setting, of, first=0)
            later.setdefault(way.name, {})[kind] = judged(setting, of, first=1)
    return Result(arrays, {**setting.facts(), "chosen": chosen, "chosen_later": later})


def judged(setting: Setting, of: tuple[Array, Array, Array, Array, Array], *, first: int) -> dict[str, Any]:
    """The layer and the coefficient that are judged, among the swept layers from `first` on (if there are any)."""
    success, losses, tokens, *plain = of
    first = min(first, len(setting.layers) - 1)
    layer, coefficient, fluent = choose(success[:, first:], losses[:, first:], tokens[:, first:], *plain)
    return {
        "layer": setting.layers[first + layer],
        "coefficient": setting.trials.coefficients[coefficient],
        "fluent": fluent,
    }


def completions(job: Job) -> Result:
    """Every latent's vector and its controls, at the layer and the coefficient that were chosen."""
    setting = settle(job)
    choice = job.inputs.of("choose")[job.model.name].facts
    arrays: dict[str, Array] = {}
    conditions: dict[str, list[str]] = {}
    examples: list[dict[str, str]] = []
    groups = setting.material.groups
    total = len(WAYS) * sum(len(group.latents) for group in groups.values())
    done = 0
    for way in WAYS:
        for kind, group in groups.items():
            at, later = (choice[name][way.name][kind] for name in ("chosen", "chosen_later"))
            tables = []
            for number, (latent, prompts) in enumerate(zip(group.latents, group.scoring, strict=True)):
                rows = scored(setting, way, kind, number, at, later)
                tables.append(rows)
                examples += quoted(way, kind, latent, prompts, rows)
                done += 1
                job.progress(done, total)
            names = conditions[way.name] = [row.name for row in tables[0]]
            # [condition, latent, prompt, sample]; of several random vectors the mean
            found = [stack([rows[place].outcome for rows in tables]) for place in range(len(names))]
            arrays |= {f"{way.name}.{kind}.{name}": np.stack([each[name] for each in found]) for name in found[0]}
    facts = {name: choice[name] for name in ("chosen", "chosen_later")}
    facts |= {"conditions": conditions, "examples": examples}
    return Result(arrays, {**setting.facts(), **facts})


def scored(
    setting: Setting, way: Way, kind: str, number: int, at: dict[str, Any], later: dict[str, Any]
) -> list[Control]:
    """The controls of the package, and the pair's vectors in the best layer from 1 on and in the last block.

    Layer 0 is the embedding: what is added there is made of words alone, and a vector there is words in the prompt.
    Each latent has random vectors of its own: with the same ones for both moods, whose shares add up to 1, the mean
    over moods would be one half whatever these vectors do.
    """
    material = setting.material
    latent, prompts = material.groups[kind].latents[number], material.groups[kind].scoring[number]
    writing = material.writing_of(kind, setting.seed, scoring=True)
    vector = setting.vector(way, latent)
    table = controls(
        setting.model,
        vector,
        prompts,
        latent.metric,
        layer=at["layer"],
        coefficient=at["coefficient"],
        positions=way.positions,
        others=[way.vector(setting.model, latent.other, ANOTHER)],
        prefix=latent.prefix,
        n_random=setting.trials.n_random,
        writing=writing,
        wellformed=material.wellformed,
        seed=1000 * setting.seed + number * setting.trials.n_random,
    )
    rows = [*table.rows]
    places = (LATER, later["layer"], later["coefficient"]), (LAST_BLOCK, setting.n_layers - 1, at["coefficient"])
    conditions = [Condition(prompts, [way.steer(vector, layer, coefficient)]) for _, layer, coefficient in places]
    for (name, *_), found in zip(places, written_together(setting.model, conditions, writing), strict=True):
        outcome = measured(setting.model, prompts, found, latent.metric, wellformed=material.wellformed)
        rows.append(Control(name, outcome))
    return rows


def quoted(way: Way, kind: str, latent: Latent, prompts: tuple[str, ...], rows: list[Control]) -> list[dict[str, str]]:
    """The first completions of a latent, without and with its vector."""
    of = {row.name: row.outcome for row in rows}
    samples = of["vector"].values.shape[1]
    return [
        {
            "way": way.name,
            "kind": kind,
            "latent": latent.name,
            "prompt": prompts[place // samples],
            "unsteered": of["unsteered"].texts[place],
            "steered": of["vector"].texts[place],
        }
        for place in range(min(EXAMPLES, len(of["vector"].texts)))
    ]


def stack(outcomes: list[Outcome] | tuple[Outcome, ...]) -> dict[str, Array]:
    """Outcomes as arrays [outcome, prompt, sample], over several draws: means of shares, sums of losses and tokens."""
    arrays: dict[str, Array] = {
        "success": mean_over(_numpy([each.values for each in outcomes]), (3,)),
        "losses": _numpy([each.losses for each in outcomes]).sum(axis=3),
        "tokens": _numpy([each.tokens for each in outcomes]).sum(axis=3),
    }
    forms = [each.wellformed for each in outcomes if each.wellformed is not None]
    if forms:
        arrays["wellformed"] = mean_over(_numpy(forms), (3,))
    return arrays


def _numpy(tensors: list[torch.Tensor]) -> Array:
    return np.asarray(torch.stack(tensors).double().numpy())


STAGES = (
    Stage("choose", choosing, each_model=True),
    Stage("completions", completions, each_model=True, needs=("choose",)),
    Stage("perplexity", perplexity, each_model=True, needs=("choose",)),
    Stage("knowledge", knowledge, each_model=True, needs=("choose",), data=paper_material.DATA),
)
