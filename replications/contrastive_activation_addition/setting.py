"""The model, the behaviours and the trial counts of a run, and the vectors as later stages read them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from replications.contrastive_activation_addition import data_files, people, stories
from replications.contrastive_activation_addition.behaviours import Asked, Behaviour
from replications.contrastive_activation_addition.data_files import DataError, Template

from interventions import Model, backends
from reprise import Job, Result
from steering import ModelIdentity, SteeringVector

Array = NDArray[np.generic]
PLUS, MINUS = 1.0, -1.0  # the multipliers between which an effect is measured


@dataclass(frozen=True)
class Trials:
    """How much is measured.

    Items of a behaviour for its vector, for the choice of the layer, for scores and for the gate, and questions of the
    unrelated task; `multipliers` beside 0, those for open-ended text, and those of the best of the other readings;
    random vectors; texts a class in the picture; prompts to go on with, samples of each and their tokens; the deepest
    model of which every pair of layers is tried in the transfer of vectors; texts of a pass, questions that are
    asked at once, and texts that are written at once.
    """

    extracted_from: int
    chosen_on: int
    scored_on: int
    gated_on: int
    unrelated: int
    multipliers: tuple[float, ...]
    open_multipliers: tuple[float, ...]
    reading_multipliers: tuple[float, ...]
    random: int
    pictured: int
    prompts: int
    samples: int
    new_tokens: int
    temperature: float
    pairs_of_layers_up_to: int
    batch: int
    questions: int = 16
    rows: int = 64


TRIALS = {
    "tiny": Trials(
        extracted_from=64,  # 256 pairs
        chosen_on=9,
        scored_on=18,
        gated_on=32,
        unrelated=24,
        multipliers=(-2.0, -1.0, -0.5, 0.5, 1.0, 2.0),
        open_multipliers=(-1.0, -0.5, 0.5, 1.0),
        reading_multipliers=(-2.0, -1.0, 1.0, 2.0),
        random=2,
        pictured=128,
        prompts=24,
        samples=2,
        new_tokens=40,
        temperature=1.0,
        pairs_of_layers_up_to=8,
        batch=64,
        questions=128,
        rows=128,
    ),
    # The public code's counts: 400 pairs, 50 questions, and of the unrelated task ten of each of 57 subjects.
    "paper": Trials(
        extracted_from=400,
        chosen_on=50,
        scored_on=50,
        gated_on=0,
        unrelated=570,
        multipliers=(-2.0, -1.5, -1.0, -0.5, 0.5, 1.0, 1.5, 2.0),
        open_multipliers=(-2.0, -1.0, 1.0, 2.0),
        reading_multipliers=(-2.0, -1.0, 1.0, 2.0),
        random=5,
        pictured=200,
        prompts=50,
        samples=1,
        new_tokens=100,
        temperature=0.0,
        pairs_of_layers_up_to=8,
        batch=16,
    ),
}


@dataclass(frozen=True)
class Setting:
    """What a stage works with."""

    model: Model
    behaviours: tuple[Behaviour, ...]
    unrelated: tuple[Asked, ...]
    trials: Trials
    seed: int

    @property
    def names(self) -> list[str]:
        return [behaviour.name for behaviour in self.behaviours]

    @property
    def n_layers(self) -> int:
        return ModelIdentity.of(self.model.network, self.model.name).n_layers

    def facts(self) -> dict[str, object]:
        return {
            "behaviours": self.names,
            "contraries": [behaviour.contrary for behaviour in self.behaviours],
            "n_layers": self.n_layers,
        }


def settle(job: Job) -> Setting:
    """The model of a job and its behaviours: of the folder given with --data, or at the tiny tier those of the texts
    that the model reads: about people, or stories.

    Raises:
        ModelError: the model cannot be loaded.
        BackendError: the job's backend lacks something here.
        DataError: as `data_files.behaviours`; or the paper tier was given no folder.
    """
    trials = TRIALS[job.tier]
    if job.data is None and job.tier != "tiny":
        raise DataError(
            "the paper tier asks the questions of a folder: expected --data FOLDER with a file of questions for each "
            "behaviour, such as those of the paper's public datasets"
        )
    model = backends.load(job.backend, job.model.location, device=job.device, dtype=getattr(torch, job.dtype))
    if model.tokenizer is None:
        raise DataError(f"{job.model.name}: no tokenizer, so it can be asked nothing; put its files in the folder")
    counts = {"chosen_on": trials.chosen_on, "scored_on": trials.scored_on, "seed": job.seed}
    if job.data is None:
        texts = people if people.read_by(model) else stories
        found = texts.behaviours(
            extracted_from=trials.extracted_from, gated_on=trials.gated_on, prompts=trials.prompts, **counts
        )
        others = texts.unrelated(trials.unrelated, job.seed)
    else:
        template = Template.of(job.model.name)
        found = data_files.behaviours(job.data, model, template, **counts)
        others = data_files.unrelated(job.data, model, template, trials.unrelated, job.seed)
    return Setting(model, found, others, trials, job.seed)


def is_main(job: Job) -> bool:
    """Whether a stage has the model of which most claims are: the first by name. Of others some stages are enough."""
    return job.model.name == min(model.name for model in job.models)


def vectors_of(setting: Setting, extraction: Result, reading: str = "letter") -> dict[str, SteeringVector]:
    """The vectors of an earlier stage, by behaviour, all with the same norm in a layer."""
    return {
        name: _vector(setting.model, name, directions)
        for name, directions in zip(extraction.facts["behaviours"], extraction[f"vectors/{reading}"], strict=True)
    }


def letter_vector_of(setting: Setting, extraction: Result) -> SteeringVector:
    """The first letter less the second, whatever they mean, with the norms of the behaviours' vectors."""
    return _vector(setting.model, "letters", extraction["letters"])


def _vector(model: Model, name: str, directions: Array) -> SteeringVector:
    by_layer = dict(enumerate(torch.from_numpy(directions)))
    return SteeringVector(by_layer, name, ModelIdentity.of(model.network, model.name), "resid_post")
