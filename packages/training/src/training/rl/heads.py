"""Distributions over actions in numpy, with the gradients of what PPO's loss has of them.

With p the probabilities, H the entropy and KL[old, new] the divergence from the policy that collected the rollout:

    categorical   d log p_a / d logits = 1_a - p,   dH / d logits = -p (log p + H),   dKL / d logits = p - p_old
    Gaussian      d log p_a / d mu = z / sigma,     d log p_a / d log sigma = z^2 - 1,       z = (a - mu) / sigma
                  dH / d log sigma = 1,             dKL / d mu = (mu - mu_old) / sigma^2,
                  dKL / d log sigma = 1 - (sigma_old^2 + (mu - mu_old)^2) / sigma^2

The values are those of `training.rl.distributions`; the tests compare both, and the gradients with autograd's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from training.rl.distributions import HALF_LOG_TWO_PI


class CategoricalHead:
    """Independent categorical distributions, one for each of `sizes`, from their logits side by side."""

    def __init__(self, logits: Float[ndarray, "row number"], sizes: Sequence[int]) -> None:
        self._cuts = np.cumsum(sizes)[:-1]
        self._log_p = [_log_softmax(part) for part in self._split(logits)]
        self._p = [np.exp(part) for part in self._log_p]
        self._rows = np.arange(len(logits))
        self._entropies = [-(p * log_p).sum(axis=1) for p, log_p in zip(self._p, self._log_p, strict=True)]

    def log_prob(self, actions: Float[ndarray, "row set"]) -> Float[ndarray, " row"]:
        """Of each row's actions together."""
        self._actions = actions.astype(np.intp)
        chosen = [log_p[self._rows, self._actions[:, i]] for i, log_p in enumerate(self._log_p)]
        return chosen[0] if len(chosen) == 1 else np.sum(chosen, axis=0)

    def entropy(self) -> float:
        """Mean over the rows."""
        return float(sum(part.mean() for part in self._entropies))

    def kl(self, old: Float[ndarray, "row number"]) -> float:
        """KL[old, this], mean over the rows."""
        pairs = zip(self._split(old), self._log_p, strict=True)
        return float(sum((np.exp(theirs) * (theirs - log_p)).sum(axis=1).mean() for theirs, log_p in pairs))

    def gradient(
        self, log_prob: Float[ndarray, " row"], entropy: float, kl: float, old: Float[ndarray, "row number"]
    ) -> tuple[ndarray, None]:
        """Gradient of the logits, from those of each row's log-probability, the mean entropy and the mean KL."""
        found = []
        for i, p in enumerate(self._p):
            g = -p * log_prob[:, None]
            g[self._rows, self._actions[:, i]] += log_prob
            if entropy:
                g -= (entropy / len(p)) * p * (self._log_p[i] + self._entropies[i][:, None])
            if kl:
                g += (kl / len(p)) * (p - np.exp(self._split(old)[i]))
            found.append(g)
        return found[0] if len(found) == 1 else np.concatenate(found, axis=1), None

    def _split(self, numbers: ndarray) -> list[ndarray]:
        return [numbers] if not len(self._cuts) else np.split(numbers, self._cuts, axis=1)


class GaussianHead:
    """Independent normal components from their means and one row of log standard deviations."""

    def __init__(self, mean: Float[ndarray, "row column"], log_std: Float[ndarray, "1 column"]) -> None:
        self._mean, self._log_std, self._inverse = mean, log_std, np.exp(-log_std)

    def log_prob(self, actions: Float[ndarray, "row column"]) -> Float[ndarray, " row"]:
        """Density of each row's action."""
        self._z = (actions - self._mean) * self._inverse
        constant = self._log_std.sum() + self._mean.shape[1] * HALF_LOG_TWO_PI
        density: ndarray = -0.5 * np.square(self._z).sum(axis=1) - constant
        return density

    def entropy(self) -> float:
        """Mean over the rows, for which it is the same."""
        return float(self._log_std.sum() + self._mean.shape[1] * (0.5 + HALF_LOG_TWO_PI))

    def kl(self, old: Float[ndarray, "row number"]) -> float:
        """KL[old, this], mean over the rows."""
        log_ratio, spread = self._old(old)
        return float(np.mean((0.5 * spread - 0.5 - log_ratio).sum(axis=1)))

    def gradient(
        self, log_prob: Float[ndarray, " row"], entropy: float, kl: float, old: Float[ndarray, "row number"]
    ) -> tuple[ndarray, ndarray]:
        """Gradients of means and log_std, from those of each row's log-probability, the mean entropy and KL."""
        mean = (self._z * self._inverse) * log_prob[:, None]
        log_std = ((np.square(self._z) - 1) * log_prob[:, None]).sum(axis=0, keepdims=True) + entropy
        if kl:
            share = kl / len(mean)
            mean += share * (self._mean - old[:, : mean.shape[1]]) * np.square(self._inverse)
            log_std += share * (1 - self._old(old)[1]).sum(axis=0, keepdims=True)
        return mean, log_std

    def _old(self, old: ndarray) -> tuple[ndarray, ndarray]:
        """log(sigma_old / sigma), and (sigma_old^2 + (mu - mu_old)^2) / sigma^2."""
        mean, log_std = np.split(old, 2, axis=1)
        log_ratio = log_std - self._log_std
        return log_ratio, np.exp(2 * log_ratio) + np.square((self._mean - mean) * self._inverse)


Head = CategoricalHead | GaussianHead


def _log_softmax(logits: ndarray) -> ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
