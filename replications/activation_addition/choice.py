"""Which layer and coefficient a vector is judged at.

For each way of acting and each kind of latent, one layer and one coefficient for all latents: the highest mean success
among cells whose completions are still fluent, that is whose perplexity under the unsteered model is at most twice that
of unsteered completions. (Where no cell is, the one of lowest perplexity.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
FLUENT = 2.0


def mean_over(values: Array, axis: tuple[int, ...]) -> Array:
    """The mean without NaN, and NaN where there is nothing else."""
    kept = ~np.isnan(values)
    count = kept.sum(axis=axis)
    return np.asarray(np.where(count > 0, np.where(kept, values, 0.0).sum(axis=axis) / np.maximum(count, 1), np.nan))


def perplexity(losses: Array, tokens: Array, axis: tuple[int, ...]) -> Array:
    """exp of the mean loss a token, nats; NaN where nothing was written."""
    count = tokens.sum(axis=axis)
    return np.asarray(np.exp(np.where(count > 0, losses.sum(axis=axis) / np.maximum(count, 1), np.nan)))


def choose(
    success: Array, losses: Array, tokens: Array, plain_losses: Array, plain_tokens: Array
) -> tuple[int, int, bool]:
    """Places of layer and coefficient, and whether completions there are fluent.

    Args:
        success, losses, tokens: [latent, layer, coefficient, prompt, sample].
        plain_losses, plain_tokens: of unsteered completions, [latent, prompt, sample].
    """
    share = mean_over(mean_over(success, (3, 4)), (0,))
    found = perplexity(losses, tokens, (0, 3, 4))
    limit = FLUENT * perplexity(plain_losses, plain_tokens, (0, 1, 2))
    fluent = (found <= limit) & ~np.isnan(share)
    ranked = np.where(fluent, share, -np.inf) if fluent.any() else -np.nan_to_num(found, nan=np.inf)
    layer, coefficient = np.unravel_index(int(ranked.argmax()), ranked.shape)
    return int(layer), int(coefficient), bool(fluent.any())
