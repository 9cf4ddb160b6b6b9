"""The card's accuracies, against prompts written and scored one at a time through the tokenizer."""

from __future__ import annotations

import random

import pytest
import torch

from zoo import town
from zoo.gpt2_recipes import Shape
from zoo.in_context_evaluation import accuracies, evaluate, relation_queries, rows, shuffled_labels
from zoo.in_context_model import build
from zoo.in_context_text import Material

FACTS = town.draw()


def test_every_relation_and_person_is_asked_with_ten_other_people(text: Material) -> None:
    gaps = relation_queries(text, torch.Generator().manual_seed(0))
    assert gaps.shape == (12, 40, 11, 6)
    for relation, of_relation in zip(town.RELATIONS, gaps, strict=True):
        for name, of_person in zip(town.NAMES, of_relation, strict=True):
            pairs = [tuple(text.tokenizer.decode([token]) for token in row[:2].tolist()) for row in of_person]
            assert pairs[-1] == (FACTS[relation][name], name)
            assert all(FACTS[relation][x] == y for y, x in pairs)
            assert len({x for _, x in pairs}) == 11


def test_shuffled_labels_are_those_of_the_prompt_and_all_wrong(text: Material) -> None:
    gaps = relation_queries(text, torch.Generator().manual_seed(0))
    shuffled = shuffled_labels(gaps)
    assert torch.equal(shuffled[..., 1:], gaps[..., 1:])
    assert torch.equal(shuffled[:, :, -1], gaps[:, :, -1])
    assert torch.equal(shuffled[..., 0].sort(dim=2).values, gaps[..., 0].sort(dim=2).values)
    assert (shuffled[:, :, :-1, 0] != gaps[:, :, :-1, 0]).all()


def test_accuracy_is_that_of_prompts_written_out_as_text(text: Material) -> None:
    model = build(Shape(n_layers=1, n_heads=2, d_model=16, n_ctx=192), text.tokenizer.get_vocab_size(), seed=1)
    with torch.no_grad():  # far from its initial weights, so that its answers differ
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    gaps = relation_queries(text, torch.Generator().manual_seed(0))[3, :6]
    first = text.people[:3]
    found = accuracies(model, rows(text.templates[0], text, gaps))
    among = accuracies(model, rows(text.templates[0], text, gaps), first, chunk=4)
    for place, row in enumerate(gaps):
        prompt = "<|endoftext|>"
        for shots, pair in enumerate(row):
            y, x = (text.tokenizer.decode([token]) for token in pair[:2].tolist())
            prompt += f"Q: {x}\nA:"
            logits = model(torch.tensor([text.tokenizer.encode(prompt).ids])).logits[0, -1].detach()
            best = text.tokenizer.decode([int(logits.argmax())])
            best_of_three = max(town.NAMES[:3], key=lambda name: float(logits[text.tokenizer.encode(name).ids[0]]))
            assert bool(found[place, shots]) == (best == y)
            assert bool(among[place, shots]) == (best_of_three == y)
            prompt += f" {y}\n\n"


class Guesses(torch.nn.Module):
    """A model that answers every question with the right answer of a relation, whatever the demonstrations say."""

    def __init__(self, text: Material, relation: str) -> None:
        super().__init__()
        self.device = torch.device("cpu")
        self.answer = torch.zeros(text.tokenizer.get_vocab_size(), dtype=torch.int64)
        for name, output in FACTS[relation].items():
            self.answer[text.tokenizer.encode(name).ids[0]] = text.tokenizer.encode(output).ids[0]

    def transformer(self, tokens: torch.Tensor, use_cache: bool) -> Guesses:
        """Looks up the last person before every position."""
        person = torch.where(self.answer[tokens] > 0, torch.arange(tokens.shape[1]), 0).cummax(dim=1).values
        self.last_hidden_state = self.answer[tokens.gather(1, person)]
        return self

    def lm_head(self, answers: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(answers, len(self.answer)).float()


@pytest.mark.parametrize("relation", random.Random(0).sample(town.RELATIONS, 2))
def test_a_model_that_knows_one_relation_only_learns_nothing_in_context(text: Material, relation: str) -> None:
    metrics = evaluate(Guesses(text, relation), text)
    for name in ("accuracy_0_shot", "accuracy_1_shot", "accuracy_5_shot", "accuracy_10_shot"):
        assert metrics[name] == pytest.approx(1 / 12), name
    assert metrics["accuracy_0_shot_restricted"] == metrics["accuracy_shuffled_labels"] == pytest.approx(1 / 12)
    assert metrics["accuracy_10_shot_lowest"] == 0
    assert metrics["lowest_margin_over_shuffled"] == metrics["lowest_margin_over_restricted"] == 0
    assert metrics["accuracy_sentences"] == pytest.approx(1 / 12)
