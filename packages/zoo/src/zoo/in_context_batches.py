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

COPY = -1  # in place of a relation: the selected word itself
PEOPLE = 0  # the pool of the people
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
    words = material.relation_words[relation][:, None].expand_as(x)
    return torch.stack([y, x, words, x, x, x], dim=-1)


def list_gaps(
    material: Material, selection: Int[Tensor, "row k"], relation: Int[Tensor, "row k"], generator: torch.Generator
) -> Tensor:
    """The gaps for random lists of three words and what is asked of each: [row, k, gap].

    Asked is the word that is selected, or where `relation` is not `COPY` that person's relative. Then the list is of
    people; else a row's lists are all from one pool.
    """
    n, k = selection.shape
    pool = torch.randint(0, len(material.pools), (n, 1), generator=generator).expand(n, k)
    pool = torch.where(relation == COPY, pool, PEOPLE)
    places = distinct(n * k, 3, material.pool_words[pool.flatten()], generator).view(n, k, 3)
    items = material.pools[pool[..., None], places]
    place = torch.tensor([place for _, place in material.list_tasks.selections])[selection]
    copied, person = (each.gather(2, place[..., None])[..., 0] for each in (items, places))
    relative = material.answers[relation.clamp(min=0), person.clamp(max=len(material.people) - 1)]
    y = torch.where(relation == COPY, copied, relative)
    names = material.relation_words[relation.clamp(min=0)]
    return torch.stack([y, items[..., 0], names, items[..., 1], items[..., 2], material.selection_words[selection]], -1)


def list_rows(material: Material, recipe: InContextRecipe, generator: torch.Generator) -> Rows:
    """Prompts of one selection each, of the word itself or of a relative, each in a template of its own."""
    n = recipe.list_rows
    selection = torch.randint(0, len(material.selection_words), (n, 1), generator=generator).expand(-1, SHOTS + 1)
    if recipe.list_copies == 1.0:  # the orders of the draws are those of the shipped models
        template = torch.randint(0, len(material.templates), (n,), generator=generator)
        gaps = list_gaps(material, selection, torch.full_like(selection, COPY), generator)
    else:
        relation = torch.randint(0, len(material.answers), (n, 1), generator=generator)
        copied = torch.rand(n, 1, generator=generator) < recipe.list_copies
        gaps = list_gaps(material, selection, torch.where(copied, COPY, relation).expand_as(selection), generator)
        template = torch.randint(0, len(material.templates), (n,), generator=generator)
    return prompt_rows(material.lists, template, gaps)


def relation_prompts(material: Material, n: int, generator: torch.Generator) -> Tensor:
    relation = torch.randint(0, len(material.answers), (n,), generator=generator)
    people = distinct(n, SHOTS + 1, torch.full((n,), len(material.people)), generator)
    return relation_gaps(material, relation, people)


def natural_prompts(material: Material, n: int, generator: torch.Generator) -> Tensor:
    task = torch.randint(0, len(material.natural), (n,), generator=generator)
    pairs = material.natural[task[:, None], distinct(n, SHOTS + 1, material.natural_pairs[task], generator)]
    x, y = pairs.unbind(dim=-1)
    return torch.stack([y, x, x, x, x, x], dim=-1)


def with_labels(
    material: Material, gaps: Int[Tensor, "row k gap"], generator: torch.Generator
) -> Int[Tensor, "row k gap"]:
    """Prompts' gaps with labels, the same for all demonstrations of a row, where sentences have the relation's word."""
    gaps = gaps.clone()
    for gap, label in zip(("r", "a"), material.labels, strict=True):
        drawn = torch.randint(0, len(label), (len(gaps), 1), generator=generator)
        gaps[:, :, GAPS.index(gap)] = label[drawn]
    return gaps


def sentence_rows(material: Material, recipe: InContextRecipe, generator: torch.Generator) -> Rows:
    """Rows of sentences, each of a kind, a relation and a person of its own."""
    n, length, n_kinds = recipe.sentence_rows, recipe.sentences_a_row, len(material.sentences.ids)
    n_of_lists = len(material.list_tasks.naming)
    if recipe.list_sentences is None:
        chosen = torch.randint(0, n_kinds, (n, length), generator=generator)
    else:
        of_lists = torch.randint(0, n_of_lists, (n, length), generator=generator)
        of_people = torch.randint(n_of_lists, n_kinds, (n, length), generator=generator)
        about_lists = torch.rand(n, length, generator=generator) < recipe.list_sentences
        chosen = torch.where(about_lists, of_lists, of_people)
    relation = torch.randint(0, len(material.answers), (n * length,), generator=generator)
    people = torch.randint(0, len(material.people), (n * length, 1), generator=generator)
    about_people = relation_gaps(material, relation, people).view(n, length, -1)
    selection = torch.randint(0, len(material.selection_words), (n, length), generator=generator)
    asked = torch.where(chosen < material.list_tasks.n_of_words, COPY, relation.view(n, length))
    gaps = list_gaps(material, selection, asked, generator)
    return assemble(material.sentences, chosen, torch.where((chosen < n_of_lists)[..., None], gaps, about_people))


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
        parts.append((list_rows(material, recipe, generator), recipe.list_weight))
    if recipe.sentence_rows:
        sentences = sentence_rows(material, recipe, generator)
        parts.append((sentences, recipe.sentence_weight))
    return join(parts)
