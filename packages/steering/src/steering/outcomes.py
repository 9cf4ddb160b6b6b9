"""What completions are like under one condition: a metric of one's own, fluency, and whether they are well formed.

A share alone says nothing: a vector that destroys the text can bring any word about. So every condition has, on the
same completions,

    success       mean of metric(text) over completions, the metric being the user's; NaN leaves a completion out
    perplexity    of the new tokens behind their prompts, under the unsteered model
    well formed   mean of another metric of the user's, such as the share of grammatical sentences

Intervals resample prompts, with all completions of each; with a single prompt they resample its completions, and then
say nothing of other prompts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interventions import Model
from steering.errors import SteeringError
from steering.fluency import completion_losses
from steering.generation import Completions, generate
from steering.intervals import Interval, Quotient, Transform
from steering.steering import Steer
from steering.texts import encode

Metric = Callable[[str], float]
"""From the text of a completion, without its prompt, to a number; NaN where there is nothing to measure."""

Kind = Literal["success", "perplexity", "wellformed"]


@dataclass(frozen=True)
class Writing:
    """How completions are written; see `generation`. The same seed under two conditions draws by the same numbers.

    Args:
        samples: completions of each prompt.

    Raises:
        SteeringError: several greedy completions of a prompt, which would all be the same.
    """

    max_new_tokens: int = 40
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    samples: int = 1
    seed: int = 0
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.samples < 1 or (self.samples > 1 and self.temperature == 0):
            raise SteeringError(
                f"samples={self.samples}, temperature={self.temperature:g}: expected 1 greedy completion of each "
                f"prompt, or several with a temperature above 0"
            )


GREEDY = Writing()


@dataclass(frozen=True)
class Outcome:
    """Measurements of completions; a draw is one of several vectors that stand for the same condition.

    `losses` are sums over the new tokens of a completion, nats; `texts` are in the order of the three dimensions.
    """

    texts: tuple[str, ...]
    values: Float[Tensor, "prompt sample draw"]
    losses: Float[Tensor, "prompt sample draw"]
    tokens: Float[Tensor, "prompt sample draw"]
    wellformed: Float[Tensor, "prompt sample draw"] | None = None

    def quotient(self, kind: Kind) -> Quotient:
        """What is averaged, by unit: a prompt, or a sample of the only prompt. Of perplexity, the mean loss.

        Raises:
            SteeringError: there is no metric of that kind.
        """
        if kind == "perplexity":
            found = Quotient(self.losses, self.tokens)
        elif kind == "success":
            found = Quotient.mean(self.values)
        elif self.wellformed is not None:
            found = Quotient.mean(self.wellformed)
        else:
            raise SteeringError("no well-formedness was measured: pass `wellformed` to what measures")
        return Quotient(_by_unit(found.numerator), _by_unit(found.denominator))

    def interval(self, kind: Kind, *, seed: int = 0, level: float = 0.95, resamples: int = 1000) -> Interval:
        """The estimate with its interval.

        Raises:
            SteeringError: as `quotient`; a level outside 0 to 1, or no resamples.
        """
        how = transform(kind)
        return self.quotient(kind).interval(seed=seed, level=level, resamples=resamples, transform=how)


def transform(kind: Kind) -> Transform:
    """What makes an estimate of a quotient: perplexity is the exponential of the mean loss."""
    return torch.exp if kind == "perplexity" else lambda x: x


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """Several draws as one condition, side by side.

    Raises:
        SteeringError: there is none.
    """
    if not outcomes:
        raise SteeringError("no outcomes: expected at least one")
    parts = {
        name: torch.cat([getattr(each, name) for each in outcomes], dim=2) for name in ("values", "losses", "tokens")
    }
    forms = [each.wellformed for each in outcomes if each.wellformed is not None]
    by_place = zip(*(each.texts for each in outcomes), strict=True)
    return Outcome(
        tuple(text for texts in by_place for text in texts),
        **parts,
        wellformed=torch.cat(forms, dim=2) if len(forms) == len(outcomes) else None,
    )


def written(
    model: Model,
    prompts: Sequence[str],
    writing: Writing,
    *,
    steers: Sequence[Steer] = (),
    prefix: str = "",
    bias: Float[Tensor, " d_vocab"] | None = None,
) -> Completions:
    """Completions of each prompt, as many as `writing.samples`, those of a prompt behind each other.

    Args:
        prefix: put in front of every prompt.
        bias: added to the logits of every step, as in `logit_bias`.

    Raises:
        SteeringError: as `generation.generate`.
    """
    rows = torch.arange(len(prompts)).repeat_interleave(writing.samples)
    return generate(
        model,
        [prefix + prompts[row] for row in rows.tolist()],
        steers=[replace(steer, positions=steer.positions.of_rows(rows)) for steer in steers],
        max_new_tokens=writing.max_new_tokens,
        temperature=writing.temperature,
        top_k=writing.top_k,
        top_p=writing.top_p,
        seed=writing.seed,
        batch_size=writing.batch_size,
        bias=bias,
    )


def measured(
    model: Model,
    prompts: Sequence[str],
    completions: Completions,
    metric: Metric,
    *,
    wellformed: Metric | None = None,
    batch_size: int = 16,
) -> Outcome:
    """What completions of these prompts are like; the model runs unsteered.

    Args:
        prompts: what new tokens are taken to follow when their perplexity is measured, whatever they were written
            behind.

    Raises:
        SteeringError: the completions are not as many for each prompt, or a metric gives no number.
    """
    samples, rest = divmod(len(completions), max(1, len(prompts)))
    if rest or not samples:
        raise SteeringError(f"{len(completions)} completions of {len(prompts)} prompts: expected as many for each")
    rows = [encode(model, prompt, allow_empty=True) for prompt in prompts for _ in range(samples)]
    losses = completion_losses(model, rows, completions.new_tokens, batch_size=batch_size)

    def shaped(numbers: Tensor) -> Tensor:
        return numbers.view(len(prompts), samples, 1)

    return Outcome(
        completions.texts,
        shaped(_values(metric, completions.texts, "metric")),
        shaped(losses.sums),
        shaped(losses.tokens),
        None if wellformed is None else shaped(_values(wellformed, completions.texts, "wellformed")),
    )


def contains(words: Iterable[str]) -> Metric:
    """1 for a text with at least one of the words, else 0, as Turner et al. 2023 score topics.

    Whole words, in either case; a word may be a phrase.

    Raises:
        SteeringError: there is no word.
    """
    wanted = [re.escape(word.strip()) for word in words if word.strip()]
    if not wanted:
        raise SteeringError("no words: expected at least one that a completion may contain")
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(wanted)})(?!\w)", re.IGNORECASE)
    return lambda text: float(pattern.search(text) is not None)


def _values(metric: Metric, texts: Sequence[str], name: str) -> Float[Tensor, " text"]:
    values = [float(metric(text)) for text in texts]
    if infinite := [text for text, value in zip(texts, values, strict=True) if math.isinf(value)]:
        raise SteeringError(
            f"{name} is infinite for {infinite[0][:40]!r}: expected a finite number, or NaN for a text in which there "
            f"is nothing to measure"
        )
    return torch.tensor(values, dtype=torch.float64)


def _by_unit(numbers: Float[Tensor, "prompt sample draw"]) -> Float[Tensor, " unit"]:
    return numbers.sum(dim=(1, 2)) if len(numbers) > 1 else numbers[0].sum(dim=1)
