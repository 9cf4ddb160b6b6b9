"""What the tests of `--backend` for the steering papers share: two random models, few trials, and a comparison."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from replications.activation_addition import setting as addition
from replications.contrastive_activation_addition import setting as contrastive

from reprise import Job, Result, Results
from reprise.models import ModelReference

from .activation_addition_runs import N_LAYERS, ROOT, english_folder

ADDITION, CONTRASTIVE = PAPERS = ("activation_addition", "contrastive_activation_addition")
SOME = {  # stages that between them ask everything of a backend
    ADDITION: ("choose", "knowledge"),
    CONTRASTIVE: ("extraction", "picture", "sweep", "open_ended"),
}
FEW = addition.Trials(1, 2, 1, (4.0,), (1.0,), n_random=1, texts=1, facts=3, new_tokens=3, top_p=0.9, batch=8)
FEWEST = contrastive.Trials(
    extracted_from=4,
    chosen_on=2,
    scored_on=2,
    gated_on=0,
    unrelated=2,
    multipliers=(-1.0, 1.0),
    open_multipliers=(1.0,),
    reading_multipliers=(-1.0, 1.0),
    random=1,
    pictured=4,
    prompts=2,
    samples=1,
    new_tokens=3,
    temperature=0.0,
    pairs_of_layers_up_to=2,
    batch=8,
)


def gpt2_folder(folder: Path) -> Path:
    return Path(english_folder(folder).location)


def llama_folder(folder: Path, tokenizer: Path) -> Path:
    """A Llama with grouped queries, and the tokenizer of the other."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    words = AutoTokenizer.from_pretrained(tokenizer)
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "max_position_embeddings": 192}
    heads = {"num_hidden_layers": N_LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    network = LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **sizes, **heads, bos_token_id=0, eos_token_id=0))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.25)
    network.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def questions(name: str, n: int) -> list[dict[str, str]]:
    letters = ("(A)", "(B)")
    return [
        {
            "question": f"Is the {name} of {at} guests?\n\nChoices:\n(A) yes, the {at % 5}\n(B) no, the {at % 7}",
            "answer_matching_behavior": letters[at % 3 == 0],
            "answer_not_matching_behavior": letters[at % 3 != 0],
        }
        for at in range(n)
    ]


def question_folder(folder: Path) -> Path:
    """Two behaviours, one of them with open-ended questions, and an unrelated task."""
    files = {
        "cake": questions("cake", 9),
        "guest": questions("guest", 8),
        "guest.open": {"questions": ["Who is the bride?", "And the groom"], "matching": ["the"], "contrary": ["and"]},
        "unrelated/moon": questions("moon", 3),
    }
    for name, content in files.items():
        path = folder / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


def run(
    paper: str, model: Path | str, data: Path, backend: str = "engine", stages: tuple[str, ...] | None = None
) -> dict[str, Result]:
    """The results of all stages, or of some, by name, without the store."""
    module = importlib.import_module(f"replications.{paper}.experiment")
    reference = ModelReference("m", "folder", str(model), "0" * 64)
    done: dict[str, dict[str, Result]] = {}
    for stage in module.STAGES:
        if stages is not None and stage.name not in stages:
            continue
        inputs = Results("paper", 0, {name: done[name] for name in stage.needs})
        job = Job(ROOT, "paper", 0, "cpu", "float32", (reference,), inputs, reference, data=data, backend=backend)
        done[stage.name] = {"m": stage.function(job)}
    return {name: by_model["m"] for name, by_model in done.items()}


def assert_same(found: Mapping[str, Result], expected: Mapping[str, Result]) -> None:
    """All numbers to 1e-4, and all else, the texts that were written among it, to the letter."""
    for stage, theirs in found.items():
        ours = expected[stage]
        assert theirs.arrays.keys() == ours.arrays.keys()
        for name, values in ours.arrays.items():
            np.testing.assert_allclose(theirs[name], values, rtol=1e-4, atol=1e-4, err_msg=f"{stage} {name}")
        assert theirs.facts == ours.facts, stage
