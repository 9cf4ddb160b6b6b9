"""What a vector says in words, and whether the words make the vector.

    D(v) = softmax(W_U norm(v))                              decoded vocabulary (Todd et al. 2024, section 3.2)

    Q_n = D(v) on its n most likely tokens, normalised to 1 there, 0 elsewhere
    u = argmin_u  - sum_w Q_n(w) log D(u)(w),   then u := u |v| / |u|           rebuilt from its decoded tokens

A vector that were nothing but its decoded tokens would work as well when it is rebuilt. The minimum is sought by Adam
from a seeded normal start, as in the public code (1000 steps of 0.5). It is not unique, as D is far from one to one:
other seeds give other vectors of the same decoding, and several should be tried.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from function_vectors.runners import Runner
from function_vectors.vectors import FunctionVector
from interventions import Tokenizer
from interventions.hooks import Modules
from interventions.network import unembed


@dataclass(frozen=True)
class Decoded:
    """The most likely tokens of a vector's decoding, most likely first."""

    tokens: Int[Tensor, " n"]
    probabilities: Float[Tensor, " n"]

    def words(self, tokenizer: Tokenizer) -> list[str]:
        """Each token as text."""
        return [tokenizer.decode([token]) for token in self.tokens.tolist()]


@dataclass(frozen=True)
class Rebuilt:
    """A vector rebuilt from decoded tokens, and KL(Q_n || D(u) on the same tokens, normalised) in nats."""

    vector: FunctionVector
    divergence: float


def decode(runner: Runner, vector: FunctionVector, n: int = 10) -> Decoded:
    """The n tokens of highest probability under D(v).

    Raises:
        ValueError: n is below 1 or above the number of tokens.
    """
    probabilities = runner.decoded(vector.vector[None])[0].softmax(dim=-1)
    _check_number(n, len(probabilities))
    best = probabilities.topk(n)
    return Decoded(best.indices, best.values)


def rebuild(
    network: nn.Module, vector: FunctionVector, *, n: int, seed: int, steps: int = 1000, rate: float = 0.5
) -> Rebuilt:
    """A vector of the same norm whose decoding matches that of `vector` on its n most likely tokens.

    The network must be at hand: gradients go through its final norm and unembedding, and its weights get none.

    Raises:
        ValueError: n is below 1 or above the number of tokens, or there are no steps.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: expected at least 1")
    modules = Modules(network)
    weight = next(modules.final_norm.parameters())
    causal: Any = network
    _check_number(n, causal.get_output_embeddings().weight.shape[0])

    def log_probabilities(v: Float[Tensor, " d_model"]) -> Float[Tensor, " d_vocab"]:
        return unembed(modules, modules.final_norm(v.to(weight.dtype)[None]))[0].log_softmax(dim=-1)

    given = vector.vector.to(weight.device).float()
    with torch.no_grad():
        target = log_probabilities(given)
    top = target.topk(n).indices
    wanted = target[top].log_softmax(dim=0)
    start = torch.randn(len(given), generator=torch.Generator().manual_seed(seed))
    with torch.enable_grad():
        found = start.to(weight.device).requires_grad_()
        optimiser = torch.optim.Adam([found], lr=rate)
        for _ in range(steps):
            loss = -(wanted.exp() * log_probabilities(found)[top]).sum()
            (found.grad,) = torch.autograd.grad(loss, [found])
            optimiser.step()
    with torch.no_grad():
        scaled = found.detach() * given.norm() / found.detach().norm()
        reached = log_probabilities(scaled)[top].log_softmax(dim=0)
    divergence = float((wanted.exp() * (wanted - reached)).sum())
    return Rebuilt(replace(vector, vector=scaled.cpu(), task=f"{vector.task} from {n} tokens", heads=()), divergence)


def _check_number(n: int, d_vocab: int) -> None:
    if not 1 <= n <= d_vocab:
        raise ValueError(f"n={n} tokens: expected 1 to {d_vocab}, the vocabulary")
