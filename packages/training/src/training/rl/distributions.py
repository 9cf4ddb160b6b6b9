"""Distributions of actions in closed form: log-probability, entropy, Kullback-Leibler divergence.

    categorical          log p_a;  -sum p log p;  KL[p, q] = sum p (log p - log q)
    several categorical  independent, so all three add up over them (Huang et al. 2022, multi-discrete actions)
    diagonal Gaussian    -(a - mu)^2 / (2 sigma^2) - log sigma - log(2 pi) / 2, summed over the components;
                         sum log sigma + (1 + log 2 pi) / 2;
                         KL[p, q] = sum log(sigma_q / sigma_p) + (sigma_p^2 + (mu_p - mu_q)^2) / (2 sigma_q^2) - 1/2

`torch.distributions` gives the same numbers (the tests compare) in about four times as many operations, which is what
an update of a small network consists of. A distribution is stored as one row of numbers an observation (`flat`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Categorical(NamedTuple):
    """Over actions 0, 1, ...; `log_probabilities` are normalised."""

    log_probabilities: Float[Tensor, "batch action"]

    def log_prob(self, actions: Float[Tensor, "batch 1"]) -> Float[Tensor, " batch"]:
        """Of each row's action."""
        return self.log_probabilities.gather(1, actions.long()).squeeze(1)

    def entropy(self) -> Float[Tensor, " batch"]:
        """In nats."""
        return -(self.log_probabilities.exp() * self.log_probabilities).sum(1)

    def kl(self, other: Categorical) -> Float[Tensor, " batch"]:
        """KL[self, other], in nats."""
        difference = self.log_probabilities - other.log_probabilities
        return (self.log_probabilities.exp() * difference).sum(1)

    def flat(self) -> Float[Tensor, "batch number"]:
        """The numbers that make it."""
        return self.log_probabilities

    def like(self, flat: Float[Tensor, "batch number"]) -> Categorical:
        """One of the same kind from its numbers."""
        return Categorical(flat)


class MultiCategorical(NamedTuple):
    """Independent categorical distributions, one for each set of actions."""

    parts: tuple[Categorical, ...]

    def log_prob(self, actions: Float[Tensor, "batch set"]) -> Float[Tensor, " batch"]:
        """Of each row's actions together."""
        terms = [part.log_prob(actions[:, i : i + 1]) for i, part in enumerate(self.parts)]
        return torch.stack(terms).sum(0)

    def entropy(self) -> Float[Tensor, " batch"]:
        """In nats."""
        return torch.stack([part.entropy() for part in self.parts]).sum(0)

    def kl(self, other: MultiCategorical) -> Float[Tensor, " batch"]:
        """KL[self, other], in nats."""
        pairs = zip(self.parts, other.parts, strict=True)
        return torch.stack([mine.kl(theirs) for mine, theirs in pairs]).sum(0)

    def flat(self) -> Float[Tensor, "batch number"]:
        """The numbers that make it."""
        return torch.cat([part.log_probabilities for part in self.parts], dim=1)

    def like(self, flat: Float[Tensor, "batch number"]) -> MultiCategorical:
        """One of the same kind from its numbers."""
        sizes = [part.log_probabilities.shape[1] for part in self.parts]
        return MultiCategorical(tuple(Categorical(part) for part in torch.split(flat, sizes, dim=1)))


class DiagonalGaussian(NamedTuple):
    """Independent normal components; `log_std` is one row for all observations, or one for each."""

    mean: Float[Tensor, "batch column"]
    log_std: Float[Tensor, "batch_or_1 column"]

    def log_prob(self, actions: Float[Tensor, "batch column"]) -> Float[Tensor, " batch"]:
        """Density of each row's action, the components' log-densities summed."""
        z = (actions - self.mean) * torch.exp(-self.log_std)
        return (z.square() * -0.5 - self.log_std).sum(1) - self.mean.shape[1] * HALF_LOG_TWO_PI

    def entropy(self) -> Float[Tensor, " batch_or_1"]:
        """Differential entropy in nats; one number where `log_std` is one row."""
        return self.log_std.sum(1) + self.mean.shape[1] * (0.5 + HALF_LOG_TWO_PI)

    def kl(self, other: DiagonalGaussian) -> Float[Tensor, " batch"]:
        """KL[self, other], in nats."""
        log_ratio = self.log_std - other.log_std
        z = (self.mean - other.mean) * torch.exp(-other.log_std)
        return (0.5 * ((2 * log_ratio).exp() + z.square()) - 0.5 - log_ratio).sum(1)

    def flat(self) -> Float[Tensor, "batch number"]:
        """The numbers that make it."""
        return torch.cat([self.mean, self.log_std.expand_as(self.mean)], dim=1)

    def like(self, flat: Float[Tensor, "batch number"]) -> DiagonalGaussian:
        """One of the same kind from its numbers."""
        mean, log_std = flat.chunk(2, dim=1)
        return DiagonalGaussian(mean, log_std)


Distribution = Categorical | MultiCategorical | DiagonalGaussian
