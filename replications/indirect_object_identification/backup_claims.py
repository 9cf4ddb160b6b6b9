"""What the claims about backup heads and adversarial prompts measure.

The direct effect of a head is measured in the whole model and in the one without movers (`backup_stages`). What grows
is the mean over prompts, of each head; growth below zero, of a head that writes against the answer less than it did, is
told from growth above it:

    growth = max(0, after - before)        growth above zero = max(0, max(0, after) - max(0, before))
"""

from __future__ import annotations

from replications.indirect_object_identification import circuit
from replications.indirect_object_identification.circuit import GPT2_SMALL, Head
from replications.indirect_object_identification.measures import (
    Array,
    is_published,
    main,
    mean,
    of_heads,
    of_others,
    over_heads,
    share,
)

from reprise import Measurement, Result, Results, bootstrap
from reprise.experiment import Measure


def backup_cost(results: Results) -> Measurement | None:
    result = main(results, "backup")
    movers = _movers(result)
    if not movers:
        return None
    return share(results, result["before"] - result["after"], result["before"], over_heads(movers))


def take_over(results: Results) -> Measurement | None:
    """Growth of all heads but the movers, over the direct effects that the movers had."""
    result = main(results, "backup")
    movers = _movers(result)
    if not movers:
        return None
    growth = of_others(result["direct.after"] - result["direct.before"], movers).sum(axis=1)
    return share(results, growth, of_heads(result["direct.before"], movers).sum(axis=1), over_heads(movers))


def above_zero(results: Results) -> Measurement | None:
    """The part of all growth that is above zero."""
    result = main(results, "backup")
    movers = _movers(result)
    if not movers:
        return None
    before, after = (of_others(result[f"direct.{when}"], movers) for when in ("before", "after"))

    def part(before: Array, after: Array) -> float:
        growth, growth_above = grown(before, after)
        return float(growth_above.sum() / growth.sum()) if growth.sum() else 0.0

    if not grown(before, after)[0].sum():
        return None
    return bootstrap(part, before, after, over=over_heads(movers), seed=results.seed)


def grown(before: Array, after: Array) -> tuple[Array, Array]:
    """How much the mean direct effect of each head [prompt, head] grows, and how much of it above zero."""
    was, became = before.mean(axis=0, dtype=float), after.mean(axis=0, dtype=float)
    return (became - was).clip(min=0), (became.clip(min=0) - was.clip(min=0)).clip(min=0)


def published_backup(results: Results) -> Measurement | None:
    """The part of all growth above zero that is in the published backup heads."""
    result = main(results, "backup")
    movers = _movers(result)
    if not is_published(results) or not movers:
        return None
    names = ("direct.before", "direct.after")
    backup = [of_heads(result[name], GPT2_SMALL.roles[circuit.BACKUP]) for name in names]
    others = [of_others(result[name], movers) for name in names]

    def part(*samples: Array) -> float:
        whole = grown(*samples[2:])[1].sum()
        return float(grown(*samples[:2])[1].sum() / whole) if whole else 0.0

    if not grown(*others)[1].sum():
        return None
    return bootstrap(part, *backup, *others, over="prompts", seed=results.seed)


def misled(kind: str) -> Measure:
    """The share of prompts of a kind with S above IO."""
    return lambda results: mean(results, main(results, "adversarial")[kind] < 0)


def _movers(result: Result) -> list[Head]:
    return [(layer, head) for layer, head in result.facts["movers"]]


BACKUP_CLAIMS: dict[str, Measure] = {
    "backup-cost": backup_cost,
    "backup-take-over": take_over,
    "backup-above-zero": above_zero,
    "backup-published": published_backup,
    "adversarial": misled("io_again"),
    "adversarial-control": misled("s_again"),
}
