"""The numbers of an in-context model's card, in plain torch: does it learn in context, and from what?

Accuracies are of the most likely token among all, over every relation and person. `restricted` looks for the most
likely among the people only: what a model knows of the class of the answers without any demonstration. In prompts with
shuffled labels the demonstrations' answers go one place on, so that none is right. `lowest` is the relation for which
the model is worst.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zoo.in_context_batches import COPY, Rows, distinct, list_gaps, relation_gaps
from zoo.in_context_lists import LIST
from zoo.in_context_model import answer_logits
from zoo.in_context_text import NAMING, SHOTS, Material, Template
from zoo.segments import assemble, compile_patterns

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

SHOWN_SHOTS = (1, 5, SHOTS)
SEED = 7


def relation_queries(material: Material, generator: torch.Generator) -> Int[Tensor, "relation person k gap"]:
    """Gaps of `SHOTS` demonstrations and a query for every relation and person as query."""
    n_relations, n_people = material.answers.shape
    others = distinct(n_relations * n_people, SHOTS, torch.full((n_relations * n_people,), n_people - 1), generator)
    query = torch.arange(n_people).repeat(n_relations)[:, None]
    people = torch.cat([others + (others >= query).long(), query], dim=1)
    relation = torch.arange(n_relations).repeat_interleave(n_people)
    return relation_gaps(material, relation, people).view(n_relations, n_people, SHOTS + 1, -1)


def shuffled_labels(gaps: Int[Tensor, "relation person k gap"]) -> Int[Tensor, "relation person k gap"]:
    """The same prompts with every demonstration's answer at the next demonstration, and the last one's at the first."""
    shuffled = gaps.clone()
    shuffled[:, :, :-1, 0] = gaps[:, :, :-1, 0].roll(1, dims=2)
    return shuffled


def rows(template: Template, material: Material, gaps: Int[Tensor, "row k gap"], question: str = "{x}") -> Rows:
    """Prompts in one template, trained or not."""
    patterns = compile_patterns([template.instructions, template.demonstration(question)], material.tokenizer)
    chosen = torch.ones(len(gaps), gaps.shape[1] + 1, dtype=torch.int64)
    chosen[:, 0] = 0
    return assemble(patterns, chosen, torch.cat([gaps[:, :1], gaps], dim=1))


@torch.no_grad()
def accuracies(
    model: GPT2LMHeadModel, prompts: Rows, among: Int[Tensor, " word"] | None = None, *, chunk: int = 480
) -> Float[Tensor, "row answer"]:
    """1 where the most likely token (among those given) is the right answer, else 0; all rows have as many answers."""
    found, right = [], []
    among = None if among is None else among.to(model.device)
    for tokens, targets in zip(*(torch.split(part.to(model.device), chunk) for part in prompts), strict=True):
        logits, answers = answer_logits(model, tokens, targets)
        found.append(logits.argmax(dim=1) if among is None else among[logits[:, among].argmax(dim=1)])
        right.append(answers)
    return (torch.cat(found) == torch.cat(right)).float().view(len(prompts[0]), -1).cpu()


def evaluate(model: GPT2LMHeadModel, material: Material) -> dict[str, float]:
    """Accuracies over all relations: by number of demonstrations, with shuffled labels, in sentences, and of lists."""
    generator = torch.Generator().manual_seed(SEED)
    gaps, template = relation_queries(material, generator), material.templates[0]
    n_relations, n_people = material.answers.shape

    def of(queries: Int[Tensor, "relation person k gap"], among: Tensor | None = None) -> Float[Tensor, "relation k"]:
        found = accuracies(model, rows(template, material, queries.flatten(0, 1)), among)
        return found.view(n_relations, n_people, -1).mean(dim=1)

    by_shots = of(gaps)
    zero_shot, restricted = of(gaps[:, :, SHOTS:])[:, 0], of(gaps[:, :, SHOTS:], material.people)[:, 0]
    best, with_shuffled = by_shots[:, SHOTS], of(shuffled_labels(gaps))[:, SHOTS]
    everyone = gaps[:, :, SHOTS:].flatten(0, 1)
    sentences = [accuracies(model, _sentences(material, text, everyone)).mean() for text in NAMING]
    lists = {f"accuracy_lists_{SHOTS}_shot": _lists(model, material, template, [COPY] * 64, generator)}
    if len(material.list_tasks.naming) > material.list_tasks.n_of_words:
        relatives = _lists(model, material, template, [*range(n_relations)] * 6, generator)
        lists[f"accuracy_list_relations_{SHOTS}_shot"] = relatives
    return {
        "accuracy_0_shot": zero_shot.mean().item(),
        **{f"accuracy_{shots}_shot": by_shots[:, shots].mean().item() for shots in SHOWN_SHOTS},
        f"accuracy_{SHOTS}_shot_lowest": best.min().item(),
        "accuracy_shuffled_labels": with_shuffled.mean().item(),
        "accuracy_0_shot_restricted": restricted.mean().item(),
        "lowest_margin_over_shuffled": (best - with_shuffled).min().item(),
        "lowest_margin_over_restricted": (best - restricted).min().item(),
        "accuracy_sentences": torch.stack(sentences).mean().item(),
        **lists,
    }


def _lists(
    model: GPT2LMHeadModel,
    material: Material,
    template: Template,
    relations: Sequence[int],
    generator: torch.Generator,
) -> float:
    """With all demonstrations, over the selections; of what is selected, one prompt for each of `relations`."""
    n = len(material.selection_words)
    selection = torch.arange(n).repeat_interleave(len(relations))[:, None].expand(-1, SHOTS + 1)
    relation = torch.tensor(relations).repeat(n)[:, None].expand_as(selection)
    gaps = list_gaps(material, selection, relation, generator)
    return accuracies(model, rows(template, material, gaps, LIST))[:, SHOTS].mean().item()


def _sentences(material: Material, text: str, gaps: Int[Tensor, "row 1 gap"]) -> Rows:
    pattern = compile_patterns([text], material.tokenizer)
    return assemble(pattern, torch.zeros(len(gaps), 1, dtype=torch.int64), gaps)
