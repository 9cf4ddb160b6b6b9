"""The benchmark `reprise bench ioi`: the analysis at GPT-2 small's shapes, beside the same one by plain hooks.

Its parts are those of `bench_search` and `bench_circuits`, on 100 prompts (fewer where the paper tier takes fewer) and
random weights. The engine does all of each. Plain hooks are timed on evenly spread cells where all would take long, and
their rows say which share of the passes that is; what they record once for all cells is not counted. The engine, whose
parts share their recordings as stages do, records in the first part that patches, and is counted there.

Before a part is timed both ways are compared on these cells, and the largest difference is told on stderr: they are the
same numbers, or there is no benchmark. With `--repeats 1` the engine does the analysis twice: to compare, and to be
timed. The whole is the sum of the parts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from replications.indirect_object_identification import positions, templates
from replications.indirect_object_identification.bench_circuits import Validation
from replications.indirect_object_identification.bench_search import Part, Search
from replications.indirect_object_identification.circuit import GPT2_SMALL, NAIVE_GPT2_SMALL, Circuit
from replications.indirect_object_identification.material import PAPER, material_for
from replications.indirect_object_identification.setting import TRIALS, Setting

from interventions import Model, Recordings
from reprise.benchmarks import Row, peak_mib
from zoo import words

T = TypeVar("T")
PROMPTS = 100
GAIN = 4.0
TOLERANCE = 1e-3  # of the largest value
WHOLE = "the whole analysis"
PLAIN, ENGINE = "{}, plain hooks".format, "{}, engine".format


class Words:
    """A tokenizer with a token for every word of the paper tier."""

    def __init__(self) -> None:
        texts = (*templates.TEMPLATES, *templates.REMARKS, positions.BEHIND)
        known = (*templates.NAMES, *templates.PLACES, *templates.OBJECTS)
        self._tokenizer = words.build([*(re.sub(r"\{\w\}", " ", text) for text in texts), *known])

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)

    def decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens))


@dataclass(frozen=True)
class Compared:
    """A part of which both ways were run: `cells` are those of plain hooks, `passes` what these and all cells cost.

    `difference` is the largest one, of values of at most `largest`; memory is that of the first calls.
    """

    part: Part
    cells: Sequence[Any]
    passes: tuple[float, float]
    difference: float
    largest: float
    engine_mib: float
    plain_mib: float

    @classmethod
    def of(cls, part: Part) -> Compared:
        """Raises RuntimeError where the two ways differ."""
        values, engine_mib = _first(part.engine)
        every = list(values)
        cells = every[min(part.every // 2, len(every) - 1) :: part.every]
        expected, plain_mib = _first(lambda: part.plain(cells))
        gaps = [(values[cell] - each).abs().max() for cell, each in zip(cells, expected, strict=True)]
        difference = float(torch.stack(gaps).max())  # NaN where one is NaN
        largest = max(float(each.abs().max()) for each in expected)
        if not difference <= TOLERANCE * largest:
            raise RuntimeError(
                f"{part.name}: engine and plain hooks differ by {difference:.2g}, expected at most {TOLERANCE} of the "
                f"largest value, {largest:.2g}; one of them is wrong, compare them cell by cell"
            )
        return cls(part, cells, (part.cost(cells), part.cost(every)), difference, largest, engine_mib, plain_mib)

    @property
    def told(self) -> str:
        return (
            f"{self.part.name}: the two ways differ by {self.difference:.1e} at most, of values up to "
            f"{self.largest:.1e}, on {len(self.cells)} cells"
        )

    def plain(self) -> object:
        return self.part.plain(self.cells)


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def rows(parts: Iterable[Part] | None = None, tell: Callable[[str], object] = _tell) -> Iterator[Row]:
    """The rows, by default of the parts at GPT-2 small's shape; `tell` gets a line of each part's comparison.

    Raises:
        RuntimeError: the two ways differ.
    """
    compared = []
    for part in gpt2_small() if parts is None else parts:
        compared.append(Compared.of(part))
        tell(compared[-1].told)
        yield from _both(compared[-1])
    plain, engine = (tuple(name(each.part.name) for each in compared) for name in (PLAIN, ENGINE))
    yield PLAIN(WHOLE), None, plain
    yield ENGINE(WHOLE), PLAIN(WHOLE), engine


BENCHES = {"ioi": rows}


def gpt2_small() -> Iterator[Part]:
    """On a random network; at its initial weights heads attend to all tokens alike, and hardly any would matter."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    network = GPT2LMHeadModel(GPT2Config())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(GAIN if parameter.ndim > 1 else 1.0)
    return parts_of(setting_of(network, PROMPTS), GPT2_SMALL, NAIVE_GPT2_SMALL)


def parts_of(setting: Setting, circuit: Circuit, naive: Circuit) -> Iterator[Part]:
    """The whole analysis."""
    yield from Search(setting, circuit).parts()
    yield from Validation(setting, circuit, naive).parts()


def setting_of(network: Any, prompts: int) -> Setting:
    """The paper tier of a GPT-2 with `Words`, at most so many prompts in a part; its parameters get no gradients."""
    model = Model("random", network.eval().requires_grad_(False), Words(), None)
    limited = ("search", "paths", "inner_paths", "everywhere", "validated")
    trials = {name: min(prompts, getattr(TRIALS[PAPER], name)) for name in limited}
    chosen = replace(TRIALS[PAPER], **trials)
    return Setting(model, material_for(model, PAPER), chosen, PAPER, 0, Recordings(model.network))


def _both(compared: Compared) -> Iterator[Row]:
    """The rows of a part."""
    some, all_of = compared.passes
    name, part = compared.part.name, compared.part
    yield PLAIN(name), None, compared.plain, {"sampled": some / all_of, "peak_mib": compared.plain_mib}
    yield ENGINE(name), PLAIN(name), part.engine, {"peak_mib": compared.engine_mib}


def _first(call: Callable[[], T]) -> tuple[T, float]:
    """What a call gives, and its memory in MiB."""
    found: list[T] = []
    peak = peak_mib(lambda: found.append(call()))
    return found[0], peak
