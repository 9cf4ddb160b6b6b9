"""The paper's procedure at the place before the first letter, and its controls.

    letter(v, l) = mean of h_l at the first letter, where that means v  -  the same where it means the other option
    place(v, l)  = mean of h_l before the first letter, where v was said  -  the same where any value was said
    effect       = p(match) with the vector added before the first letter  -  p(match) with it subtracted

Nothing decides that letter in the texts that are read for `letter` and steered. All vectors of a layer have one norm,
the mean of the letter's over values, but for those of "place", which has its own. p(match) is p of the letter of the
value's option over p of both. Every mean is over both orders of the options; an effect of a sign that goes with the
order is one on letters and not on what they mean, so effects are kept by order as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from replications.contrastive_activation_addition.pilots.grammar import A, B, Grammar, Rows
from replications.contrastive_activation_addition.pilots.network import Network
from torch import Tensor

Array = NDArray[np.floating]
Direction = Callable[[int, int, int], Array]  # of a value, an order and a layer: [d_model], or one for each row
ORDERS = (0, 1)
RANDOM = 3
SEED = 500


@dataclass(frozen=True)
class Vectors:
    """Both kinds of vectors, each [value, layer, d_model], of length 1, and the norms they had, [layer]."""

    letter: Array
    place: Array
    letter_norm: Array
    place_norm: Array


@dataclass(frozen=True)
class Measured:
    """Effects by condition, [layer, value, order]; what p(match) is unsteered, [order]; the vectors."""

    effects: Mapping[str, Array]
    plain: Array
    vectors: Vectors


@torch.no_grad()
def vectors(network: Network, grammar: Grammar, rng: np.random.Generator) -> Vectors:
    """Both kinds; each side is a mean over texts in both orders."""
    s, place, texts = grammar.settings, grammar.place, grammar.settings.texts
    letters, places = (np.zeros((s.values, s.layers, s.d_model)) for _ in range(2))
    for value in range(s.values):
        for order in ORDERS:
            swapped = bool(order)
            tokens = grammar.draw(rng, texts, said="none", value=value, swapped=swapped).tokens
            match, other = tokens.clone(), tokens.clone()
            match[:, place + 1], other[:, place + 1] = A + order, B - order
            letters[value] += _difference(network, match, other, place + 1) / len(ORDERS)
            shown = grammar.draw(rng, texts, said="any", value=value, swapped=swapped).tokens
            anything = grammar.draw(rng, texts, said="any", swapped=swapped).tokens
            places[value] += _difference(network, shown, anything, place) / len(ORDERS)
    norms = [np.linalg.norm(of, axis=-1).mean(0) for of in (letters, places)]
    return Vectors(_unit(letters), _unit(places), *norms)


def _difference(network: Network, one: Tensor, two: Tensor, at: int) -> Array:
    """The difference of the mean streams at a place, behind every layer."""
    streams = zip(network.streams(one[:, : at + 1]), network.streams(two[:, : at + 1]), strict=True)
    return np.stack([(x - y)[:, at].mean(0).numpy() for x, y in streams])


def _unit(array: Array) -> Array:
    length: Array = np.linalg.norm(array, axis=-1, keepdims=True)
    return array / np.where(length > 0, length, 1)


def cosines(vectors: Vectors) -> dict[str, list[float]]:
    """Mean cosines by layer: of a value's letter with its own place, with another value's place, and letter."""
    pairs = {"letter and its place": (vectors.letter, vectors.place, True)}
    pairs["letter and another's place"] = (vectors.letter, vectors.place, False)
    pairs["letter and another's letter"] = (vectors.letter, vectors.letter, False)
    same = np.eye(len(vectors.letter), dtype=bool)
    found = {}
    for name, (one, two, own) in pairs.items():
        products = np.einsum("vld,wld->lvw", one, two)
        found[name] = products[:, same if own else ~same].mean(axis=1).tolist()
    return found


@torch.no_grad()
def measure(network: Network, grammar: Grammar) -> Measured:
    """Effects under all conditions.

    letter, place           the vectors, each at its own norm
    place at letter's norm  the place's vector at the other's norm
    random                  one of three random directions
    last layer              the letter's vector of each layer behind the last one
    logit bias              the constant on the letters' logits that the letter's vector amounts to on average
    another value           the letter's vector of a value that is no option of the question
    other option            the letter's vector of the other option
    """
    rng = np.random.default_rng(SEED)
    s = grammar.settings
    found = vectors(network, grammar, rng)
    norm, letter = found.letter_norm, found.letter
    directions = _unit(rng.standard_normal((RANDOM, s.layers, s.d_model)))
    asked = [
        [grammar.draw(rng, s.texts, said="none", value=value, swapped=bool(order)) for order in ORDERS]
        for value in range(s.values)
    ]

    def another(value: int, order: int, layer: int) -> Array:
        values = another_than(value, asked[value][order].other, s.values, rng)
        return np.asarray(letter[values, layer] * norm[layer])

    conditions: dict[str, Direction] = {
        "letter": lambda value, order, layer: letter[value, layer] * norm[layer],
        "place": lambda value, order, layer: found.place[value, layer] * found.place_norm[layer],
        "place at letter's norm": lambda value, order, layer: found.place[value, layer] * norm[layer],
        "random": lambda value, order, layer: directions[value % RANDOM, layer] * norm[layer],
        "last layer": lambda value, order, layer: letter[value, layer] * norm[layer],
        "another value": another,
        "other option": lambda value, order, layer: letter[asked[value][order].other, layer] * norm[layer],
    }
    effects: dict[str, Array] = {}
    for name, direction in conditions.items():
        effects[name] = np.zeros((s.layers, s.values, len(ORDERS)))
        for layer, value, order in np.ndindex(effects[name].shape):
            at = s.layers - 1 if name == "last layer" else layer
            plus, minus = _steered(network, grammar, asked[value][order], direction(value, order, layer), at)
            effects[name][layer, value, order] = _p_match(plus, order) - _p_match(minus, order)
    plain = [[_logits(network, grammar, rows) for rows in orders] for orders in asked]
    effects["logit bias"] = np.zeros((s.layers, s.values, len(ORDERS)))
    for layer, value in np.ndindex(s.layers, s.values):
        vector = letter[value, layer] * norm[layer]
        both = [torch.stack(_steered(network, grammar, rows, vector, layer)) for rows in asked[value]]
        changes = [(of - before).mean(dim=1) for of, before in zip(both, plain[value], strict=True)]
        plus, minus = torch.stack(changes).mean(dim=0)
        for order in ORDERS:
            before = plain[value][order]
            effects["logit bias"][layer, value, order] = _p_match(before + plus, order) - _p_match(
                before + minus, order
            )
    unsteered = [np.mean([_p_match(of[order], order) for of in plain]) for order in ORDERS]
    return Measured(effects, np.array(unsteered), found)


def another_than(value: int, others: NDArray[np.int_], values: int, rng: np.random.Generator) -> NDArray[np.int_]:
    """For each row a value that is neither `value` nor the row's other option."""
    return np.array([rng.choice([v for v in range(values) if v not in (value, other)]) for other in others])


def _steered(
    network: Network, grammar: Grammar, rows: Rows, vector: Array, layer: int
) -> tuple[Float[Tensor, "row 2"], Float[Tensor, "row 2"]]:
    """Logits of A and B with a vector ([d_model], or one for each row) added at the place behind a layer, and with it
    subtracted."""
    added = torch.zeros(len(rows.tokens), grammar.place + 1, vector.shape[-1])
    added[:, grammar.place] = torch.from_numpy(vector)
    return _logits(network, grammar, rows, {layer: added}), _logits(network, grammar, rows, {layer: -added})


def _logits(
    network: Network, grammar: Grammar, rows: Rows, added: Mapping[int, Tensor] | None = None
) -> Float[Tensor, "row 2"]:
    logits: Tensor = network(rows.tokens[:, : grammar.place + 1], added=added)
    return logits[:, grammar.place, A : B + 1]


def _p_match(logits: Float[Tensor, "row 2"], order: int) -> float:
    """In the order 1 the value's option is B."""
    return float(logits.softmax(-1)[:, order].mean())
