"""Recipes: what the shipped ones promise."""

from __future__ import annotations

import msgspec
import pytest

from zoo.recipes import RECIPES, Recipe, another_seed, attention_only


def test_names_say_layers_and_seed() -> None:
    assert attention_only(2, n_checkpoints=20).name == "attn-only-2l"
    assert another_seed(attention_only(3, n_checkpoints=20), 4).name == "attn-only-3l-seed4"
    for name, recipe in RECIPES.items():
        assert name == recipe.name
        assert f"-{recipe.config.n_layers}l" in name
        assert name.endswith(f"-seed{recipe.seed}") == (recipe.seed != 0)


def test_two_layers_have_twenty_five_logit_attribution_components() -> None:
    config = RECIPES["attn-only-2l"].config
    assert 1 + config.n_layers * config.n_heads == 25
    assert config.n_heads * config.d_head == config.d_model


def test_steps_are_whole_batches_of_the_tokens() -> None:
    recipe = msgspec.structs.replace(attention_only(1, 16), tokens=10 * 16 * 128 + 2_047)
    assert recipe.tokens_per_step == 16 * 128
    assert recipe.steps == 10


def test_checkpoints_are_log_spaced_from_the_first_to_the_last_step() -> None:
    recipe = msgspec.structs.replace(attention_only(1, 5), tokens=4_096 * 2_048, first_checkpoint=256)
    assert recipe.steps == 4_096
    assert recipe.checkpoint_steps() == (0, 256, 512, 1_024, 2_048, 4_096)


WITH_CHECKPOINTS = [recipe for recipe in RECIPES.values() if recipe.n_checkpoints]


@pytest.mark.parametrize("recipe", WITH_CHECKPOINTS, ids=lambda recipe: recipe.name)
def test_shipped_models_keep_fifteen_to_thirty_checkpoints_and_the_last(recipe: Recipe) -> None:
    steps = recipe.checkpoint_steps()
    assert 15 <= recipe.n_checkpoints <= 30
    assert len(set(steps)) == recipe.n_checkpoints + 1
    assert list(steps) == sorted(steps)
    assert (steps[0], steps[-1]) == (0, recipe.steps)


def test_one_to_three_layers_keep_checkpoints_and_other_seeds_keep_none() -> None:
    kept = {recipe.config.n_layers for recipe in RECIPES.values() if recipe.n_checkpoints and recipe.seed == 0}
    assert kept == {1, 2, 3}
    assert another_seed(attention_only(2, 24), 1).checkpoint_steps() == ()


def test_another_seed_changes_the_seed_and_the_length_and_nothing_of_the_model() -> None:
    recipe = attention_only(2, n_checkpoints=24)
    other = another_seed(recipe, 5)
    differing = {name for name in recipe.__struct_fields__ if getattr(recipe, name) != getattr(other, name)}
    assert differing == {"name", "seed", "tokens", "decay_from", "n_checkpoints"}
    assert other.seed == 5
    assert other.decay_from * other.tokens > 3_100_000  # the rate is constant through the window in which heads form


def test_a_recipe_survives_json_and_cannot_be_changed() -> None:
    recipe = RECIPES["attn-only-3l"]
    assert msgspec.json.decode(msgspec.json.encode(recipe), type=Recipe) == recipe
    with pytest.raises(AttributeError, match="immutable"):
        recipe.seed = 3  # type: ignore[misc]
