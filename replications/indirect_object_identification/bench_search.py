"""How heads are found, as parts of the benchmark: each by the engine's stages and by plain hooks (`plain_patching`).

    direct attribution; patching of the stream, of heads and of attention; path patching to the logits and backwards

The stages' own functions run with the stages' arguments; the model is not loaded anew for each. Path patching goes back
from the heads of a circuit that is given, so that the work does not depend on what random weights do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxtyping import Float
from replications.indirect_object_identification import patching_stages, plain_circuits
from replications.indirect_object_identification.attribution_stages import attributed
from replications.indirect_object_identification.circuit import INDUCTION, INHIBITION, MOVERS, WORDS, Circuit, Head
from replications.indirect_object_identification.path_stages import paths
from replications.indirect_object_identification.plain_patching import Network, Patching, Projection
from replications.indirect_object_identification.positions import IOIPrompts
from replications.indirect_object_identification.setting import Setting
from torch import Tensor

from interventions import FinalStream, HeadInputs
from reprise import Job, Results

EVERY = 23  # shares no divisor with the number of heads, so that cells are of all heads alike
Values = Mapping[Any, Tensor]


@dataclass(frozen=True)
class Part:
    """A part of the analysis in two ways.

    Args:
        engine: the values of all cells.
        plain: those of some cells, in their order.
        cost: of some cells by plain hooks, in prompts that go through the model once.
        every: plain hooks are timed on one cell in so many.
    """

    name: str
    engine: Callable[[], Values]
    plain: Callable[[Sequence[Any]], Sequence[Tensor]]
    cost: Callable[[Sequence[Any]], float]
    every: int = EVERY


@dataclass(frozen=True)
class Search:
    """The parts on a GPT-2; `circuit` has the heads that path patching goes back from."""

    setting: Setting
    circuit: Circuit

    def parts(self) -> Iterator[Part]:
        trials = self.setting.trials
        search, few = self._patching[trials.search], self._patching[trials.everywhere]
        ends, inner = self._patching[trials.paths], self._patching[trials.inner_paths]
        yield self._attribution(search.clean)
        yield self._stream(search)
        yield self._heads("heads at END", search, patching_stages.HEADS, search.heads)
        yield self._heads("heads at all tokens", few, patching_stages.HEADS_EVERYWHERE, few.heads_everywhere)
        yield self._heads("attention from END", search, patching_stages.PATTERNS, search.patterns)
        yield self._to_logits(ends)
        yield self._back("queries of the movers", ends, MOVERS, ("q",), "END")
        yield self._back("keys and values of S-inhibition", inner, INHIBITION, ("k", "v"), "S2")
        yield self._back("keys of the induction heads", inner, INDUCTION, ("k",), "S1+1")

    def _attribution(self, prompts: IOIPrompts) -> Part:
        def engine() -> Values:
            values, labels = attributed(self.setting, prompts, job_of(self.setting))
            return {label: values[:, at] for at, label in enumerate(labels) if label != "embed"}

        def plain(cells: Sequence[str]) -> list[Tensor]:
            found = plain_circuits.attributions(self._network, prompts)
            return [found[cell] for cell in cells]

        return Part("direct attribution", engine, plain, lambda cells: len(prompts), every=1)

    def _stream(self, of: Patching) -> Part:
        def engine() -> Values:
            if self.setting.recordings:
                self.setting.recordings.clear()  # so that what the parts record is counted, once
            effects = patching_stages.stream_effects(self.setting, of.clean, of.abc).effects
            layers = range(self.setting.n_layers)
            return {(word, layer): effects[:, at, layer] for at, word in enumerate(WORDS) for layer in layers}

        return Part("patching the stream at words", engine, of.stream, lambda cells: len(of.clean) * len(cells))

    def _heads(
        self, what: str, of: Patching, sweep: patching_stages.Sweep, plain: Callable[[Sequence[Head]], list[Tensor]]
    ) -> Part:
        def engine() -> Values:
            return by_head(patching_stages.effects_of(self.setting, of.clean, of.abc, sweep).effects)

        return Part(f"patching {what}", engine, plain, lambda cells: len(of.clean) * len(cells))

    def _to_logits(self, of: Patching) -> Part:
        def engine() -> Values:
            return by_head(paths(self.setting, of.clean, of.abc, FinalStream(), "END").effects)

        return Part("paths to the logits", engine, of.paths_to_logits, lambda cells: len(of.clean) * len(cells))

    def _back(self, what: str, of: Patching, role: str, into: Sequence[Projection], word: str) -> Part:
        """From all heads before receivers; the first of two passes by plain hooks goes up to these alone."""
        receivers = self.circuit.roles[role]
        top = max(layer for layer, _ in receivers)

        def engine() -> Values:
            found: dict[tuple[str, Head], Tensor] = {}
            for each in into:
                inputs = HeadInputs(receivers, each)
                values = by_head(paths(self.setting, of.clean, of.abc, inputs, word).effects)
                found |= {(each, head): value for head, value in values.items() if head[0] < top}
            return found

        def plain(cells: Sequence[tuple[Projection, Head]]) -> list[Tensor]:
            return [of.paths_to_inputs([head], receivers, each, word)[0] for each, head in cells]

        passes = 1 + top / self.setting.n_layers
        return Part(f"paths to {what}", engine, plain, lambda cells: passes * len(of.clean) * len(cells))

    @cached_property
    def _network(self) -> Network:
        return Network(self.setting.model.network)

    @cached_property
    def _patching(self) -> Mapping[int, Patching]:
        """By number of prompts."""
        trials = self.setting.trials
        sizes = {trials.search, trials.everywhere, trials.paths, trials.inner_paths}
        return {n: Patching(self._network, *self.setting.pair(n)) for n in sizes}


def by_head(effects: Float[Tensor, "prompt layer head"]) -> dict[Head, Tensor]:
    """[prompt] by (layer, head)."""
    _, n_layers, n_heads = effects.shape
    return {(layer, head): effects[:, layer, head] for layer in range(n_layers) for head in range(n_heads)}


def job_of(setting: Setting) -> Job:
    """A job to tell progress to."""
    return Job(Path(), setting.tier, setting.seed, "cpu", "float32", (), Results(setting.tier, setting.seed, {}))
