"""Recipes of the story models: everything that decides them, as data.

    L = mean over all words of -log p(word | what precedes it)
        + weights.shown * the same mean over the words that show a latent  + weights.answers * over the answers

An answer is a letter, "yes", "no" or the name of a latent. Without weights of their own both drown in the words that no
model can predict: words of mood are one in twenty, and to know the mood is worth log 2 on each.

The recipe was settled on models of seed 100, and one of seed 0 that was given up after 2,250 steps. With all forms of
questions from the start no letter was better than chance after 3 million words; after 300 steps of plain questions that
name both values ("is anna kind or mean ? answer :") four in five were right after 1,200 steps. Without the weight of
the shown words, and with half as many words of mood in the stories, topics were followed after 5 million words, and
moods and attitudes were not; with both, moods were after 1.2 million.
"""

from __future__ import annotations

import msgspec

from zoo.gpt2_recipes import Gpt2Recipe, Shape
from zoo.stories_questions import ALL_FORMS, Forms


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """Until a step, other shares of the forms of questions: how many have letters, and how many name both values."""

    until: int
    lettered: float
    which: float


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """What the mean losses over the words that show a latent and over the answers count beside that over all words."""

    shown: float = 1.0
    answers: float = 2.0


class StoriesRecipe(Gpt2Recipe, frozen=True, kw_only=True):
    """How one model is trained; `question_share` of a batch of `rows` documents ask questions."""

    rows: int = 32
    question_share: float = 0.5
    weights: Weights = Weights()
    curriculum: tuple[Stage, ...] = ()

    def forms(self, step: int) -> Forms:
        """The forms of the questions at a step: those of the stage that it falls into, at the end all."""
        for stage in self.curriculum:
            if step < stage.until:
                return Forms(lettered=stage.lettered, which=stage.which)
        return ALL_FORMS


STORIES = StoriesRecipe(
    name="stories-4l",
    shape=Shape(n_layers=4, n_heads=4, d_model=128, n_ctx=192),
    steps=4_500,
    curriculum=(Stage(until=300, lettered=0.0, which=1.0),),
    warmup_steps=100,
    decay_from=0.6,
    log_every=250,
)


def another_seed(recipe: StoriesRecipe, seed: int) -> StoriesRecipe:
    """The same model from other initial weights and other stories."""
    return msgspec.structs.replace(recipe, name=f"{recipe.name}-seed{seed}", seed=seed)


STORIES_RECIPES: dict[str, StoriesRecipe] = {recipe.name: recipe for recipe in (STORIES, another_seed(STORIES, 1))}
