"""The numbers of the card of a model of indirect objects, in plain torch.

    logit_difference      mean of logit(IO) - logit(S) after the prompt
    accuracy              share of prompts in which it is positive
    names_accuracy        share of prompts in which IO is the most likely of all names

on training templates, on held-out templates (and the worst of them), and for held-out pairs of names. How much of the
logit difference is left when the repeated name cannot look at its first mention: attention from S2 to S1 (also to the
word after it) is cut in all heads, by masking it out before the softmax. `stranger_*` are prompts whose giver was not
named before: shares of the giver, and of the other two, in the probability of all names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zoo import words
from zoo.ioi import NAMES, OBJECTS, PLACES, TEMPLATES, Template, held_out_pair
from zoo.words import BOS_ID

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

SEED = (1 << 40) + 7  # training draws from (seed << 32) + step
Cut = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Prompt:
    """The words of a prompt, its names, and where among the words each stands; `subject` is the giver.

    `s1` is where the giver was first named: for a stranger where the one of the two stands in whose stead the giver is.
    """

    words: tuple[str, ...]
    io: str
    other: str
    subject: str
    s1: int
    s2: int


def draw(
    n: int,
    seed: int,
    *,
    templates: Sequence[Template],
    held_out_pairs: bool = False,
    strangers: bool = False,
) -> list[Prompt]:
    """Prompts in templates by turns, in both orders, with pairs of names that are all held out or all not."""
    random = Random(seed)
    found: list[Prompt] = []
    while len(found) < n:
        first, second, third = random.sample(NAMES, 3)
        if held_out_pair(first, second) != held_out_pairs:
            continue
        io, other = (first, second) if random.random() < 0.5 else (second, first)
        subject = third if strangers else other
        text = templates[len(found) % len(templates)].text.format(
            X=first, Y=second, S=subject, P=random.choice(PLACES), O=random.choice(OBJECTS)
        )
        pieces = tuple(words.split(text))
        s2 = len(pieces) - 1 - pieces[::-1].index(subject)
        found.append(Prompt(pieces, io, other, subject, pieces.index(other), s2))
    return found


@torch.no_grad()
def last_logits(
    model: GPT2LMHeadModel,
    prompts: Sequence[Prompt],
    vocabulary: Mapping[str, int],
    cuts: Sequence[Cut] | None = None,
) -> Float[Tensor, "prompt d_vocab"]:
    """Logits after each prompt, BOS first; `cuts` are pairs (query, key) of a prompt's words whose attention is cut."""
    rows = [[BOS_ID, *(vocabulary[word] for word in prompt.words)] for prompt in prompts]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [BOS_ID] * (width - len(row)) for row in rows], device=model.device)
    mask = torch.ones(width, width, device=model.device).tril().bool().repeat(len(rows), 1, 1)
    for row, pairs in enumerate(cuts or ()):
        for query, key in pairs:
            mask[row, query + 1, key + 1] = query == key
    resid = model.transformer(
        tokens, attention_mask=mask[:, None].float().log().clamp(min=-1e9), use_cache=False
    ).last_hidden_state
    ends = torch.tensor([len(row) - 1 for row in rows], device=model.device)
    logits: Tensor = model.lm_head(resid[torch.arange(len(rows), device=model.device), ends])
    return logits


def scores(
    model: GPT2LMHeadModel,
    prompts: Sequence[Prompt],
    vocabulary: Mapping[str, int],
    cuts: Sequence[Cut] | None = None,
) -> dict[str, Float[Tensor, " prompt"]]:
    """Logit difference, and whether IO is the more likely of the two and the most likely of all names, by prompt."""
    logits = last_logits(model, prompts, vocabulary, cuts)
    names = torch.tensor([vocabulary[name] for name in NAMES], device=logits.device)
    io, other = (_ids(names, [getattr(prompt, role) for prompt in prompts], vocabulary) for role in ("io", "other"))
    rows = torch.arange(len(prompts), device=logits.device)
    difference = logits[rows, io] - logits[rows, other]
    best = names[logits[:, names].argmax(dim=1)]
    return {
        "logit_difference": difference.cpu(),
        "accuracy": (difference > 0).float().cpu(),
        "names_accuracy": (best == io).float().cpu(),
        "probability": logits.softmax(dim=1)[rows, io].cpu(),
    }


def _ids(like: Tensor, names: Sequence[str], vocabulary: Mapping[str, int]) -> Int[Tensor, " prompt"]:
    return torch.tensor([vocabulary[name] for name in names], device=like.device)


def evaluate(model: GPT2LMHeadModel, vocabulary: Mapping[str, int], *, n: int = 480) -> dict[str, float]:
    """The metrics of a card, each over about `n` prompts."""
    trained = [template for template in TEMPLATES if not template.held_out]
    held_out = [template for template in TEMPLATES if template.held_out]
    prompts = draw(n, SEED, templates=trained)
    in_held_out = draw(n, SEED + 1, templates=held_out)
    clean = scores(model, prompts, vocabulary)
    held = scores(model, in_held_out, vocabulary)
    pairs = scores(model, draw(n, SEED + 2, templates=trained, held_out_pairs=True), vocabulary)
    whole = clean["logit_difference"].mean()
    s1 = scores(model, prompts, vocabulary, [[(each.s2, each.s1)] for each in prompts])
    both = scores(model, prompts, vocabulary, [[(each.s2, each.s1), (each.s2, each.s1 + 1)] for each in prompts])
    return {
        **{name: value.mean().item() for name, value in clean.items()},
        **{f"{name}_held_out_templates": value.mean().item() for name, value in held.items()},
        "names_accuracy_worst_held_out_template": min(
            held["names_accuracy"][place :: len(held_out)].mean().item() for place in range(len(held_out))
        ),
        **{f"{name}_held_out_pairs": value.mean().item() for name, value in pairs.items()},
        "left_without_s2_to_s1": (s1["logit_difference"].mean() / whole).item(),
        "left_without_s2_to_s1_and_next": (both["logit_difference"].mean() / whole).item(),
        **strangers(model, vocabulary, draw(n, SEED + 3, templates=trained, strangers=True)),
    }


def strangers(model: GPT2LMHeadModel, vocabulary: Mapping[str, int], prompts: Sequence[Prompt]) -> dict[str, float]:
    """What share of the names' probability the giver has, and the two others together, when the giver is new."""
    logits = last_logits(model, prompts, vocabulary)
    names = torch.tensor([vocabulary[name] for name in NAMES], device=logits.device)
    shares = torch.zeros_like(logits)
    shares[:, names] = logits[:, names].softmax(dim=1)
    rows = torch.arange(len(prompts), device=logits.device)
    subject, io, other = (
        shares[rows, _ids(names, [getattr(prompt, role) for prompt in prompts], vocabulary)].mean().item()
        for role in ("subject", "io", "other")
    )
    return {"stranger_giver_share": subject, "stranger_others_share": io + other}
