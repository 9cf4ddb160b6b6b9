"""Hendel et al. 2023, stage by stage.

1. accuracy: of every task, zero-shot, in context, and zero-shot with the task vector put in at each layer; the layer of
   each task is the best on queries that are not scored. Beside them, controls: zero-shot narrowed to the task's
   answers, demonstrations with shuffled labels, and the vector of another task. And two looks at what the vector holds:
   whether it answers its own dummy query instead, and what it does when its difference from other tasks is added.
2. conflict: the vector of one task in prompts that show another.
3. vectors: task vectors of each task from many demonstrations and dummy queries, and how they group, at each layer.
   They are kept of the layer that is best over all primary tasks; if the vector helps at none, of that where they group
   best, chosen on one half of them and judged on the other.
4. decoded: the tokens that the mean vector of each task says.

The measurements that judge the claims are in `claims.py`; they read stored results alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from replications.task_vectors import prompts
from replications.task_vectors.bench import answers, bench_of, told_apart
from replications.task_vectors.claims import CLAIMS
from replications.task_vectors.grouping import grouping
from replications.task_vectors.prompts import Entry
from torch import Tensor

from function_vectors import (
    Encoded,
    FunctionVector,
    Scores,
    adding,
    backends,
    choose,
    conflict,
    decode,
    icl_prompts,
    mean_differences,
    replacing,
    score,
    score_by_layer,
    task_vectors,
)
from reprise import Job, Result, Stage

__all__ = ["CHECK_BACKEND", "CLAIMS", "STAGES", "TAKES_DATA"]

TAKES_DATA = True
CHECK_BACKEND = backends.check
N_TOKENS = 10  # decoded of each task
GROUPING = ("nearest", "within", "between")
Array = NDArray[np.generic]


def accuracy(job: Job) -> Result:
    """Right or wrong of every task and prompt in each condition, and the layers that are chosen."""
    bench = bench_of(job)
    runner, trials = bench.runner, bench.trials
    rows: dict[str, list[Scores]] = {}
    zero_shot: list[Encoded] = []
    states: list[Tensor] = []
    averages: dict[str, Tensor] = {}
    for done, entry in enumerate(bench.entries):
        job.progress(done, len(bench.entries))
        choosing = bench.shown(entry, entry.chosen_on, trials.chosen_on)
        scoring = bench.shown(entry, entry.scored_on, trials.scored_on)
        to_choose, to_score = bench.encode(choosing.zero_shot), bench.encode(scoring.zero_shot)
        other, ours = bench.streams(choosing), bench.streams(scoring)
        asked = replace(to_score, answers=bench.encode(scoring.dummies[:: prompts.DUMMIES]).answers)
        found = {
            "chosen_on": score_by_layer(runner, to_choose, replacing(other.mean(dim=1))),
            "chosen_on_zero_shot": score(runner, to_choose),
            "by_layer": score_by_layer(runner, to_score, replacing(ours.mean(dim=1))),
            "dummy": score_by_layer(runner, asked, replacing(ours[:, 0])),
            "zero_shot": score(runner, to_score),
            "among_answers": score(runner, to_score, candidates=answers(bench, entry)),
            "in_context": score(runner, bench.encode(scoring.in_context)),
            "shuffled": score(runner, bench.encode(scoring.shuffled)),
        }
        for name, scores in found.items():
            rows.setdefault(name, []).append(scores)
        zero_shot.append(to_score)
        states.append(ours.mean(dim=1))
        averages[entry.name] = other.mean(dim=(0, 1))
    layers = [choose(scores).layer for scores in rows["chosen_on"]]
    after = following(bench.entries)
    rows["another"] = [
        score_by_layer(runner, shown, replacing(states[after[at]]), layers=[layer]).take("layer", layer)
        for at, (shown, layer) in enumerate(zip(zero_shot, layers, strict=True))
    ]
    rows["added"] = [
        score_by_layer(runner, shown, adding(difference))
        for shown, difference in zip(zero_shot, differences(bench.entries, averages), strict=True)
    ]
    arrays = {name: np.stack([scores.right.numpy() for scores in of]) for name, of in rows.items()}
    facts = {"layers": layers, "layer": best_layer(bench.entries, rows), "skipped": bench.skipped}
    return Result(arrays, {**bench.facts(), **facts})


def conflicts(job: Job) -> Result:
    """With A's vector in prompts that show B: whose answer comes out, for every pair of tasks that share queries."""
    bench = bench_of(job)
    facts = job.inputs.of("accuracy")[job.model.name].facts
    layers = dict(zip(facts["tasks"], facts["layers"], strict=True))
    rows: dict[str, list[Array]] = {"patched": [], "prompt": [], "clean_patched": [], "clean_prompt": []}
    pairs: list[tuple[str, str]] = []
    every = prompts.conflicting(bench.entries)
    for done, (patched, prompt) in enumerate(every):
        job.progress(done, len(every))
        ours, theirs = told_apart(bench, *prompts.shared_queries(patched, prompt))
        if len(ours.pairs) < prompts.FEWEST:
            continue
        of_patched = bench.shown(patched, ours, bench.trials.conflict)
        of_prompt = bench.shown(prompt, theirs, bench.trials.conflict)
        first = bench.encode(of_patched.zero_shot).first
        found = conflict(bench.runner, bench.encode(of_prompt.in_context), first, bench.streams(of_patched).mean(dim=1))
        pairs.append((patched.name, prompt.name))
        for name, of in rows.items():
            of.append(getattr(found, name).right.numpy())
    arrays = {name: np.stack(of) for name, of in rows.items() if of}
    told = {"pairs": [list(pair) for pair in pairs], "layers": [layers[patched] for patched, _ in pairs]}
    return Result(arrays, {**bench.facts(), **told})


