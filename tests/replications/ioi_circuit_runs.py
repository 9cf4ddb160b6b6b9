"""What the tests of the circuit share: small random models that read words, and ablation by hooks of plain torch."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from replications.indirect_object_identification import (
    adversarial_stages,
    backup_stages,
    discovery_stages,
    drawing_prompts,
    material,
    measured_circuits,
    positions,
    setting,
    validation_stages,
)
from replications.indirect_object_identification.measured_circuits import PATHS
from replications.indirect_object_identification.positions import IOIPrompts
from torch import Tensor

import interventions
from reprise import Job, Result, Results
from reprise.models import ModelReference
from zoo import ioi

ARCHITECTURES = ("gpt2", "llama", "gpt_neox")
# With a sliding window; with that, capped scores, and norms behind attention.
FURTHER = ("mistral", "gemma2")
N_LAYERS, N_HEADS, D_HEAD = 3, 4, 8
PIECES = re.compile(r"\w+|[^\w\s]")
TRIALS = dataclasses.replace(
    setting.TRIALS["tiny"], search=16, paths=4, validated=16, means=40, subsets=3, adversarial=6, batch=8
)
EFFORT = dataclasses.replace(
    measured_circuits.EFFORT["tiny"],
    search=8,
    attributed=6,
    steps=2,
    curves=10,
    draws=2,
    grown=4,
    greedy=1,
    greedy_steps=3,
    greedy_among=3,
)
STAGES = (measured_circuits, discovery_stages, validation_stages, backup_stages, adversarial_stages)
# Where z enters the output projection, by hand.
PROJECTIONS = {
    "gpt2": "transformer.h.{}.attn.c_proj",
    **dict.fromkeys(("llama", *FURTHER), "model.layers.{}.self_attn.o_proj"),
    "gpt_neox": "gpt_neox.layers.{}.attention.dense",
}


class Words:
    """A tokenizer of words and punctuation."""

    def __init__(self) -> None:
        texts = (*(each.text for each in ioi.TEMPLATES), *material.TINY_REMARKS, positions.BEHIND)
        known = {piece for text in texts for piece in PIECES.findall(text)}
        self.words = ["<bos>", *sorted({*known, *ioi.NAMES, *ioi.PLACES, *ioi.OBJECTS})]
        self.ids = {word: at for at, word in enumerate(self.words)}

    def encode(self, text: str) -> list[int]:
        return [self.ids[piece] for piece in PIECES.findall(text)]

    def decode(self, tokens: list[int]) -> str:
        return " ".join(self.words[token] for token in tokens)


@cache
def model_of(kind: str, n_layers: int = N_LAYERS) -> interventions.Model:
    """A random model of which every head matters; Llama with grouped queries."""
    import transformers

    words = Words()
    width = N_HEADS * D_HEAD
    common = {"vocab_size": len(words.words), "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    wide = {
        "hidden_size": width,
        "intermediate_size": 40,
        "num_hidden_layers": n_layers,
        "num_attention_heads": N_HEADS,
        "max_position_embeddings": 64,
    }
    grouped = {**wide, "num_key_value_heads": 2, "head_dim": D_HEAD}
    settings: dict[str, dict[str, Any]] = {
        "gpt2": {"n_layer": n_layers, "n_head": N_HEADS, "n_embd": width, "n_positions": 64},
        "llama": grouped,
        "gpt_neox": wide,
        "mistral": {**grouped, "sliding_window": 5},
        "gemma2": {**grouped, "sliding_window": 5, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0},
    }
    config = transformers.AutoConfig.for_model(kind, **settings[kind], **common)
    network = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed((*ARCHITECTURES, *FURTHER).index(kind))
    with torch.no_grad():
        for parameter in network.parameters():
            noise = 0.3 * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter + noise if parameter.ndim == 1 else noise)
    return interventions.Model(kind, network, words, 0)


def sentences_of(model: interventions.Model, n: int, part: str = "scores") -> tuple[drawing_prompts.Sentence, ...]:
    return material.material_for(model, "tiny").draw(n, 0, part=part)


def prompts_of(model: interventions.Model, n: int, part: str = "scores") -> tuple[IOIPrompts, IOIPrompts]:
    """p_IOI and p_ABC."""
    sentences = sentences_of(model, n, part)
    return positions.tokenized(model, sentences), positions.tokenized(model, drawing_prompts.abc(sentences, 0))


@contextmanager
def replaced_z(model: interventions.Model, edits: Mapping[int, Any]) -> Iterator[None]:
    """Inside, z [1, pos, head, d_head] of a layer becomes edits[layer](z)."""

    def hook(edit: Any) -> Any:
        def before(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
            z = args[0].view(*args[0].shape[:2], N_HEADS, D_HEAD)
            new = edit(z)
            return (z if new is None else new).reshape(args[0].shape), *args[1:]

        return before

    network: Any = model.network
    handles = [
        network.get_submodule(PROJECTIONS[model.name].format(layer)).register_forward_pre_hook(hook(edit))
        for layer, edit in edits.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def tokens_of(prompts: IOIPrompts, row: int) -> Tensor:
    return prompts.tokens[row : row + 1, -int(prompts.lengths[row]) :]


def last_logits(model: interventions.Model, tokens: Tensor) -> Tensor:
    network: Any = model.network
    with torch.no_grad():
        logits: Tensor = network(tokens).logits[0, -1]
    return logits


def plain_means(model: interventions.Model, abc: IOIPrompts) -> dict[tuple[Any, ...], list[Tensor]]:
    """By template, order and places: z of every layer [pos, head, d_head], one prompt a pass."""
    seen: dict[tuple[Any, ...], list[list[Tensor]]] = {}
    for row in range(len(abc.sentences)):
        z: dict[int, Tensor] = {}
        edits = {layer: partial(_keep, z, layer) for layer in range(N_LAYERS)}
        with replaced_z(model, edits):
            last_logits(model, tokens_of(abc, row))
        seen.setdefault(kind_of(abc, row), []).append([z[layer] for layer in range(N_LAYERS)])
    return {
        kind: [torch.stack([z[layer] for z in of]).mean(dim=0) for layer in range(N_LAYERS)]
        for kind, of in seen.items()
    }


def _keep(seen: dict[int, Tensor], layer: int, z: Tensor) -> None:
    seen[layer] = z[0].clone()


def kind_of(prompts: IOIPrompts, row: int) -> tuple[Any, ...]:
    sentence, end = prompts.sentences[row], prompts.tokens.shape[1]
    at = tuple(int(prompts.positions[word][row]) - end for word in ("IO", "S1", "S2"))
    return sentence.template, sentence.order, int(prompts.lengths[row]), at


def plain_difference(
    model: interventions.Model,
    prompts: IOIPrompts,
    row: int,
    means: Sequence[Tensor],
    kept: Mapping[tuple[int, int], Sequence[str] | None],
) -> float:
    """logit(IO) - logit(S) of one prompt with all but `kept` (head -> words, or None for all) at its mean."""
    start = prompts.tokens.shape[1] - int(prompts.lengths[row])

    def edit(layer: int) -> Any:
        def function(z: Tensor) -> Tensor:
            new = means[layer].clone()[None]
            for (at, head), words in kept.items():
                if at == layer:
                    places = slice(None) if words is None else [int(prompts.positions[w][row]) - start for w in words]
                    new[:, places, head] = z[:, places, head]
            return new

        return function

    with replaced_z(model, {layer: edit(layer) for layer in range(N_LAYERS)}):
        logits = last_logits(model, tokens_of(prompts, row))
    return float(logits[prompts.io[row]] - logits[prompts.s[row]])


class Runs:
    """Stages one after another on a model, without folder and store; `done` holds their results."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: interventions.Model, roles: Mapping[str, Any]) -> None:
        self.model, self.reference = model, ModelReference(model.name, "folder", "nowhere", "0" * 64)
        of_tier = material.material_for(model, "tiny")
        self.setting = setting.Setting(model, of_tier, TRIALS, "tiny", 0)
        for module in STAGES:
            monkeypatch.setattr(module, "settle", lambda job: self.setting)
        monkeypatch.setitem(measured_circuits.EFFORT, "tiny", EFFORT)
        random = np.random.default_rng(0)
        self.done: dict[str, Result] = {}
        for at, stage in enumerate(PATHS):
            effects = random.normal(size=(4, self.setting.n_layers, N_HEADS)).astype(np.float32)
            self.done[stage] = Result({"effects": effects}, {"roles": roles if at == 0 else {}})

    def __call__(self, name: str, function: Any) -> Result:
        inputs = Results("tiny", 0, {stage: {self.model.name: result} for stage, result in self.done.items()})
        job = Job(
            Path(), "tiny", 0, "cpu", "float32", models=(self.reference,), inputs=inputs, one_model=self.reference
        )
        self.done[name] = function(job)
        return self.done[name]

    def plain_means(self) -> dict[tuple[Any, ...], list[Tensor]]:
        """The means of the stage "means", one prompt a pass."""
        drawn = [
            self.setting.sentences(TRIALS.search, "search"),
            self.setting.sentences(TRIALS.validated, "scores"),
            self.setting.sentences(TRIALS.means - TRIALS.search, "scores")[TRIALS.validated :],
        ]
        abc = [self.setting.tokenized(drawing_prompts.abc(sentences, 0)) for sentences in drawn]
        found: dict[tuple[Any, ...], list[tuple[int, list[Tensor]]]] = {}
        for prompts in abc:
            of_part = plain_means(self.model, prompts)
            for kind, means in of_part.items():
                n = sum(kind_of(prompts, row) == kind for row in range(len(prompts.sentences)))
                found.setdefault(kind, []).append((n, means))
        layers = range(self.setting.n_layers)
        return {
            kind: [sum((n * z[at] for n, z in parts), torch.zeros(())) / sum(n for n, _ in parts) for at in layers]
            for kind, parts in found.items()
        }
