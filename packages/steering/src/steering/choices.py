"""Questions with two options: how likely the answer that matches a behaviour is, against the multiplier.

    p(match) = p(letter of the matching option) / (p(A) + p(B))        (Rimsky et al. 2024, section 4)

at the token behind a question's text. A model that has not learnt to answer with letters gives numbers here all the
same, and a vector that is only about letters moves them. Hence:

- the gate: unsteered, the model must answer such questions right (at least 0.9 of them) in both orders of the options,
  and reversed ones too, before p(match) under a vector means anything (`Answers.gate`);
- a question is asked with its options in both orders (`both_orders`), so that a liking for a letter cancels, and may be
  reversed ("Does she dislike it?"), so that the answer that matches the behaviour is the other one;
- `mass` is p(A) + p(B): where it is small the letters are not what the model would write.

Intervals resample items: the forms of one question are one item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from interventions import Model
from steering.batches import in_batches
from steering.errors import SteeringError
from steering.grids import Progress, run_cells, stacked, steers_of
from steering.intervals import Interval, Quotient
from steering.passes import passes_of
from steering.positions import AfterPrompt, Positions
from steering.questions import EncodedQuestions, Question, encode_questions, items
from steering.steering import Operation, Steer
from steering.vectors import SteeringVector

GATE = 0.9
AT_LETTER = AfterPrompt()  # the last token of the text, whose output is the letter


@dataclass(frozen=True)
class GateRow:
    """Accuracy of the unsteered model on one form of questions."""

    swapped: bool
    reversed: bool
    accuracy: Interval

    def __str__(self) -> str:
        return (
            f"{'reversed' if self.reversed else 'as is'}, {'swapped' if self.swapped else 'in order'}: {self.accuracy}"
        )


@dataclass(frozen=True)
class Gate:
    """Passed if the model answers each form of the questions right at least so often."""

    rows: tuple[GateRow, ...]
    at_least: float

    @property
    def passed(self) -> bool:
        return all(row.accuracy.estimate >= self.at_least for row in self.rows)

    def __str__(self) -> str:
        return "; ".join(map(str, self.rows)) + f"; at least {self.at_least:g}: {'passed' if self.passed else 'FAILED'}"


@dataclass(frozen=True)
class Answers:
    """`p` is p(match) of every question, `mass` p(A) + p(B)."""

    questions: tuple[Question, ...]
    p: Float[Tensor, " question"]
    mass: Float[Tensor, " question"]

    def where(self, *, swapped: bool | None = None, reversed: bool | None = None) -> Answers:
        """Those to some forms of the questions.

        Raises:
            SteeringError: there is none of that form.
        """
        kept = [
            place
            for place, question in enumerate(self.questions)
            if (swapped is None or question.swapped == swapped) and (reversed is None or question.reversed == reversed)
        ]
        if not kept:
            raise SteeringError(f"no question with swapped={swapped}, reversed={reversed}: expected at least one")
        return Answers(tuple(self.questions[place] for place in kept), self.p[kept], self.mass[kept])

    @property
    def quotient(self) -> Quotient:
        """Mean of p(match), by item."""
        return self._by_item(self.p)

    def interval(self, *, seed: int = 0, level: float = 0.95, resamples: int = 1000) -> Interval:
        """Mean of p(match), items resampled.

        Raises:
            SteeringError: a level outside 0 to 1, or no resamples.
        """
        return self.quotient.interval(seed=seed, level=level, resamples=resamples)

    def gate(self, *, at_least: float = GATE, seed: int = 0) -> Gate:
        """Whether the questions are answered right, form by form; an even p is wrong.

        Raises:
            SteeringError: a question whose right answer is not known.
        """
        if unknown := [question for question in self.questions if question.right is None]:
            raise SteeringError(
                f"{len(unknown)} questions without `right`, such as {unknown[0].text[-40:]!r}: expected the right "
                f"answer of each; give it, or judge the model by other questions"
            )
        rows = []
        for form in sorted({(question.reversed, question.swapped) for question in self.questions}):
            some = self.where(reversed=form[0], swapped=form[1])
            p = [(p if q.right == q.matching else 1 - p) for p, q in zip(some.p.tolist(), some.questions, strict=True)]
            accuracy = some._by_item((torch.tensor(p) > 0.5).double())
            rows.append(GateRow(form[1], form[0], accuracy.interval(seed=seed)))
        return Gate(tuple(rows), at_least)

    def _by_item(self, values: Float[Tensor, " question"]) -> Quotient:
        index = torch.tensor(items(self.questions))
        nothing = torch.zeros(int(index.max()) + 1, dtype=torch.float64)
        values = values.double()
        return Quotient(nothing.index_add(0, index, values), nothing.index_add(0, index, torch.ones_like(values)))


@dataclass(frozen=True)
class ChoiceSweep:
    """Answers by layer and multiplier, `cells[layer][multiplier]`, and without the vector."""

    vector: str
    layers: tuple[int, ...]
    multipliers: tuple[float, ...]
    plain: Answers
    cells: tuple[tuple[Answers, ...], ...]

    @property
    def axes(self) -> tuple[str, str]:
        return ("layer", "multiplier")

    def where(self, *, swapped: bool | None = None, reversed: bool | None = None) -> ChoiceSweep:
        """The same on some forms of the questions.

        Raises:
            SteeringError: there is none of that form.
        """
        cells = tuple(tuple(cell.where(swapped=swapped, reversed=reversed) for cell in row) for row in self.cells)
        return replace(self, plain=self.plain.where(swapped=swapped, reversed=reversed), cells=cells)

    def mean(self) -> Float[Tensor, "layer multiplier"]:
        """Mean of p(match)."""
        return self._quotient.estimate()

    def mass(self) -> Float[Tensor, "layer multiplier"]:
        """Mean of p(A) + p(B)."""
        return torch.stack([torch.stack([cell.mass.double().mean() for cell in row]) for row in self.cells])

    def ends(
        self, *, seed: int = 0, level: float = 0.95, resamples: int = 1000
    ) -> tuple[Float[Tensor, "layer multiplier"], Float[Tensor, "layer multiplier"]]:
        """Ends of the intervals of the mean, the same items resampled in all cells.

        Raises:
            SteeringError: a level outside 0 to 1, or no resamples.
        """
        return self._quotient.ends(seed=seed, level=level, resamples=resamples)

    @property
    def _quotient(self) -> Quotient:
        return stacked([[cell.quotient for cell in row] for row in self.cells])


def answers(
    model: Model,
    questions: Sequence[Question] | EncodedQuestions,
    *,
    steers: Sequence[Steer] = (),
    batch_size: int = 16,
) -> Answers:
    """p(match) and p(A) + p(B) of each question, in one pass over them.

    Args:
        questions: or what `encode_questions` made of them, where they are asked several times.

    Raises:
        SteeringError: no questions, or letters that are not two different tokens behind a text.
    """
    return answers_under(model, questions, [steers], batch_size=batch_size)[0]


def answers_under(
    model: Model,
    questions: Sequence[Question] | EncodedQuestions,
    conditions: Sequence[Sequence[Steer]],
    *,
    batch_size: int = 16,
) -> list[Answers]:
    """`answers` under each of several conditions; what no vector of any of them touches is run once for all.

    Raises:
        SteeringError: as `answers`.
    """
    asked = questions if isinstance(questions, EncodedQuestions) else encode_questions(model, questions)
    p, mass = torch.empty(len(conditions), len(asked)), torch.empty(len(conditions), len(asked))
    passes = passes_of(model)
    for batch in in_batches(asked.rows, batch_size):
        places = list(batch.rows)
        letters = torch.tensor([asked.letters[row] for row in places])
        here = [[*map(batch.of, steers)] for steers in conditions]
        matching = torch.tensor([asked.questions[row].matching for row in places])[:, None]
        for number, log_p in enumerate(passes.behind_each([asked.rows[row] for row in places], letters, here)):
            match, other = log_p.gather(1, matching)[:, 0], log_p.gather(1, 1 - matching)[:, 0]
            p[number, places], mass[number, places] = torch.sigmoid(match - other), log_p.exp().sum(dim=1)
    return [Answers(asked.questions, *of) for of in zip(p, mass, strict=True)]


def choice_sweep(
    model: Model,
    questions: Sequence[Question],
    vector: SteeringVector,
    *,
    multipliers: Sequence[float],
    layers: Sequence[int] | None = None,
    positions: Positions = AT_LETTER,
    operation: Operation = "add",
    batch_size: int = 16,
    progress: Progress = lambda done, total: None,
) -> ChoiceSweep:
    """Answers in every cell; the vector acts in one layer at a time.

    Args:
        positions: by default the last token of a question's text. Rimsky et al. act from the end of the instruction
            on: `AfterPrompt(length)` with its tokens.
        progress: called with the cells done and the cells in all, that without the vector included.

    Raises:
        SteeringError: before anything runs, no layers or multipliers, or one of them twice, a layer that the vector
            does not have, or a multiplier that is not finite; else as `answers`.
    """
    steers = steers_of(vector, layers, multipliers, positions, operation)
    asked = encode_questions(model, questions)

    def run(some: tuple[Steer, ...]) -> Answers:
        return answers(model, asked, steers=some, batch_size=batch_size)

    plain, cells = run_cells(run, steers, progress)
    chosen = vector.layers if layers is None else tuple(layers)
    return ChoiceSweep(vector.name, chosen, tuple(multipliers), plain, cells)
