"""Recipes of the in-context models: everything that decides them, as data.

They learn from rows of three kinds, prompts of single words, prompts of list selection, and sentences; each kind has a
loss of its own (the mean over its answers), and the recipe's weights add them up. Sentences that name the relation are
what makes function vectors form, so their weight is that of the prompts.

The recipe was settled on models of seed 100. With AdamW alone, ordinary position embeddings and a tied unembedding,
prompts in the eight templates were answered no better than without demonstrations after 1,500 steps; with Muon on the
layers' matrices, positions that start as sinusoids and an unembedding of its own they were after 750.

`LISTS` was settled on seeds 100 and 101. With first, middle and last, and one sentence in seven about lists, 4,000
steps taught one of the places alone. With two places and four sentences in ten about lists, sentences that name a place
were right after 2,000 steps; what place the examples of a prompt mean was learnt between 5,000 and 6,000, by seed 0,
or not.
"""

from __future__ import annotations

import msgspec

from zoo.gpt2_recipes import Gpt2Recipe, Shape
from zoo.in_context_lists import ListKind


class InContextRecipe(Gpt2Recipe, frozen=True, kw_only=True):
    """How one model is trained; a batch holds so many rows of each kind.

    `list_copies` is the share of the prompts of lists that ask for a word itself, and `list_sentences` that of the
    sentences that are about lists (None: every kind of sentence as often as any other).
    """

    relation_rows: int = 64
    natural_rows: int = 16
    list_rows: int = 12
    sentence_rows: int = 24
    sentences_a_row: int = 8
    list_weight: float = 0.3
    sentence_weight: float = 1.0
    lists: ListKind = "selected"
    list_copies: float = 1.0
    list_sentences: float | None = None

    @property
    def rows(self) -> int:
        """Rows of a batch."""
        return self.relation_rows + self.natural_rows + self.list_rows + self.sentence_rows


RELATIONS = InContextRecipe(
    name="relations-4l", shape=Shape(n_layers=4, n_heads=4, d_model=128, n_ctx=192), steps=4_000
)
LISTS = msgspec.structs.replace(
    RELATIONS,
    name="relations-lists-4l",
    steps=6_000,
    log_every=1_000,
    list_rows=40,
    sentence_rows=32,
    list_weight=1.0,
    lists="related",
    list_copies=0.5,
    list_sentences=0.4,
)


def another_seed(recipe: InContextRecipe, seed: int) -> InContextRecipe:
    """The same model from other initial weights and other batches; seed 0 is the shipped model's."""
    if seed == 0:
        return recipe
    return msgspec.structs.replace(recipe, name=f"{recipe.name}-seed{seed}", seed=seed)


IN_CONTEXT_RECIPES: dict[str, InContextRecipe] = {
    recipe.name: recipe for each in (RELATIONS, LISTS) for recipe in (another_seed(each, seed) for seed in (0, 1, 2))
}
