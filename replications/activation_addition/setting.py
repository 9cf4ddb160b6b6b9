"""The model, the material and the trial counts of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from replications.activation_addition import paper_material, story_material
from replications.activation_addition.material import Latent, Material
from replications.activation_addition.ways import Way

import interventions
from interventions import Model, backends
from reprise import Job
from steering import SteeringVector, Writing


@dataclass(frozen=True)
class Trials:
    """Numbers of a tier.

    Args:
        choosing, scoring: prompts of each latent (tiny tier), or completions of each prompt (paper tier).
        layers: that completions are swept over; None for all, else so many, evenly from the first on.
        coefficients, text_coefficients: of completions, and of perplexity on given texts.
        n_random: random vectors, one condition together.
        texts: about each topic, and as many others.
        facts: of each form.
        new_tokens: of a completion.
    """

    choosing: int
    scoring: int
    layers: int | None
    coefficients: tuple[float, ...]
    text_coefficients: tuple[float, ...]
    n_random: int
    texts: int
    facts: int
    new_tokens: int
    temperature: float = 1.0
    top_p: float | None = None
    batch: int = 64


TRIALS = {
    "tiny": Trials(
        8,
        24,
        None,
        (1.0, 2.0, 4.0, 8.0, 16.0),
        (0.5, 1.0, 2.0, 4.0, 8.0),
        n_random=2,
        texts=16,
        facts=24,
        new_tokens=40,
        batch=128,
    ),
    # 48 layers in steps of 3: the paper's best, 6, is among them.
    "paper": Trials(
        10,
        200,
        16,
        (1.0, 2.0, 4.0, 8.0),
        (0.5, 1.0, 2.0, 4.0, 8.0),
        n_random=3,
        texts=16,
        facts=40,
        new_tokens=40,
        top_p=0.3,
        batch=50,
    ),
}


@dataclass(frozen=True)
class Setting:
    """What a stage works with; `layers` are those that are swept."""

    model: Model
    material: Material
    trials: Trials
    layers: tuple[int, ...]
    seed: int
    progress: Callable[[int, int], None]

    @property
    def n_layers(self) -> int:
        return int(self.model.network.config.get_text_config().num_hidden_layers)

    def vector(self, way: Way, latent: Latent) -> SteeringVector:
        return way.vector(self.model, latent.contrast, latent.name)

    def facts(self) -> dict[str, object]:
        groups = self.material.groups
        return {
            "latents": {kind: [latent.name for latent in group.latents] for kind, group in groups.items()},
            "n_layers": self.n_layers,
            "layers": list(self.layers),
            "coefficients": list(self.trials.coefficients),
        }


def settle(job: Job) -> Setting:
    """The model and the material of a job.

    Raises:
        ModelError: the model cannot be loaded, has no tokenizer, or (tiny tier) does not read the stories.
        BackendError: the job's backend lacks something here.
    """
    trials = TRIALS[job.tier]
    writing = Writing(trials.new_tokens, trials.temperature, top_p=trials.top_p, batch_size=trials.batch)
    model = backends.load(job.backend, job.model.location, device=job.device, dtype=getattr(torch, job.dtype))
    if model.tokenizer is None:
        raise interventions.ModelError(
            f"{job.model.name}: no tokenizer; steering begins with two texts, put tokenizer.json beside the weights"
        )
    if job.tier == "tiny":
        story_material.check(model)
        material = story_material.material(
            n_choosing=trials.choosing,
            n_scoring=trials.scoring,
            n_texts=trials.texts,
            n_facts=trials.facts,
            writing=writing,
            seed=job.seed,
        )
    else:
        material = paper_material.material(
            job.root,
            samples=(trials.choosing, trials.scoring),
            n_texts=trials.texts,
            n_facts=trials.facts,
            writing=writing,
        )
    n_layers = int(model.network.config.get_text_config().num_hidden_layers)
    return Setting(model, material, trials, swept(n_layers, trials.layers), job.seed, job.progress)


def swept(n_layers: int, n: int | None) -> tuple[int, ...]:
    """n of the layers, evenly spaced from the first on; all where there are no more."""
    if n is None or n >= n_layers:
        return tuple(range(n_layers))
    return tuple(at * n_layers // n for at in range(n))
