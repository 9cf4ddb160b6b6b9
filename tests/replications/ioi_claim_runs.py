"""What the tests of the claims share: results made by hand, a random GPT-2 that does the task, and whole runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from replications.indirect_object_identification import claims, measured_circuits, setting, templates
from replications.indirect_object_identification.measured_circuits import PATHS
from replications.indirect_object_identification.setting import Trials

from reprise import Measurement, Result, Results
from reprise.experiment import load_experiment
from reprise.paper import load
from reprise.run import Request, run
from zoo import ioi, words

from . import ioi_search_runs

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "replications" / "indirect_object_identification"
PAPER = load(FOLDER / "paper.toml")
Heads = Sequence[tuple[int, int]]
FEW = Trials(
    performance=12,
    search=6,
    paths=6,
    inner_paths=4,
    everywhere=2,
    copied=4,
    signals=4,
    repeated=3,
    segment=6,
    validated=8,
    means=16,
    subsets=2,
    adversarial=6,
    batch=8,
)
LITTLE: dict[str, Any] = {
    "search": 4,
    "attributed": 4,
    "steps": 1,
    "curves": 6,
    "draws": 2,
    "grown": 3,
    "among": 4,
    "greedy": 1,
    "greedy_steps": 2,
    "greedy_among": 2,
}


def results(tier: str = "tiny", /, **by_stage: Result) -> Results:
    return Results(tier, 0, {name: {"m": result} for name, result in by_stage.items()})


def steps(published: bool = False, **roles: Heads) -> dict[str, Result]:
    """The four steps of path patching, which found these heads; without effects."""
    facts = {"roles": {role: [list(head) for head in heads] for role, heads in roles.items()}}
    found = {stage: Result({}, {"roles": {}}) for stage in PATHS}
    found[PATHS[0]] = Result({}, facts)
    if published:
        found[PATHS[1]] = Result({}, {"roles": {}, "published.receivers": [], "published.roles": {}})
    return found


def heads(shape: tuple[int, ...], of: Mapping[tuple[int, int], float], n: int = 2) -> Any:
    """[prompt, layer, head], alike for all prompts and 0 but for some heads."""
    values = np.zeros((n, *shape), dtype=np.float32)
    for at, value in of.items():
        values[:, *at] = value
    return values


def measured(claim: str, of: Results) -> Measurement:
    measurement = claims.CLAIMS[claim](of)
    assert measurement is not None
    return measurement


def estimate(claim: str, of: Results) -> float:
    return measured(claim, of).estimate


def write_doer(folder: Path, n_layers: int, n_heads: int, d_head: int) -> None:
    """A random GPT-2 that does the task: the heads before the last layer write the opposite of the names they read.

    S is read twice as often as IO. Names have half of the stream for themselves, and one length; attention and all else
    is random and small, so that every head matters a little.
    """
    import torch
    import transformers

    of_words = ioi_search_runs.tokenizer()
    d_model = n_heads * d_head
    config = transformers.GPT2Config(
        vocab_size=of_words.get_vocab_size(),
        n_layer=n_layers,
        n_head=n_heads,
        n_embd=d_model,
        n_inner=2 * d_model,
        n_positions=64,
        bos_token_id=0,
        eos_token_id=0,
    )
    network = transformers.GPT2LMHeadModel(config)
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    with torch.no_grad():
        for parameter in network.parameters():
            small = 0.15 / n_layers * noise(*parameter.shape)
            parameter.copy_(parameter + small if parameter.ndim == 1 else small)
        names = [of_words.token_to_id(name) for name in sorted({*templates.NAMES, *ioi.NAMES})]
        own = torch.nn.functional.normalize(noise(len(names), d_model // 2), dim=1)
        embedding = noise(config.vocab_size, d_model)
        embedding[:, : d_model // 2] = 0
        embedding[names] = 0
        embedding[names, : d_model // 2] = d_model**0.5 * own
        network.transformer.wte.weight.copy_(embedding)
        attention = network.transformer.h[n_layers - 2].attn
        attention.c_attn.weight[:, 2 * d_model :] += torch.eye(d_model)
        attention.c_proj.weight -= 4 * torch.eye(d_model)
    network.save_pretrained(folder)
    words.save(of_words, folder, n_ctx=64)


def few(monkeypatch: pytest.MonkeyPatch, tier: str, **effort: Any) -> None:
    """Little of everything, on a tier."""
    monkeypatch.setitem(setting.TRIALS, tier, FEW)
    monkeypatch.setitem(
        measured_circuits.EFFORT, tier, dataclasses.replace(measured_circuits.EFFORT[tier], **{**LITTLE, **effort})
    )


def whole_run(folder: Path, tier: str, out: Path) -> Results:
    """All stages through the store, as `reprise run indirect_object_identification --model FOLDER` does."""
    request = Request(ROOT, PAPER, tier, out, model_names=(str(folder),))
    return run(request, load_experiment(FOLDER))
