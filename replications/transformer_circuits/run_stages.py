"""What is read from running the models: roles of heads, parts of scores, knocked-out paths, orders of terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from replications.transformer_circuits import prompts
from replications.transformer_circuits.models import INDUCTION, array, facts, is_attention_only, load, roles, skipped
from replications.transformer_circuits.weight_stages import text
from torch import Tensor

import circuits
import interventions
from circuits import Head
from interventions import HeadInputs, Model, Prompts, Site, Zero, captured, path_edits
from reprise import Job, Result

BATCH = 16
SEQUENCES, WINDOWS = 32, 128
CODES, STEPS = (1, 4, 16, 64), 800


def heads(job: Job) -> Result:
    """Previous-token and induction heads by their attention on repeated random tokens, and patterns on repeated text.

    Heads are chosen on one half of the sequences; the other half gives the scores that are stored beside them.
    """
    model = load(job)
    n_layers = int(model.bridge.cfg.n_layers)
    if not n_layers:
        return skipped(model)
    tokens = prompts.repeated(model, job.model.location, SEQUENCES, job.seed)
    detectors = {name: circuits.DETECTORS[name] for name in ("previous_token", "induction")}
    scores = circuits.head_scores_by_sequence(model.bridge, tokens, detectors=detectors, batch_size=BATCH)
    chosen = {name: score[: SEQUENCES // 2].mean(dim=0) for name, score in scores.items()}
    arrays = {name: array(score[SEQUENCES // 2 :]) for name, score in scores.items()}
    found: dict[str, Any] = dict(facts(model))
    induction = (chosen["induction"] > INDUCTION).nonzero().tolist()
    if n_layers > 1 and induction:
        last = max(layer for layer, _ in induction)
        layer, head = divmod(int(chosen["previous_token"][:last].argmax()), found["n_heads"])
        # Below it there is nothing that it could compose with.
        found |= {"previous": [layer, head], "induction": [pair for pair in induction if pair[0] > layer]}
    if prompts.has_shipped_tokenizer(job.model.location):
        shown = prompts.repeated_text()
        arrays["pattern"] = array(circuits.attention_patterns(model.bridge, shown)[:, 0])
        found["tokens"] = [text(model, int(token)) for token in shown[0]]
    return Result(arrays, found)


def paths(job: Job) -> Result:
    """Parts of the induction heads' scores, and their induction without the previous-token head in q, k or v."""
    model, chosen = load(job), roles(job)
    if chosen is None or not is_attention_only(model):
        return skipped(model)
    bridge, previous, induction = model.bridge, chosen.previous, chosen.induction
    tokens = prompts.repeated(model, job.model.location, SEQUENCES, job.seed + 1)
    length = circuits.segment_length(tokens)
    queries = list(range(tokens.shape[1] - length, tokens.shape[1] - 1))
    right = [query - length + 1 for query in queries]
    first_copy = range(tokens.shape[1] - 2 * length, tokens.shape[1] - length)
    generator = np.random.default_rng(job.seed)
    wrong = [int(generator.choice([key for key in first_copy if key != target])) for target in right]
    parts, other_parts = (
        np.stack(
            [
                array(circuits.mean_score_parts(bridge, tokens, head, queries=queries, keys=keys, batch_size=4))
                for head in induction
            ]
        ).mean(axis=1)
        for keys in (right, wrong)
    )
    scores = {"intact": _induction(model, tokens, induction)}
    for into in ("q", "k", "v"):
        scores[into] = _induction(model, tokens, induction, previous, into)
    scores["everywhere"] = _induction(model, tokens, induction, previous)
    labels = list(circuits.score_labels(bridge, max(layer for layer, _ in induction)))
    return Result(
        {
            "parts": parts,
            "contrast": parts - other_parts,
            **{f"induction_{name}": array(score) for name, score in scores.items()},
        },
        {
            **facts(model),
            "previous": list(previous),
            "induction": [list(head) for head in induction],
            "labels": labels,
        },
    )


def _induction(
    model: Model,
    tokens: Int[Tensor, "batch pos"],
    heads: Sequence[Head],
    without: Head | None = None,
    into: Literal["q", "k", "v"] | None = None,
) -> Float[Tensor, "batch head"]:
    """Induction scores of the heads; `without` another one's output, everywhere or `into` one of their inputs alone."""
    layers, parts = sorted({layer for layer, _ in heads}), []
    for rows in torch.split(tokens, BATCH):
        edits: dict[Site, Any] = {}
        if without is not None and into is None:
            edits = {Site("z", without[0], head=without[1]): Zero()}
        elif without is not None and into is not None:
            edits = {**path_edits(model.network, Prompts(rows), [without], HeadInputs(heads, into))}
        with torch.no_grad(), captured(model.network, [Site("pattern", at) for at in layers], edits=edits) as seen:
            model.network(rows.to(model.network.device), use_cache=False)
        patterns = {at: seen[Site("pattern", at)][0].transpose(1, 2).float() for at in layers}
        score = {at: circuits.DETECTORS["induction"](patterns[at], rows.to(patterns[at].device)) for at in layers}
        parts.append(torch.stack([score[layer][:, head] for layer, head in heads], dim=1).cpu())
    return torch.cat(parts)