def vectors(job: Job) -> Result:
    """Vectors of each task, each from demonstrations and one dummy query of its own, and how they group by layer."""
    bench = bench_of(job)
    layer = job.inputs.of("accuracy")[job.model.name].facts["layer"]
    found = []
    for done, entry in enumerate(bench.entries):
        job.progress(done, len(bench.entries))
        shown = icl_prompts(
            entry.task, bench.template, shots=bench.trials.shots, n=bench.trials.vectors, seed=bench.seed
        )
        found.append(task_vectors(bench.runner, bench.encode(shown).prompts))
    states = torch.stack(found).numpy()  # [task, vector, layer, d_model]
    primary = np.array([entry.primary for entry in bench.entries])
    shape = (len(states), bench.trials.vectors, bench.runner.n_layers)
    arrays: dict[str, Array] = {name: np.full(shape, np.nan, dtype=np.float32) for name in GROUPING}
    for group in (primary, ~primary):
        for at in range(bench.runner.n_layers) if group.sum() > 1 else ():
            grouped = grouping(states[group, :, at])
            for name in GROUPING:
                arrays[name][group, :, at] = getattr(grouped, name)
    if layer is None:
        half = arrays["nearest"][primary, : bench.trials.vectors // 2]
        layer = int(half.mean(axis=(0, 1)).argmax())
    arrays["states"] = np.ascontiguousarray(states[:, :, layer])
    return Result(arrays, {**bench.facts(), "layer": layer})


def decoded(job: Job) -> Result:
    """The most likely tokens of each task's mean vector, and how the words that name the town's relations fare."""
    bench = bench_of(job)
    stored = job.inputs.of("vectors")[job.model.name]
    means = torch.from_numpy(stored["states"]).mean(dim=1)
    layer = int(stored.facts["layer"])
    tops = [
        decode(bench.runner, FunctionVector(mean, entry.name, layer=layer), N_TOKENS)
        for mean, entry in zip(means, bench.entries, strict=True)
    ]
    arrays: dict[str, Array] = {"probabilities": torch.stack([top.probabilities for top in tops]).float().numpy()}
    town = [at for at, entry in enumerate(bench.entries) if entry.kind == prompts.TOWN]
    tokens = [bench.tokenizer.encode(bench.entries[at].name.removesuffix("_of")) for at in town]
    if town and all(len(word) == 1 for word in tokens):
        logits = bench.runner.decoded(means[town])
        arrays["names"] = logits[:, [word[0] for word in tokens]].float().numpy()
    words = [[word.strip() or repr(word) for word in top.words(bench.tokenizer)] for top in tops]
    return Result(arrays, {**bench.facts(), "layer": layer, "words": words})


def following(entries: list[Entry]) -> list[int]:
    """For each task the place of the next of its group, primary or not, for the last that of the first."""
    groups = [[at for at, entry in enumerate(entries) if entry.primary == primary] for primary in (True, False)]
    after = {at: group[(place + 1) % len(group)] for group in groups for place, at in enumerate(group)}
    return [after[at] for at in range(len(entries))]


def differences(entries: list[Entry], averages: dict[str, Tensor]) -> list[Tensor]:
    """Of each task the mean task vector less that of its group, [layer, d_model]; of a task that is alone, itself."""
    found: dict[str, Tensor] = {}
    for primary in (True, False):
        group = {entry.name: averages[entry.name] for entry in entries if entry.primary == primary}
        found |= mean_differences(group) if len(group) > 1 else group
    return [found[entry.name] for entry in entries]


def best_layer(entries: list[Entry], rows: dict[str, list[Scores]]) -> int | None:
    """The best layer over all primary tasks, where layers are chosen; None if the vector helps at none."""
    places = [at for at, entry in enumerate(entries) if entry.primary]
    without = torch.cat([rows["chosen_on_zero_shot"][at].right for at in places])
    each = [rows["chosen_on"][at] for at in places]
    best = choose(Scores(torch.cat([scores.right for scores in each]), each[0].axes, each[0].coordinates))
    return best.layer if best.accuracy > float(without.float().mean()) else None


STAGES = (
    Stage("accuracy", accuracy, each_model=True, data=prompts.DATA),
    Stage("conflict", conflicts, each_model=True, needs=("accuracy",), data=prompts.DATA),
    Stage("vectors", vectors, each_model=True, needs=("accuracy",), data=prompts.DATA),
    Stage("decoded", decoded, each_model=True, needs=("vectors",), data=prompts.DATA),
)
