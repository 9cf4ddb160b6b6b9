"""The model, the prompts of every distribution, and the trial counts of a run.

    p_IOI    the sentences of the task: "... Mary and John ... John gave a drink to"
    p_ABC    the same sentences with three unrelated names (Wang et al. 2022, section 3): what patching takes from

Sentences of p_ABC keep template, order, place and object, so that they have the tokens of their p_IOI sentence but for
the names. Heads are found on the part "search", what is measured of them or of a circuit is on the part "scores": the
two share no pair of names. "held_out" has pairs, and in the tiny tier templates, that the model was not trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from replications.indirect_object_identification import circuit, drawing_prompts, positions
from replications.indirect_object_identification.circuit import Circuit
from replications.indirect_object_identification.drawing_prompts import Sentence
from replications.indirect_object_identification.material import (
    HELD_OUT,
    PAPER,
    SCORES,
    SEARCH,
    Material,
    material_for,
    model_for,
)
from replications.indirect_object_identification.positions import IOIPrompts
from torch import Tensor

import interventions
from interventions import Model, Recordings
from reprise import Job, Result
from reprise.models import ModelReference

__all__ = ["HELD_OUT", "SCORES", "SEARCH", "TRIALS", "Array", "Setting", "Trials", "array", "settle", "stored"]
Array = NDArray[np.floating]


@dataclass(frozen=True)
class Trials:
    """How much is measured, in prompts unless it says otherwise.

    `performance` for the model alone, `search` for attribution, patching and what heads attend to, `paths` for path
    patching at END and `inner_paths` at other words, `everywhere` for heads patched at all positions at once, `copied`
    for copying scores, `signals` for those of the S-inhibition heads; `repeated` sequences of a random `segment` of
    tokens, twice; `validated` for the score of each circuit, with means over `means` sentences of p_ABC, and `subsets`
    random subsets of a circuit; `adversarial`. `batch` run at a time.
    """

    performance: int
    search: int
    paths: int
    inner_paths: int
    everywhere: int
    copied: int
    signals: int
    repeated: int
    segment: int
    validated: int
    means: int
    subsets: int
    adversarial: int
    batch: int


TRIALS = {
    "tiny": Trials(
        performance=1000,
        search=100,
        paths=100,
        inner_paths=100,
        everywhere=100,
        copied=100,
        signals=200,
        repeated=50,
        segment=25,
        validated=200,
        means=600,
        subsets=20,
        adversarial=200,
        batch=250,
    ),
    # 100,000 prompts are the paper's for the model alone, 100 its usual number for patching (memory).
    "paper": Trials(
        performance=100_000,
        search=100,
        paths=100,
        inner_paths=50,
        everywhere=20,
        copied=30,
        signals=50,
        repeated=25,
        segment=50,
        validated=500,
        means=600,
        subsets=20,
        adversarial=500,
        batch=100,
    ),
}


@dataclass(frozen=True)
class Setting:
    """What a stage works with; passes over its prompts that are kept in `recordings` are not run again."""

    model: Model
    material: Material
    trials: Trials
    tier: str
    seed: int
    recordings: Recordings | None = None

    @property
    def n_layers(self) -> int:
        return int(self.model.network.config.num_hidden_layers)

    @property
    def n_heads(self) -> int:
        return int(self.model.network.config.num_attention_heads)

    @property
    def published(self) -> Circuit | None:
        """The paper's circuit, at the paper tier for a model of GPT-2 small's shape."""
        found = circuit.published(self.model.network.config) if self.tier == PAPER else None
        return None if found is None else found[0]

    def sentences(self, n: int, part: str = SEARCH) -> tuple[Sentence, ...]:
        """The first `n` sentences of p_IOI of a part."""
        return self.material.draw(n, self.seed, part=part)

    def tokenized(self, sentences: tuple[Sentence, ...]) -> IOIPrompts:
        return positions.tokenized(self.model, sentences)

    def clean(self, n: int, part: str = SEARCH) -> IOIPrompts:
        """`sentences` as the model reads them."""
        return self.tokenized(self.sentences(n, part))

    def pair(self, n: int, part: str = SEARCH) -> tuple[IOIPrompts, IOIPrompts]:
        """p_IOI and, row by row, the same sentences with the names of p_ABC."""
        sentences = self.sentences(n, part)
        return self.tokenized(sentences), self.tokenized(drawing_prompts.abc(sentences, self.seed))

    def facts(self) -> dict[str, object]:
        return {"n_layers": self.n_layers, "n_heads": self.n_heads}


def settle(job: Job) -> Setting:
    """The model of a job, as its tier asks it, and its material.

    A process keeps the last model and its recordings, so that stages which patch the same prompts record them once.

    Raises:
        ModelError: the model cannot be loaded.
        PromptError: it has no tokenizer, or too few names are one token of it.
    """
    model, recordings = _loaded(job.model, job.device, job.dtype)
    material = material_for(model, job.tier)
    return Setting(model_for(model, job.tier), material, TRIALS[job.tier], job.tier, job.seed, recordings)


@lru_cache(maxsize=1)
def _loaded(reference: ModelReference, device: str, dtype: str) -> tuple[Model, Recordings]:
    """The reference has the model's fingerprint, so that a folder that changes is loaded anew."""
    model = interventions.load(reference.location, device=device, dtype=getattr(torch, dtype))
    return model, Recordings(model.network)


def stored(job: Job, stage: str) -> Result:
    """An earlier stage's result for the job's model."""
    return job.inputs.of(stage)[job.model.name]


def array(tensor: Tensor) -> Array:
    return tensor.detach().cpu().float().numpy()