def positions(job: Job) -> Result:
    """The position-only kernel of the previous-token head, and its mean pattern on text."""
    model, chosen = load(job), roles(job)
    if chosen is None or not is_attention_only(model):
        return skipped(model)
    weights = circuits.read_weights(model.bridge)
    layer, head = chosen.previous
    kernel = circuits.positional_pattern(weights, chosen.previous)
    text_windows = prompts.windows(model, WINDOWS // 4)
    pattern = circuits.reduce_patterns(model.bridge, text_windows, lambda pattern, _: pattern, batch_size=4)
    return Result(
        {
            "kernel": array(kernel),
            "pattern": array(pattern[:, layer, head].mean(dim=0)),
            "share": array(circuits.previous_position_share(weights)),
        },
        {**facts(model), "previous": list(chosen.previous)},
    )


def terms(job: Job) -> Result:
    """Loss on text with the paths of each order, patterns frozen."""
    model = load(job)
    if not model.bridge.cfg.n_layers or not is_attention_only(model):
        return skipped(model)
    text_windows = prompts.windows(model, WINDOWS)
    by_order = circuits.losses_by_order(model.bridge, text_windows, batch_size=BATCH)
    by_terms = circuits.losses_by_terms(model.bridge, text_windows, batch_size=BATCH)
    return Result(
        {"by_order": array(by_order), "by_terms": np.stack([array(loss) for loss in by_terms.values()], axis=1)},
        {**facts(model), "terms": list(by_terms)},
    )


def attribution(job: Job) -> Result:
    """Direct logit attribution on repeated random tokens, and the cost of every head on their second copy."""
    model = load(job)
    if not model.bridge.cfg.n_layers or not is_attention_only(model):
        return skipped(model)
    tokens = prompts.repeated(model, job.model.location, SEQUENCES // 2, job.seed + 2)
    parts = circuits.logit_attribution(model.bridge, tokens, batch_size=BATCH)
    length = circuits.segment_length(tokens)
    second = slice(tokens.shape[1] - length, None)
    cost = interventions.loss_sweep(model.network, Prompts(tokens), Zero(), targets=second, batch_size=BATCH)
    return Result(
        {"example": array(parts.values[0]), "mean": array(parts.values.mean(dim=0)), "ablation": array(cost.effects)},
        {**facts(model), "labels": list(parts.labels), "length": length},
    )


def codes(job: Job) -> Result:
    """Reconstruction error of PCA, of a linear and of a nonlinear autoencoder at equal code sizes, on held-out rows."""
    model = load(job)
    if model.bridge.cfg.n_layers != 2 or not is_attention_only(model) or "seed" in job.model.name:
        return skipped(model)
    seen = circuits.record(model.bridge, prompts.windows(model, 64), ["blocks.1.hook_resid_pre"])
    stream = seen["blocks.1.hook_resid_pre"][:, 1:].flatten(0, 1)
    stream = stream[torch.randperm(len(stream), generator=torch.Generator().manual_seed(job.seed))]
    samples = {"stream": stream, "curve": circuits.curved_data(4000, 10, noise=0.05, seed=job.seed)}
    arrays = {}
    for name, x in samples.items():
        train, test = x[: len(x) * 3 // 4], x[len(x) * 3 // 4 :]
        sizes = CODES if name == "stream" else (1, 2, 3)
        arrays[name] = np.array([errors(train, test, size, job.seed) for size in sizes], dtype=np.float32)
    return Result(arrays, {**facts(model), "sizes": {"stream": list(CODES), "curve": [1, 2, 3]}})


def errors(train: torch.Tensor, test: torch.Tensor, size: int, seed: int) -> list[list[float]]:
    """[method, (training, held-out)] share of the variance that PCA, a linear and a nonlinear autoencoder leave."""
    total = float((train - train.mean(dim=0)).square().sum(dim=1).mean())
    pca = circuits.fit_pca(train, size)
    linear, nonlinear = (
        circuits.fit_autoencoder(train, size, hidden=hidden, steps=STEPS, learning_rate=1e-2, seed=seed, batch_size=256)
        for hidden in (None, 64)
    )
    return [
        [float(circuits.reconstruction_error(reconstruct(x), x)) / total for x in (train, test)]
        for reconstruct in (pca.reconstruct, linear, nonlinear)
    ]
