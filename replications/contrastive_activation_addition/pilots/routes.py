"""By which way an answer is found: right letters when the attention from some places to others is blocked.

The value may be fetched where the letter is chosen, or the options may have looked at what says it, and marked
themselves in advance. Blocking the first way or the second tells which.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Bool
from replications.contrastive_activation_addition.pilots.grammar import Grammar, Said
from replications.contrastive_activation_addition.pilots.learning import right
from replications.contrastive_activation_addition.pilots.network import Network
from torch import Tensor

SEED = 3


def block(width: int, rows: Iterable[int], columns: Iterable[int]) -> Bool[Tensor, "place place"]:
    """True where a place of `rows` would look at one of `columns`."""
    blocked = torch.zeros(width, width, dtype=torch.bool)
    blocked[torch.tensor(list(rows))[:, None], torch.tensor(list(columns))] = True
    return blocked


def routes(network: Network, grammar: Grammar, texts: int = 1500) -> dict[str, dict[str, float | None]]:
    """Shares of right letters, of the first answer where the text says the value, and of the second where nothing but
    the first letter does: unblocked, the place not seeing what says the value (the text, or the first question), and
    the question's options not seeing it."""
    place, text, first, second = grammar.place, grammar.text, grammar.question(0), grammar.question(1)
    asked: dict[str, tuple[int, Said, dict[str, tuple[Iterable[int], Iterable[int]] | None]]] = {
        "first": (0, "person", {"plain": None, "place": ([place], text), "options": (first, text)}),
        "second": (1, "none", {"plain": None, "place": ([place + 1], first), "options": (second, first)}),
    }
    found: dict[str, dict[str, float | None]] = {}
    for name, (number, said, ways) in asked.items():
        rows = grammar.draw(np.random.default_rng(SEED), texts, said=said)
        found[name] = {
            way: right(network, grammar, rows, block(grammar.width, *pair) if pair else None)[number]
            for way, pair in ways.items()
        }
    return found
