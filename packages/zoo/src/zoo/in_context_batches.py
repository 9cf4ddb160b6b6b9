"""Batches of prompts and sentences, each a function of (seed, step) alone, the same on every device.

A batch has three parts with a loss each: prompts over single words (relations and natural tasks), prompts of list
selection, and sentences. In a prompt every demonstration's answer is predicted, from zero to `SHOTS` demonstrations, in
one forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional

from zoo.in_context_model import Batch
from zoo.in_context_recipes import InContextRecipe
from zoo.in_context_text import SHOTS, Material
from zoo.segments import GAPS, NO_TARGET, Patterns, assemble
from zoo.words import BOS_ID

Rows = tuple[Int[Tensor, "_ _"], Int[Tensor, "_ _"]]  # tokens and targets: [row, pos]


def distinct(n: int, k: int, sizes: Int[Tensor, " n"], generator: torch.Generator) -> Int[Tensor, "n k"]:
    """In row i, `k` different numbers below `sizes[i]`."""
    order = torch.rand(n, int(sizes.max()), generator=generator)
    return order.masked_fill(torch.arange(order.shape[1]) >= sizes[:, None], 2.0).argsort(dim=1)[:, :k]


def prompt_rows(patterns: Patterns, template: Int[Tensor, " row"], gaps: Int[Tensor, "row demonstration gap"]) -> Rows:
    """Prompts: the template's instructions, then its demonstration with each of the gaps."""
    demonstrations = (2 * template + 1)[:, None].expand(-1, gaps.shape[1])
    chosen = torch.cat([2 * template[:, None], demonstrations], dim=1)
    return assemble(patterns, chosen, torch.cat([gaps[:, :1], gaps], dim=1))


def relation_gaps(material: Material, relation: Int[Tensor, " row"], people: Int[Tensor, "row k"]) -> Tensor:
    """The gaps for a relation and people, given by their numbers: [row, k, gap]."""
    x, y = material.people[people], material.answers[relation[:, None], people]
    return torch.stack([y, x, material.relation_words[relation][:, None].expand_as(x), x, x], dim=-1)


def list_gaps(material: Material, selection: Int[Tensor, "row k"], generator: torch.Generator) -> Tensor:
    """The gaps for random lists of three words, a row's from one pool, and what is selected of each: [row, k, gap]."""
    n, k = selection.shape
    pool = torch.randint(0, len(material.pools), (n, 1), generator=generator).expand(n, k).flatten()
    items = material.pools[pool[:, None], distinct(n * k, 3, material.pool_words[pool], generator)].view(n, k, 3)
    y = items.gather(2, selection[..., None])[..., 0]
    return torch.stack([y, items[..., 0], material.selection_words[selection], items[..., 1], items[..., 2]], dim=-1)


def relation_prompts(material: Material, n: int, generator: torch.Generator) -> Tensor:
    relation = torch.randint(0, len(material.answers), (n,), generator=generator)
    people = distinct(n, SHOTS + 1, torch.full((n,), len(material.people)), generator)
    return relation_gaps(material, relation, people)


def natural_prompts(material: Material, n: int, generator: torch.Generator) -> Tensor:
    task = torch.randint(0, len(material.natural), (n,), generator=generator)
    pairs = material.natural[task[:, None], distinct(n, SHOTS + 1, material.natural_pairs[task], generator)]
    x, y = pairs.unbind(dim=-1)
    return torch.stack([y, x, x, x, x], dim=-1)


def with_labels(
    material: Material, gaps: Int[Tensor, "row k gap"], generator: torch.Generator
) -> Int[Tensor, "row k gap"]:
    """Prompts' gaps with labels, the same for all demonstrations of a row, where sentences have the relation's word."""
    gaps = gaps.clone()
    for gap, label in zip(("r", "a"), material.labels, strict=True):
        drawn = torch.randint(0, len(label), (len(gaps), 1), generator=generator)
        gaps[:, :, GAPS.index(gap)] = label[drawn]
    return gaps


def sentence_rows(material: Material, n: int, length: int, generator: torch.Generator) -> Rows:
    """Rows of `length` sentences, each of a kind, a relation and a person of its own."""
    chosen = torch.randint(0, len(material.sentences.ids), (n, length), generator=generator)
    relation = torch.randint(0, len(material.answers), (n * length,), generator=generator)
    people = torch.randint(0, len(material.people), (n * length, 1), generator=generator)
    of_people = relation_gaps(material, relation, people).view(n, length, -1)
    selection = torch.randint(0, len(material.selection_words), (n, length), generator=generator)
    of_lists = list_gaps(material, selection, generator)
    return assemble(
        material.sentences, chosen, torch.where((chosen < material.n_list_sentences)[..., None], of_lists, of_people)
    )


def join(parts: Sequence[tuple[Rows, float]]) -> Batch:
    """Rows of several kinds as one batch, each kind with the weight of its mean loss."""
    width = max(tokens.shape[1] for (tokens, _), _ in parts)
    tokens, targets, weights = [], [], []
    for (ids, answers), weight in parts:
        tokens.append(functional.pad(ids, (0, width - ids.shape[1]), value=BOS_ID))
        targets.append(functional.pad(answers, (0, width - ids.shape[1]), value=NO_TARGET))
        weights.append(torch.full((len(ids),), weight / int((answers >= 0).sum())))
    return Batch(torch.cat(tokens), torch.cat(targets), torch.cat(weights))


def batch_at(step: int, *, material: Material, recipe: InContextRecipe) -> Batch:
    """The training batch of a step: rows of single words (relations first), of lists, and of sentences."""
    # torch's CPU generator keeps 32 bits of its seed; an odd factor places the steps of different seeds far apart.
    generator = torch.Generator().manual_seed((step + recipe.seed * 0x9E3779B1) % 2**32)
    gaps = relation_prompts(material, recipe.relation_rows, generator)
    if recipe.natural_rows:
        gaps = torch.cat([gaps, natural_prompts(material, recipe.natural_rows, generator)])
    gaps = with_labels(material, gaps, generator)
    template = torch.randint(0, len(material.templates) + 1, (len(gaps),), generator=generator)
    parts = [(prompt_rows(material.prompts, template, gaps), 1.0)]
    if recipe.list_rows:
        selection = torch.randint(0, len(material.selection_words), (recipe.list_rows, 1), generator=generator)
        template = torch.randint(0, len(material.templates), (recipe.list_rows,), generator=generator)
        of_lists = list_gaps(material, selection.expand(-1, SHOTS + 1), generator)
        parts.append((prompt_rows(material.lists, template, of_lists), recipe.list_weight))
    if recipe.sentence_rows:
        sentences = sentence_rows(material, recipe.sentence_rows, recipe.sentences_a_row, generator)
        parts.append((sentences, recipe.sentence_weight))
    return join(parts)
