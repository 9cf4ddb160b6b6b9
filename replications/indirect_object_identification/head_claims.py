"""What the claims about heads measure: where they look, what they copy, which signal they pass on, random tokens.

They are about the heads of a role (`measures.heads_of`); a claim about a role without heads is not run, and one about
early heads is 0 where path patching came so far and found none.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from replications.indirect_object_identification import circuit
from replications.indirect_object_identification.circuit import Head
from replications.indirect_object_identification.grouping import WORDS
from replications.indirect_object_identification.measures import (
    Array,
    heads_of,
    main,
    mean,
    no_such_heads,
    of_heads,
    of_others,
    over_heads,
    prefix_of,
)

from reprise import Measurement, Results, bootstrap
from reprise.experiment import Measure

MENTIONS = {"IO": ("IO",), "S": ("S1", "S2")}
POSITION, TOKEN = np.eye(2)


def looks_at(role: str, word: str) -> Measure:
    """Attention from END to a word, mean over the heads of a role."""

    def measure(results: Results) -> Measurement | None:
        heads = heads_of(results, role)
        if not heads:
            return None
        attention = of_heads(main(results, "attention")["attention"], heads)
        at_word = attention[..., WORDS.index("END"), WORDS.index(word)]
        return mean(results, at_word.mean(axis=1), over_heads(heads))

    return measure


def scatter(role: str) -> Measure:
    """Correlation of attention to a name and projection on it, over prompts and both names; mean over heads."""

    def measure(results: Results) -> Measurement | None:
        heads = heads_of(results, role)
        if not heads:
            return None
        result = main(results, "attention")
        from_end = of_heads(result["attention"], heads)[:, :, WORDS.index("END")]
        places = [[WORDS.index(word) for word in words] for words in MENTIONS.values()]
        to_names = np.stack([from_end[..., at].sum(axis=-1) for at in places], axis=-1)
        projection = of_heads(result["projection"], heads)
        return bootstrap(correlations, to_names, projection, over=over_heads(heads), seed=results.seed)

    return measure


def correlations(attention: Array, projection: Array) -> float:
    """Pearson's, of each head of [prompt, head, name]; mean over heads. 0 where one of the two does not vary."""
    found = []
    for head in range(attention.shape[1]):
        x, y = (of[:, head].ravel().astype(float) for of in (attention, projection))
        x, y = x - x.mean(), y - y.mean()
        scale = np.sqrt((x @ x) * (y @ y))
        found.append(float(x @ y / scale) if scale > 0 else 0.0)
    return float(np.mean(found))


def copies(role: str, which: str) -> Measure:
    """The copying score of a role's heads: of the names at all words of a prompt, mean over words and heads."""

    def measure(results: Results) -> Measurement | None:
        heads = heads_of(results, role)
        return score(results, which, lambda hits: of_heads(hits, heads), over_heads(heads)) if heads else None

    return measure


def others_copy(results: Results) -> Measurement | None:
    """That of all heads but the movers."""
    movers = heads_of(results, circuit.MOVERS)
    return score(results, "top", lambda hits: of_others(hits, movers), "prompts")


def score(results: Results, which: str, columns: Callable[[Array], Array], over: str) -> Measurement | None:
    hits = main(results, "copying")[which].astype(float).mean(axis=1)  # [prompt, layer, head]
    return mean(results, columns(hits).mean(axis=1), over)


def signal(weights: Array) -> Measure:
    """What the position and the token weigh in F, weighted."""

    def measure(results: Results) -> Measurement | None:
        result, name = main(results, "signals"), f"{prefix_of(results)}weights"
        if name not in result.arrays:
            return None
        return mean(results, result[name] @ weights, over_heads(heads_of(results, circuit.INHIBITION)))

    return measure


def early(role: str, detector: str) -> Measure:
    """A score on repeated random tokens, mean over a role's heads less mean over all other heads."""

    def measure(results: Results) -> Measurement | None:
        heads: tuple[Head, ...] = heads_of(results, role)
        scores = main(results, "early")[detector]
        if not heads:
            return no_such_heads(results, len(scores), "sequences")
        if len(heads) == scores[0].size:
            return None
        difference = of_heads(scores, heads).mean(axis=1) - of_others(scores, heads).mean(axis=1)
        return mean(results, difference, over_heads(heads, "sequences"))

    return measure


HEAD_CLAIMS: dict[str, Measure] = {
    "mover-attention": looks_at(circuit.MOVERS, "IO"),
    "mover-scatter": scatter(circuit.MOVERS),
    "negative-scatter": scatter(circuit.NEGATIVE),
    "mover-copying": copies(circuit.MOVERS, "top"),
    "other-copying": others_copy,
    "negative-copying": copies(circuit.NEGATIVE, "bottom"),
    "inhibition-attention": looks_at(circuit.INHIBITION, "S2"),
    "signal-position": signal(POSITION),
    "signal-token": signal(TOKEN),
    "position-over-token": signal(POSITION - TOKEN),
    "early-duplicate": early(circuit.DUPLICATE, "duplicate_token"),
    "early-induction": early(circuit.INDUCTION, "induction"),
    "early-previous": early(circuit.PREVIOUS, "previous_token"),
}
