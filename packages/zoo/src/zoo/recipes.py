"""Recipes: everything that decides a shipped model, as data.

The recipe is the recorded one that was seen to form induction heads on this corpus: position embeddings initialised as
sinusoids, Muon on the attention matrices, a rate that stays constant until well after the heads have formed, and
`repeats` of the training rows made of one natural segment repeated. That share is a choice that makes induction form
sooner on a small token budget; it is part of every card, because it differs from the paper's training data.
"""

from __future__ import annotations

import msgspec

from zoo.model import AttentionOnlyConfig

N_CTX = 128
VOCABULARY = 1024


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How one model is trained. Rates are those of the plateau; `tokens` counts training tokens seen."""

    name: str
    config: AttentionOnlyConfig
    tokens: int
    seed: int = 0
    batch_size: int = 16
    learning_rate: float = 4e-3
    muon_learning_rate: float = 0.02
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    warmup_steps: int = 100
    decay_from: float = 0.7
    floor: float = 0.05
    max_gradient_norm: float = 1.0
    repeats: float = 0.25
    n_checkpoints: int = 0
    first_checkpoint: int = 256

    @property
    def tokens_per_step(self) -> int:
        return self.batch_size * self.config.n_ctx

    @property
    def steps(self) -> int:
        return self.tokens // self.tokens_per_step

    def checkpoint_steps(self) -> tuple[int, ...]:
        """Steps whose weights are kept: the initial ones, then `n_checkpoints` log-spaced ones up to the last."""
        if not self.n_checkpoints:
            return ()
        ratio = (self.steps / self.first_checkpoint) ** (1 / (self.n_checkpoints - 1))
        return (0, *(round(self.first_checkpoint * ratio**i) for i in range(self.n_checkpoints)))


def attention_only(n_layers: int, n_checkpoints: int) -> Recipe:
    """The shipped attention-only model of `n_layers` layers, with checkpoints along training."""
    config = AttentionOnlyConfig(n_layers=n_layers, d_model=192, n_heads=12, d_head=16, d_vocab=VOCABULARY, n_ctx=N_CTX)
    return Recipe(name=f"attn-only-{n_layers}l", config=config, tokens=12_000_000, n_checkpoints=n_checkpoints)


def another_seed(recipe: Recipe, seed: int) -> Recipe:
    """The same model from other initial weights and data order: shorter, without checkpoints.

    4 million tokens are past the window in which induction heads form (2 to 3 million).
    """
    return msgspec.structs.replace(
        recipe, name=f"{recipe.name}-seed{seed}", seed=seed, tokens=4_000_000, decay_from=0.8, n_checkpoints=0
    )


ZERO_LAYERS = attention_only(0, 0)
ONE_LAYER, TWO_LAYERS, THREE_LAYERS = attention_only(1, 16), attention_only(2, 24), attention_only(3, 20)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        ZERO_LAYERS,
        ONE_LAYER,
        TWO_LAYERS,
        THREE_LAYERS,
        another_seed(TWO_LAYERS, 1),
        another_seed(TWO_LAYERS, 2),
    )
}
