"""Controls: what else does what a vector does, in one table, each row with its perplexity and well-formedness.

A share that rises with a vector shows a direction that the model uses only if the rows below do not show it as well:

    random vectors         several draws, of the vector's norm in each position             must do nothing
    NAME                   another vector, at the vector's norm                             must do nothing, or its own
    last layer             the vector added to the output of the last layer                 no layer is left to read it
    logit bias, unembedded one constant on the logits: the mean effect of "last layer"      nor is a text read
    logit bias, mean effect  the same of the vector itself, at its layer (`logit_bias`)     nor is a text read
    prompt only            the vector at the prompt's positions, its last token left out    must act through attention
    prefix                 a prompt that names it, without the vector                       what plain words do

The two biases are measured on the unsteered completions. "last layer" and "prompt only" keep coefficient and operation;
"prompt only" acts at the vector's own positions alone, as far as these are in the prompt, and does nothing in a prompt
of one token. A vector with a row for each position adds nothing to what is written later, so that "last layer" and its
bias would be empty for it, and are left out.

All rows draw their tokens by the same numbers, and differences between rows are paired over prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool
from torch import Tensor

from interventions import Model
from interventions.calls import Call
from interventions.notebook import table as html_table
from steering.errors import SteeringError
from steering.grids import EVERYWHERE, Progress
from steering.intervals import Interval, difference
from steering.logit_bias import mean_effect
from steering.outcomes import GREEDY, Kind, Metric, Outcome, Writing, measured, together, written
from steering.positions import Positions, PromptOnly
from steering.side_by_side import Condition, written_together
from steering.steering import Operation, Steer, check_fits
from steering.vectors import SteeringVector

UNSTEERED, VECTOR, RANDOM = "unsteered", "vector", "random vectors"
LAST_LAYER, PROMPT_ONLY, PREFIX = "last layer", "prompt only", "prefix"
BIAS_UNEMBEDDED, BIAS_MEAN = "logit bias, unembedded", "logit bias, mean effect"


@dataclass(frozen=True)
class Control:
    """One condition and what came of it."""

    name: str
    outcome: Outcome


@dataclass(frozen=True)
class Controls:
    """The rows, of one vector in one layer with one coefficient; `seed` is that of the intervals."""

    vector: str
    layer: int
    coefficient: float
    rows: tuple[Control, ...]
    seed: int = 0

    def row(self, name: str) -> Control:
        """Raises SteeringError naming the rows that there are."""
        for row in self.rows:
            if row.name == name:
                return row
        raise SteeringError(f"no row {name!r}: expected one of {', '.join(row.name for row in self.rows)}")

    def interval(self, name: str, kind: Kind = "success") -> Interval:
        """A row's success, perplexity or well-formedness.

        Raises:
            SteeringError: there is no such row, or no metric of that kind.
        """
        return self.row(name).outcome.interval(kind, seed=self.seed)

    def over(self, name: str, of: str = VECTOR) -> Interval:
        """Success of one row (the vector's) minus that of another, paired over prompts.

        Raises:
            SteeringError: there is no such row.
        """
        pair = [self.row(each).outcome.quotient("success") for each in (of, name)]
        return difference(*pair, seed=self.seed)

    def table(self) -> list[dict[str, str | Interval]]:
        """A row a condition: its name and, each with its interval, success, perplexity, well-formedness if it was
        measured, and the vector's success minus this one's."""
        rows = []
        for row in self.rows:
            cells: dict[str, str | Interval] = {"condition": row.name, "success": self.interval(row.name)}
            cells["perplexity"] = self.interval(row.name, "perplexity")
            if row.outcome.wellformed is not None:
                cells["well formed"] = self.interval(row.name, "wellformed")
            rows.append({**cells, "vector - this": self.over(row.name)})
        return rows

    def __repr__(self) -> str:
        return f"<Controls of {self.vector}: {', '.join(f'{row.name} {self.interval(row.name)}' for row in self.rows)}>"

    def _repr_html_(self) -> str:
        rows = [[str(cell) for cell in row.values()] for row in self.table()]
        title = f"{self.vector}, layer {self.layer}, coefficient {self.coefficient:g} [95 % intervals over prompts]"
        return html_table(title, [*self.table()[0]], rows)

    def __str__(self) -> str:
        table = self.table()
        lines = [[*table[0]], *([str(cell) for cell in row.values()] for row in table)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        title = f"{self.vector}, layer {self.layer}, coefficient {self.coefficient:g} [95 % intervals over prompts]"
        return "\n".join([title, *(row.rstrip() for row in rows)])


def controls(
    model: Model,
    vector: SteeringVector,
    prompts: Sequence[str],
    metric: Metric,
    *,
    layer: int,
    coefficient: float,
    positions: Positions = EVERYWHERE,
    operation: Operation = "add",
    others: Sequence[SteeringVector] = (),
    prefix: str | None = None,
    n_random: int = 5,
    writing: Writing = GREEDY,
    wellformed: Metric | None = None,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> Controls:
    """Put a vector through its controls.

    Args:
        metric, wellformed: see `outcomes`.
        others: vectors of other things, of the same model.
        prefix: put in front of each prompt, as it stands, to name in words what the vector is about; perplexity is
            still measured behind the prompt alone.
        n_random: draws of random vectors, one row together.
        seed: of the random vectors and of the intervals.
        progress: called with the conditions done and the conditions in all.

    Raises:
        SteeringError: before anything is written, no prompts or draws, two vectors of one name, a vector that has not
            this layer or is of another model, a coefficient that is not finite; else as `generation.generate`.
    """
    if not prompts or n_random < 1:
        raise SteeringError(f"{len(prompts)} prompts, n_random={n_random}: expected at least one of each")
    one = vector.at(layer)
    steer = Steer(one, coefficient, layer, positions, operation)
    of_others = {other.name: replace(steer, vector=other.at(layer).scaled_like(one)) for other in others}
    taken = {UNSTEERED, VECTOR, RANDOM, LAST_LAYER, PROMPT_ONLY, PREFIX, BIAS_UNEMBEDDED, BIAS_MEAN}
    if len(of_others) != len(others) or taken & of_others.keys():
        raise SteeringError(
            f"other vectors {[other.name for other in others]}: expected names of their own, to tell their rows by"
        )
    random = [replace(steer, vector=random_like(one, seed=seed + draw)) for draw in range(n_random)]
    last = replace(steer, vector=replace(one.moved(layer, one.model.n_layers - 1), component="resid_post"), layers=None)
    by_position = one.directions[layer].ndim == 2
    in_prompt = replace(steer, positions=_Both(positions, PromptOnly(keep_last=True)))
    for each in (steer, *of_others.values()):
        check_fits(each, model.network)

    under = {
        VECTOR: [steer],
        RANDOM: random,
        **{name: [each] for name, each in of_others.items()},
        PROMPT_ONLY: [in_prompt],
        **({} if by_position else {LAST_LAYER: [last]}),
    }
    plain = [Condition(prompts)] if prefix is None else [Condition(prompts), Condition(prompts, prefix=prefix)]
    unsteered, *named = written_together(model, plain, writing)
    of_steers = iter(
        written_together(model, [Condition(prompts, [each]) for some in under.values() for each in some], writing)
    )
    texts = {name: [next(of_steers) for _ in some] for name, some in under.items()}
    texts |= {UNSTEERED: [unsteered], **({PREFIX: named} if named else {})}

    def outcome(name: str) -> Outcome:
        return together([measured(model, prompts, each, metric, wellformed=wellformed) for each in texts[name]])

    def biased(of: Steer) -> Outcome:
        rows = torch.arange(len(prompts)).repeat_interleave(writing.samples)
        bias = mean_effect(model, unsteered, [replace(of, positions=of.positions.of_rows(rows))])
        completions = written(model, prompts, writing, bias=bias)
        return measured(model, prompts, completions, metric, wellformed=wellformed)

    conditions: dict[str, Callable[[], Outcome]] = {
        name: partial(outcome, name) for name in (UNSTEERED, VECTOR, RANDOM, *of_others, PROMPT_ONLY)
    }
    conditions[BIAS_MEAN] = partial(biased, steer)
    if not by_position:
        conditions |= {LAST_LAYER: partial(outcome, LAST_LAYER), BIAS_UNEMBEDDED: partial(biased, last)}
    if named:
        conditions[PREFIX] = partial(outcome, PREFIX)
    rows = tuple(_run(conditions, progress))
    return Controls(vector.name, layer, coefficient, rows, seed)


def random_like(vector: SteeringVector, *, seed: int) -> SteeringVector:
    """Directions drawn evenly from all, with the norm of the vector's in every layer and position."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(direction: Tensor) -> Tensor:
        noise = torch.randn(direction.shape, generator=generator, dtype=torch.float64)
        noise = noise * (direction.double().norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True))
        found: Tensor = noise.to(direction.dtype)
        return found

    directions = {layer: drawn(vector.directions[layer].cpu()) for layer in vector.layers}
    return replace(vector, directions=directions, name=f"random (seed {seed})", facts={"random_like": vector.name})


@dataclass(frozen=True, eq=False)
class _Both(Positions):
    """Where both act."""

    one: Positions
    other: Positions

    def of(self, call: Call) -> bool | Bool[Tensor, "batch_or_1 pos"]:
        one, other = self.one.of(call), self.other.of(call)
        if isinstance(one, bool) or isinstance(other, bool):
            return other if one is True else one if other is True else False
        return one & other

    def of_rows(self, rows: Tensor, first: int = 0) -> Positions:
        return _Both(self.one.of_rows(rows, first), self.other.of_rows(rows, first))


def _run(conditions: dict[str, Callable[[], Outcome]], progress: Progress) -> Iterator[Control]:
    for done, (name, condition) in enumerate(conditions.items(), start=1):
        found = Control(name, condition())
        progress(done, len(conditions))
        yield found
