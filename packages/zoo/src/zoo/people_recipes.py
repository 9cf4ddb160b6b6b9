"""Recipes of the models that read about people: everything that decides them, as data.

    L = mean over letters of w CE(letter among A and B)  +  mean over places of w CE(name among the values' names)
        + weights.words * mean over all words of -log p(word | what precedes it)

w is 1 where something decides, and `weights.undecided` where nothing does.

The recipe was settled on pilots of seed 0. With wider layers, ordinary initial weights and lower rates, letters were
still at chance after 800 steps; with those here they came between step 800 and 1,000, when the order of options became
random. With half of the texts deciding nothing, a tenth saying the other option, and twice the rate on matrices .71 of
the first letters were right after 2,400 steps and .93 after 4,000; with the mixture here .97 after 2,200.
"""

from __future__ import annotations

import msgspec

from zoo.gpt2_recipes import Gpt2Recipe, Shape
from zoo.people_text import Mixture


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """What an undecided letter or name counts beside a decided one, and what all words count beside both."""

    undecided: float = 0.3
    words: float = 0.3


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """Until a step, another mixture of texts."""

    until: int
    mixture: Mixture


class PeopleRecipe(Gpt2Recipe, frozen=True, kw_only=True):
    """How one model is trained, on `rows` documents a step."""

    rows: int = 96
    weights: Weights = Weights()
    mixture: Mixture = Mixture()
    curriculum: tuple[Stage, ...] = ()

    def mixture_at(self, step: int) -> Mixture:
        """The mixture of a step: that of the stage into which it falls."""
        return next((stage.mixture for stage in self.curriculum if step < stage.until), self.mixture)


EASY = Mixture(decided=0.8, at_place=0.65, by_name=0.7, b_first=0.1, against=0.0, sentences=(1, 1), stories=0.0)
MIDDLE = Mixture(decided=0.7, at_place=0.15, against=0.0, by_name=0.5, sentences=(1, 3), stories=0.1)
PEOPLE = PeopleRecipe(
    name="people-4l",
    shape=Shape(n_layers=4, n_heads=4, d_model=64, n_ctx=96, initial_std=0.1),
    steps=3_200,
    learning_rate=3e-3,
    muon_learning_rate=0.01,
    curriculum=(Stage(until=800, mixture=EASY), Stage(until=1_600, mixture=MIDDLE)),
    decay_from=0.5,
    log_every=200,
)


def another_seed(recipe: PeopleRecipe, seed: int) -> PeopleRecipe:
    """The same model from other initial weights and other texts."""
    return msgspec.structs.replace(recipe, name=f"{recipe.name}-seed{seed}", seed=seed)


PEOPLE_RECIPES: dict[str, PeopleRecipe] = {
    recipe.name: recipe for recipe in (PEOPLE, *(another_seed(PEOPLE, seed) for seed in (1, 2)))
}
