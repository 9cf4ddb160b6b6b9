"""The stages that write nothing: the perplexity of given texts, and answers to questions, with a topic's vector.

Every topic's vector acts in the layer that was chosen for completions. Texts are read with it in several strengths, and
the tokens at positions that it touches (in either way of acting) do not count, nor does the token behind them. Beside
it: a random vector of the same norm, and the text that names the topic in front of the text.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from replications.activation_addition.material import TOPIC
from replications.activation_addition.setting import Setting, settle
from replications.activation_addition.ways import FRONT, WAYS
from torch import Tensor

from interventions import Model
from reprise import Job, Result
from steering import (
    Knowledge,
    Losses,
    NextToken,
    SteeringError,
    SteeringVector,
    completion_losses,
    continuation,
    encode,
    random_like,
    text_losses,
)
from steering import knowledge as answered

BATCH = 32
Array = NDArray[np.floating]


def perplexity(job: Job) -> Result:
    """Mean loss with less mean loss without, nats a token, of every topic's texts; [side] is on topic, then off.

    Arrays: `WAY` and `random` (the front way) [topic, side, coefficient, text]; `named`, behind the text that names the
    topic, [topic, side, text].
    """
    setting = settle(job)
    chosen = job.inputs.of("choose")[job.model.name].facts["chosen"]
    latents = setting.material.groups[TOPIC].latents
    coefficients = setting.trials.text_coefficients
    skip = max(len(setting.vector(FRONT, latent).directions[0]) for latent in latents)
    rows: dict[str, list[Array]] = {name: [] for name in (*(way.name for way in WAYS), "random", "named")}
    for done, latent in enumerate(latents):
        job.progress(done, len(latents))
        sides = setting.material.texts[latent.name]
        texts = [text for side in sides for text in side]
        plain = text_losses(setting.model, texts, skip=skip, batch_size=BATCH)

        def change(losses: Losses, plain: Losses = plain) -> Float[Tensor, " text"]:
            return losses.sums / losses.tokens - plain.sums / plain.tokens

        def swept(vector: SteeringVector, at: int, way: str, texts: list[str] = texts) -> Array:
            found = []
            for coefficient in coefficients:
                steer = next(each for each in WAYS if each.name == way).steer(vector, at, coefficient)
                losses = text_losses(setting.model, texts, steers=[steer], skip=skip, batch_size=BATCH)
                found.append(change(losses))
            return np.asarray(torch.stack(found).view(len(coefficients), 2, -1).transpose(0, 1).numpy())

        for way in WAYS:
            vector, layer = setting.vector(way, latent), chosen[way.name][TOPIC]["layer"]
            rows[way.name].append(swept(vector, layer, way.name))
            if way is FRONT:
                random = random_like(vector.at(layer), seed=setting.seed)
                rows["random"].append(swept(random, layer, way.name))
        named = change(named_losses(setting.model, latent.prefix, texts, skip))
        rows["named"].append(np.asarray(named.view(2, -1).numpy()))
    facts = {"text_coefficients": list(coefficients), "skip": skip, "chosen": chosen}
    return Result({name: np.stack(of) for name, of in rows.items()}, {**setting.facts(), **facts})


def named_losses(model: Model, prefix: str, texts: list[str], skip: int) -> Losses:
    """Losses of the same tokens as `text_losses` counts, behind a text that names the topic."""
    rows = [encode(model, text) for text in texts]
    before = encode(model, prefix)
    bos = int(model.bos is not None)
    start = 1 + skip
    return completion_losses(
        model, [[*before, *row[bos:start]] for row in rows], [row[start:] for row in rows], batch_size=BATCH
    )


def knowledge(job: Job) -> Result:
    """Which questions are answered right, and the log-probability of the answers.

    Arrays: `plain.right`, `plain.log_p` [question]; of `WAY` and `random` (the front way) [topic, question].
    """
    setting = settle(job)
    chosen = job.inputs.of("choose")[job.model.name].facts["chosen"]
    latents = setting.material.groups[TOPIC].latents
    forms, questions = askable(setting)
    rows: dict[str, list[Knowledge]] = {name: [] for name in (*(way.name for way in WAYS), "random")}
    for done, latent in enumerate(latents):
        job.progress(done, len(latents))
        for way in WAYS:
            at = chosen[way.name][TOPIC]
            steer = way.steer(setting.vector(way, latent), at["layer"], at["coefficient"])
            rows[way.name].append(answered(setting.model, questions, steers=[steer], batch_size=BATCH))
            if way is FRONT:
                random = replace(steer, vector=random_like(steer.vector.at(at["layer"]), seed=setting.seed))
                rows["random"].append(answered(setting.model, questions, steers=[random], batch_size=BATCH))
    plain = answered(setting.model, questions, batch_size=BATCH)
    arrays: dict[str, Array] = {
        "plain.right": plain.right.double().numpy(),
        "plain.log_p": plain.log_p.double().numpy(),
    }
    for name, of in rows.items():
        arrays[f"{name}.right"] = torch.stack([each.right for each in of]).double().numpy()
        arrays[f"{name}.log_p"] = torch.stack([each.log_p for each in of]).double().numpy()
    return Result(arrays, {**setting.facts(), "forms": forms, "chosen": chosen})


def askable(setting: Setting) -> tuple[list[str], list[NextToken]]:
    """The questions, each with its form, that are longer than the vectors and whose answer has tokens of its own.

    Raises:
        SteeringError: there is none.
    """
    model, forms, questions = setting.model, list[str](), list[NextToken]()
    longest = max(len(setting.vector(FRONT, latent).directions[0]) for latent in setting.material.groups[TOPIC].latents)
    refused = ""
    for form, of in setting.material.facts.items():
        for question in of:
            try:
                before, _ = continuation(model, question.prompt, question.answer)
            except SteeringError as error:
                refused = str(error)
                continue
            if len(before) > longest:
                forms.append(form)
                questions.append(question)
    if not questions:
        raise SteeringError(f"{model.name}: no question can be asked: {refused or 'all are as short as the vectors'}")
    return forms, questions
