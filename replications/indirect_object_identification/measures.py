"""What the measures of all claims and the figures share: shares of F, the heads of a role, and faithfulness.

    share(x) = mean over prompts of x / mean over prompts of F

is a quotient of means, as in the paper. Its interval resamples prompts, with x and F of a prompt together. Templates,
heads and circuits stay as they are: an interval is about other prompts of these templates, of heads that were found
once. Of an F that cannot be told from 0 nothing can be a share, and the claim is not run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from replications.indirect_object_identification import circuit
from replications.indirect_object_identification.circuit import GPT2_SMALL, Head
from replications.indirect_object_identification.measured_circuits import PATHS
from replications.indirect_object_identification.path_stages import PUBLISHED, roles_found

from reprise import Measurement, Result, Results, bootstrap

Array = NDArray[np.floating]
STANDARD_ERRORS = 2  # that a mean has to be above 0 for something to be a share of it
SHOWN = 6  # heads that are named; of more their number
EARLY = (circuit.INDUCTION, circuit.DUPLICATE, circuit.OTHER)


def main(results: Results, stage: str) -> Result:
    """The result of the run's (first) model."""
    return results.of(stage)[min(results.of(stage))]


def mean(results: Results, values: NDArray[Any], over: str = "prompts") -> Measurement | None:
    """The mean with its interval; None of fewer than two values."""
    return None if len(values) < 2 else bootstrap(np.mean, values.astype(float), over=over, seed=results.seed)


def share(results: Results, part: Array, whole: Array, over: str = "prompts") -> Measurement | None:
    """The mean of `part` over that of `whole`, both [prompt]; None where the latter is not told from 0."""
    return bootstrap(quotient, part, whole, over=over, seed=results.seed) if is_above_0(whole) else None


def quotient(part: Array, whole: Array) -> float:
    """Mean over mean."""
    return float(part.mean(dtype=float) / whole.mean(dtype=float))


def is_above_0(whole: Array) -> bool:
    """Whether the mean of [prompt] is above 0 by more than two standard errors."""
    if len(whole) < 2:
        return False
    values = whole.astype(float)
    return bool(values.mean() > STANDARD_ERRORS * values.std(ddof=1) / len(values) ** 0.5)


def faithfulness_of(full: Array, values: Array) -> Array:
    """1 - |F(M) - F(C)| / |F(M)|, of F in the model [prompt] and in circuits [prompt, *circuit]; [*circuit]."""
    whole = full.mean(dtype=float)
    found: Array = 1 - np.abs(whole - values.mean(axis=0, dtype=float)) / np.abs(whole)
    return found


def faithfulness(results: Results, full: Array, values: Array) -> Measurement | None:
    """The same with its interval; None where F(M) is not told from 0."""
    if not is_above_0(full):
        return None
    return bootstrap(lambda *samples: float(faithfulness_of(*samples)), full, values, over="prompts", seed=results.seed)


def of_published(results: Results) -> bool:
    """Whether the run could ask about the published heads: see `path_stages`."""
    return f"{PUBLISHED}receivers" in main(results, PATHS[1]).facts


def is_published(results: Results) -> bool:
    """Whether the circuit that was validated is the published one."""
    return bool(main(results, "faithfulness").facts["is_published"])


def prefix_of(results: Results) -> str:
    """What begins the names of arrays that are about the published heads, where there are such."""
    return PUBLISHED if of_published(results) else ""


def heads_of(results: Results, *roles: str) -> tuple[Head, ...]:
    """The heads of some roles, each once: the published ones where they can be asked about, else those found."""
    if of_published(results):
        found = [head for role in roles for head in GPT2_SMALL.roles.get(role, ())]
    else:
        by_role = roles_found({stage: main(results, stage) for stage in PATHS})
        found = [(layer, head) for role in roles for layer, head in by_role.get(role, ())]
    return tuple(sorted(set(found)))


def no_such_heads(results: Results, n: int, of: str) -> Measurement | None:
    """0, of a role without heads: no head does what is claimed of it. None where path patching did not come so far.

    It came to the early heads where it found S-inhibition heads.
    """
    if of_published(results) or not heads_of(results, circuit.INHIBITION):
        return None
    return Measurement(estimate=0.0, low=0.0, high=0.0, n=n, over=f"{of} (no such head)")


def of_heads(values: Array, heads: Sequence[Head]) -> Array:
    """The columns [unit, head, ...] of some heads of [unit, layer, head, ...]."""
    layers, numbers = ([head[at] for head in heads] for at in (0, 1))
    columns: Array = values[:, layers, numbers]
    return columns


def of_others(values: Array, heads: Sequence[Head]) -> Array:
    """The columns [unit, head] of all heads but some of [unit, layer, head]."""
    kept = np.ones(values.shape[1:3], dtype=bool)
    for head in heads:
        kept[head] = False
    columns: Array = values[:, kept]
    return columns


def over_heads(heads: Sequence[Head], of: str = "prompts") -> str:
    """What is counted, with the heads that it is about."""
    few = 0 < len(heads) <= SHOWN
    return f"{of} ({', '.join(f'{layer}.{head}' for layer, head in heads) if few else f'{len(heads)} heads'})"


def counted(value: float, n: int, over: str) -> Measurement:
    """A count, which has no interval."""
    return Measurement(estimate=value, low=value, high=value, n=n, over=f"{over} (counted)")
