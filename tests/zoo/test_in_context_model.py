"""The in-context model and its loss, against full logits and loops."""

from __future__ import annotations

import msgspec
import pytest
import torch
from torch.nn import functional

from zoo.gpt2_recipes import Shape
from zoo.in_context_batches import batch_at
from zoo.in_context_model import answer_logits, build, loss
from zoo.in_context_recipes import IN_CONTEXT_RECIPES, LISTS, RELATIONS, InContextRecipe
from zoo.in_context_text import Material

SMALL = Shape(n_layers=2, n_heads=2, d_model=16, n_ctx=192)
RECIPE = msgspec.structs.replace(RELATIONS, relation_rows=3, natural_rows=2, list_rows=2, sentence_rows=2)


def test_the_loss_is_the_weighted_mean_over_the_answers_of_each_kind(text: Material) -> None:
    model, batch = build(SMALL, text.tokenizer.get_vocab_size(), seed=1), batch_at(0, material=text, recipe=RECIPE)
    logits = model(batch.tokens).logits
    expected = 0.0
    for rows, weight in ((range(5), 1.0), (range(5, 7), RECIPE.list_weight), (range(7, 9), RECIPE.sentence_weight)):
        losses = [
            functional.cross_entropy(logits[row, place], batch.targets[row, place]).item()
            for row in rows
            for place in range(batch.tokens.shape[1])
            if batch.targets[row, place] >= 0
        ]
        expected += weight * sum(losses) / len(losses)
    assert loss(model, batch).item() == pytest.approx(expected, rel=1e-5)


def test_padding_changes_no_logit(text: Material) -> None:
    model, batch = build(SMALL, text.tokenizer.get_vocab_size(), seed=1), batch_at(0, material=text, recipe=RECIPE)
    together, _ = answer_logits(model, batch.tokens, batch.targets)
    alone = []
    for tokens, targets in zip(batch.tokens, batch.targets, strict=True):
        length = int((targets >= 0).nonzero().max()) + 1
        alone.append(answer_logits(model, tokens[None, :length], targets[None, :length])[0])
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_the_seed_fixes_the_weights_and_no_random_state_is_touched() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = (build(SMALL, 50, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert not torch.equal(first["transformer.wte.weight"], other["transformer.wte.weight"])


@pytest.mark.parametrize("first", [RELATIONS, LISTS])
def test_recipes_are_two_models_from_three_seeds_each(first: InContextRecipe) -> None:
    found = {name: recipe for name, recipe in IN_CONTEXT_RECIPES.items() if name.startswith(first.name)}
    assert list(found) == [first.name, f"{first.name}-seed1", f"{first.name}-seed2"]
    for seed, (name, recipe) in enumerate(found.items()):
        assert recipe.name == name
        assert msgspec.structs.replace(recipe, name="", seed=0) == msgspec.structs.replace(first, name="", seed=0)
        assert recipe.seed == seed
    assert first.rows == {"relations-4l": 116, "relations-lists-4l": 152}[first.name]
    assert msgspec.json.decode(msgspec.json.encode(first), type=InContextRecipe) == first
