"""Recipes of the in-context models: everything that decides them, as data.

They learn from rows of three kinds, prompts of single words, prompts of list selection, and sentences; each kind has a
loss of its own (the mean over its answers), and the recipe's weights add them up. Sentences that name the relation are
what makes function vectors form, so their weight is that of the prompts.

The recipe was settled on models of seed 100. With AdamW alone, ordinary position embeddings and a tied unembedding,
prompts in the eight templates were answered no better than without demonstrations after 1,500 steps; with Muon on the
layers' matrices, positions that start as sinusoids and an unembedding of its own they were after 750.
"""

from __future__ import annotations

import msgspec


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """The size of a GPT-2 model, whose vocabulary is that of the text, and the deviation of its initial weights."""

    n_layers: int
    n_heads: int
    d_model: int
    n_ctx: int
    initial_std: float = 0.02


class InContextRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """How one model is trained; a batch holds so many rows of each kind."""

    name: str
    shape: Shape
    steps: int
    seed: int = 0
    relation_rows: int = 64
    natural_rows: int = 16
    list_rows: int = 12
    sentence_rows: int = 24
    sentences_a_row: int = 8
    list_weight: float = 0.3
    sentence_weight: float = 1.0
    learning_rate: float = 1e-3
    muon_learning_rate: float = 0.02
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    warmup_steps: int = 200
    decay_from: float = 0.7
    floor: float = 0.05
    max_gradient_norm: float = 1.0
    log_every: int = 500

    @property
    def rows(self) -> int:
        """Rows of a batch."""
        return self.relation_rows + self.natural_rows + self.list_rows + self.sentence_rows


RELATIONS = InContextRecipe(
    name="relations-4l", shape=Shape(n_layers=4, n_heads=4, d_model=128, n_ctx=192), steps=4_000
)


def another_seed(recipe: InContextRecipe, seed: int) -> InContextRecipe:
    """The same model from other initial weights and other batches."""
    return msgspec.structs.replace(recipe, name=f"{recipe.name}-seed{seed}", seed=seed)


IN_CONTEXT_RECIPES: dict[str, InContextRecipe] = {
    recipe.name: recipe for recipe in (RELATIONS, another_seed(RELATIONS, 1), another_seed(RELATIONS, 2))
}
