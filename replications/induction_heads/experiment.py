"""Olsson et al. 2022, stage by stage.

1. dynamics: at every kept checkpoint, the loss and the in-context learning score on held-out text, and each head's
   prefix-matching and previous-token score on repeated random tokens.
2. repeated: the final model on repeated random tokens: all head scores, the loss per position, one attention pattern.
3. ablation: the cost of losing each head, and of losing all induction heads or as many others of their layers.
4. ablation_dynamics: the same costs along training.
5. one_prompt: the patterns of the heads with the highest scores on one sequence, to be looked at.

The measurements that judge the claims are in `claims.py`; they read stored results alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from replications.induction_heads import prompts
from replications.induction_heads.claims import CLAIMS
from torch import Tensor

import circuits
import interventions
from interventions import Model, Prompts, Site, Zero
from reprise import Job, Result, Stage
from reprise.models import ModelReference
from zoo import catalogue

__all__ = ["CLAIMS", "STAGES"]

BATCH = 16  # larger ones leave the cache of a small CPU
MOST_PATTERNS = 48  # heads of one model whose patterns are kept
INDUCTION_THRESHOLD = 0.2  # share of attention; chance on repeated random tokens is below 0.02
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Trials:
    """How much is shown to the models: windows of text and sequences of repeated random tokens.

    Along training, ablations see a quarter of `windows` and of `head_windows`.
    """

    windows: int
    sequences: int
    head_windows: int
    joint_windows: int
    controls: int


TRIALS = {
    "tiny": Trials(windows=384, sequences=48, head_windows=24, joint_windows=768, controls=1),
    "paper": Trials(windows=256, sequences=64, head_windows=32, joint_windows=256, controls=5),
}


def dynamics(job: Job) -> Result:
    """Loss, in-context learning score and head scores at every checkpoint of one model."""
    model, trials = load(job), TRIALS[job.tier]
    text = prompts.text_windows(model, job.model.location, trials.windows)
    random = prompts.for_prefix_matching(model, job.model.location, trials.sequences, job.seed)
    detectors = {name: circuits.DETECTORS[name] for name in ("prefix_matching", "previous_token")}
    steps = checkpoints(job.model)
    rows: dict[str, list[Array]] = {"loss": [], "score": [], "prefix_matching": [], "previous_token": []}
    for done, _ in enumerate(along_training(model, job.model, steps)):
        job.progress(done, len(steps))
        log_probs = interventions.next_token_log_probs(model.network, Prompts(text), batch_size=BATCH)
        heads = circuits.head_scores_by_sequence(model.bridge, random, detectors=detectors, batch_size=BATCH)
        rows["loss"].append(array(-log_probs.mean(dim=1)))
        rows["score"].append(array(in_context_learning_score(model, log_probs)))
        for name, scores in heads.items():
            rows[name].append(array(scores))
    per_step = tokens_per_step(job.model)
    arrays = {name: np.stack(values) for name, values in rows.items()}
    arrays["tokens"] = np.array([step * per_step for step in steps], dtype=np.float64)
    return Result(arrays, {**shape_of(model), "checkpoints": len(steps), "context": prompts.context(model)})


def repeated(job: Job) -> Result:
    """All head scores, losses per position and the strongest head's pattern on repeated random tokens."""
    model, trials = load(job), TRIALS[job.tier]
    tokens = prompts.repeated(model, job.model.location, trials.sequences, job.seed)
    four_times = prompts.for_prefix_matching(model, job.model.location, trials.sequences, job.seed)
    scores = circuits.head_scores_by_sequence(model.bridge, tokens, batch_size=BATCH)
    evaluator = {"prefix_matching": circuits.DETECTORS["prefix_matching"]}
    scores |= circuits.head_scores_by_sequence(model.bridge, four_times, detectors=evaluator, batch_size=BATCH)
    log_probs = circuits.next_token_log_probs(model.bridge, tokens, batch_size=BATCH)
    chosen, measured = halves(len(tokens))
    layer, head = strongest(scores["prefix_matching"][chosen].mean(dim=0))
    pattern = circuits.attention_patterns(model.bridge, tokens[measured])[layer, :, head]
    length = circuits.segment_length(tokens)
    queries = torch.arange(tokens.shape[1] - length, tokens.shape[1])
    on_target = pattern[:, queries].argmax(dim=-1) == queries - length + 1
    arrays = {name: array(values) for name, values in scores.items()}
    return Result(
        {
            **arrays,
            "loss": array(-log_probs),
            "pattern": array(pattern[0]),
            "argmax_share": array(on_target.float().mean(dim=1)),
        },
        {**shape_of(model), "length": length, "bos": model.bos is not None, "strongest": [layer, head]},
    )


