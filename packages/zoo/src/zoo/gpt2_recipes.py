"""What the recipes of all models of GPT-2's shape have in common: the shape, and how it is optimised."""

from __future__ import annotations

import msgspec


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """The size of a GPT-2 model, whose vocabulary is that of the text, and the deviation of its initial weights.

    `d_mlp` is the width of its MLPs, four times `d_model` where it is not given.
    """

    n_layers: int
    n_heads: int
    d_model: int
    n_ctx: int
    initial_std: float = 0.02
    d_mlp: int | None = None


class Gpt2Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """Muon on the layers' matrices, AdamW on the rest, one trapezoid of rates for both."""

    name: str
    shape: Shape
    steps: int
    seed: int = 0
    learning_rate: float = 1e-3
    muon_learning_rate: float = 0.02
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    warmup_steps: int = 200
    decay_from: float = 0.7
    floor: float = 0.05
    max_gradient_norm: float = 1.0
    log_every: int = 500