def ablation(job: Job) -> Result:
    """The cost in loss of each head; the cost in score of all induction heads together, and of as many others."""
    model, trials = load(job), TRIALS[job.tier]
    text = prompts.text_windows(model, job.model.location, trials.joint_windows)
    few = spread(text, trials.head_windows)
    arrays = {"zero": cost_of_each_head(model, few)}
    scores = job.inputs.of("repeated")[job.model.name]["prefix_matching"].mean(axis=0)
    heads = induction_heads(scores)
    arrays["score"] = score_without(model, text, [])
    arrays["score_without_induction"] = score_without(model, text, heads)
    controls = control_heads(scores, heads, trials.controls, job.seed)
    arrays["score_without_controls"] = np.stack([score_without(model, text, control) for control in controls])
    return Result(arrays, {**shape_of(model), "induction_heads": [list(head) for head in heads]})


def ablation_dynamics(job: Job) -> Result:
    """Along training: the cost in loss of each head, and in score of the heads that end as induction heads."""
    model, trials = load(job), TRIALS[job.tier]
    text = prompts.text_windows(model, job.model.location, trials.windows // 4)
    few = spread(text, trials.head_windows // 4)
    heads = [
        (int(layer), int(head)) for layer, head in job.inputs.of("ablation")[job.model.name].facts["induction_heads"]
    ]
    steps = checkpoints(job.model)
    steps = steps[-1::-3][::-1]  # every third, ending with the last
    rows: dict[str, list[Array]] = {"zero": [], "score": [], "score_without_induction": []}
    for done, _ in enumerate(along_training(model, job.model, steps)):
        job.progress(done, len(steps))
        rows["zero"].append(cost_of_each_head(model, few))
        rows["score"].append(score_without(model, text, []))
        rows["score_without_induction"].append(score_without(model, text, heads))
    arrays = {name: np.stack(values) for name, values in rows.items()}
    arrays["tokens"] = np.array([step * tokens_per_step(job.model) for step in steps], dtype=np.float64)
    return Result(arrays, {**shape_of(model), "induction_heads": [list(head) for head in heads]})


def one_prompt(job: Job) -> Result:
    """Patterns of the heads with the highest prefix-matching scores on a segment of random tokens and its repetition.

    The sequence is the first of those on which no head is chosen, up to the end of its second segment.
    """
    model, trials = load(job), TRIALS[job.tier]
    four_times = prompts.for_prefix_matching(model, job.model.location, trials.sequences, job.seed)
    _, measured = halves(len(four_times))
    twice = four_times[measured][:1, : 2 * prompts.SEGMENT + (model.bos is not None)]
    patterns = array(circuits.attention_patterns(model.bridge, twice)[:, 0])
    scores = job.inputs.of("repeated")[job.model.name]["prefix_matching"].mean(axis=0)
    kept = np.sort(np.argsort(scores, axis=None)[::-1][:MOST_PATTERNS])
    heads = np.stack(np.unravel_index(kept, scores.shape), axis=1)
    return Result(
        {"patterns": patterns[heads[:, 0], heads[:, 1]], "heads": heads},
        {**shape_of(model), "tokens": prompts.words(model, twice[0])},
    )


def load(job: Job) -> Model:
    return interventions.load(job.model.location, device=job.device, dtype=getattr(torch, job.dtype))


def checkpoints(reference: ModelReference) -> tuple[int, ...]:
    """Steps of the kept checkpoints; one nameless step for a model that has its final weights alone."""
    folder = Path(reference.location)
    return (catalogue.checkpoint_steps(folder) if reference.kind != "hub" else ()) or (0,)


def tokens_per_step(reference: ModelReference) -> int:
    return catalogue.tokens_per_step(Path(reference.location)) if len(checkpoints(reference)) > 1 else 1


def along_training(model: Model, reference: ModelReference, steps: tuple[int, ...]) -> Iterator[int]:
    """Put the weights of one step after the other into the model; the last are the final ones it was loaded with."""
    final = {name: tensor.clone() for name, tensor in model.bridge.state_dict().items()}
    for step in steps:
        last = step == steps[-1]
        interventions.set_weights(model, final if last else catalogue.checkpoint(Path(reference.location), step))
        yield step


def in_context_learning_score(model: Model, log_probs: Tensor) -> Tensor:
    where = prompts.positions(model)
    return circuits.in_context_learning_score(log_probs, early=where.early, late=where.late, width=where.width)


def score_without(model: Model, text: Tensor, heads: list[tuple[int, int]]) -> Array:
    """The in-context learning score of every window with the heads' outputs set to zero."""
    edits = {Site("z", layer, head=head): Zero() for layer, head in heads}
    log_probs = interventions.next_token_log_probs(model.network, Prompts(text), edits=edits, batch_size=BATCH)
    return array(in_context_learning_score(model, log_probs))


def cost_of_each_head(model: Model, text: Tensor) -> Array:
    """Increase of every window's loss with each head's output set to zero, [window, layer, head]."""
    return array(interventions.loss_sweep(model.network, Prompts(text), Zero(), batch_size=BATCH).effects)


def spread(text: Tensor, n: int) -> Tensor:
    """`n` of the windows, evenly spread over the text."""
    return text[torch.linspace(0, len(text) - 1, n).long()]


def induction_heads(scores: Array) -> list[tuple[int, int]]:
    """Heads whose prefix-matching score passes the threshold."""
    return [(int(layer), int(head)) for layer, head in zip(*np.nonzero(scores > INDUCTION_THRESHOLD), strict=True)]


def control_heads(scores: Array, heads: list[tuple[int, int]], n: int, seed: int) -> list[list[tuple[int, int]]]:
    """`n` random choices of other heads, as many a layer as there are induction heads in it (or all that are left)."""
    generator = np.random.default_rng(seed)
    taken = np.zeros(scores.shape, dtype=bool)
    for layer, head in heads:
        taken[layer, head] = True
    return [
        [
            (layer, int(head))
            for layer, row in enumerate(taken)
            for head in generator.permutation(np.flatnonzero(~row))[: row.sum()]
        ]
        for _ in range(n)
    ]


def strongest(scores: Tensor) -> tuple[int, int]:
    layer, head = divmod(int(scores.argmax()), scores.shape[1])
    return layer, head


def halves(n: int) -> tuple[slice, slice]:
    """The sequences on which a head is chosen, and those on which it is measured."""
    return slice(None, n // 2), slice(n // 2, None)


def shape_of(model: Model) -> dict[str, int]:
    return {"n_layers": int(model.bridge.cfg.n_layers), "n_heads": int(model.bridge.cfg.n_heads)}


def array(tensor: Tensor) -> Array:
    return tensor.detach().cpu().float().numpy()


DATA = ("shared/data/held_out/tokens.safetensors",)
STAGES = (
    Stage("dynamics", dynamics, each_model=True, data=DATA),
    Stage("repeated", repeated, each_model=True, data=DATA),
    Stage("ablation", ablation, each_model=True, needs=("repeated",), data=DATA),
    Stage("ablation_dynamics", ablation_dynamics, each_model=True, needs=("ablation",), data=DATA),
    Stage("one_prompt", one_prompt, each_model=True, needs=("repeated",), data=DATA),
)
