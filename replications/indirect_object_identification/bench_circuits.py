"""How circuits are validated and found, as parts of the benchmark: by the stages and by plain hooks (`plain_circuits`).

    means over p_ABC; faithfulness and completeness of a circuit and of a naive one, minimality of the first
    integrated gradients of mean ablation, and the elimination

The engine measures whatever circuits the stages ask for, and keeps which these are. Plain hooks measure the same ones,
each once a part, however often it is asked for.

What an elimination measures depends on what it finds, and in random weights no circuit is to be found. So it goes as in
a model that needs every head of the published circuit, and ranks them as every other one of the first heads; the
circuits on the way are measured all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from random import Random

import torch
from jaxtyping import Float
from replications.indirect_object_identification import (
    circuit as circuits,
)
from replications.indirect_object_identification import (
    discovery,
    discovery_stages,
    drawing_prompts,
    plain_circuits,
    validation_stages,
)
from replications.indirect_object_identification.ablation import BUDGET, Ablation, Means
from replications.indirect_object_identification.bench_search import Part, Values, by_head, job_of
from replications.indirect_object_identification.circuit import Circuit, Head, Nodes
from replications.indirect_object_identification.grouping import Progress
from replications.indirect_object_identification.measured_circuits import EFFORT, Effort, all_heads, nodes_of
from replications.indirect_object_identification.plain_patching import Network
from replications.indirect_object_identification.positions import IOIPrompts, Layout
from replications.indirect_object_identification.setting import SCORES, SEARCH, Setting
from torch import Tensor

MISSED = 0.05
NodesKey = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Recorded(Ablation):
    """An ablation that keeps what it was asked for: `asked` has the differences [prompt] by nodes."""

    asked: dict[NodesKey, Tensor] = field(default_factory=dict)

    def logit_differences(
        self, circuits: Sequence[Nodes], *, budget: int = BUDGET, progress: Progress = lambda done, total: None
    ) -> Float[Tensor, "prompt circuit"]:
        found = super().logit_differences(circuits, budget=budget, progress=progress)
        keys = (tuple(map(tuple, nodes.tolist())) for nodes in circuits)
        self.asked.update(zip(keys, found.unbind(dim=1), strict=True))
        return found


@dataclass(frozen=True)
class Validation:
    """The parts on a GPT-2, for a circuit and a naive one."""

    setting: Setting
    circuit: Circuit
    naive: Circuit

    def parts(self) -> Iterator[Part]:
        yield self._mean_z()
        yield self._asked("faithfulness", self._faithfulness)
        yield self._asked("completeness", self._completeness)
        yield self._asked("minimality", self._minimality)
        yield self._gradients()
        yield self._asked("elimination", self._elimination)

    def _mean_z(self) -> Part:
        def engine() -> Values:
            means = Means.over(self.setting.model.network, self._abc, self.setting.trials.batch)
            z = means.z.flatten(3)
            return {layout: z[at, :, -layout.length :] for at, layout in enumerate(means.layouts)}

        def plain(cells: Sequence[Layout]) -> list[Tensor]:
            means = plain_circuits.means(self._network, self._abc)
            return [means[cell] for cell in cells]

        return Part("means over p_ABC", engine, plain, lambda cells: sum(map(len, self._abc)), every=1)

    def _gradients(self) -> Part:
        prompts, steps, n_layers = self._ablation("searched"), self._effort.steps, self.setting.n_layers

        def engine() -> Values:
            return by_head(discovery_stages.attributions(prompts, steps, job_of(self.setting)))

        def plain(cells: Sequence[Head]) -> list[Tensor]:
            found = by_head(self._plain["searched"].gradients(steps))
            return [found[cell] for cell in cells]

        there_and_back = 1.5  # parameters get no gradients, and of the layers half do, on average
        cost = there_and_back * len(prompts.prompts) * steps * n_layers
        return Part("integrated gradients", engine, plain, lambda cells: cost, every=1)

    def _asked(self, name: str, run: Callable[[Recorded, Recorded], object]) -> Part:
        """What `run` asks of the prompts that circuits are scored on, and of those that choices are made on."""

        def engine() -> Values:
            asked = {kind: self._ablation(kind) for kind in self._prompts}
            run(asked["scored"], asked["searched"])
            return {(kind, nodes): values for kind, of in asked.items() for nodes, values in of.asked.items()}

        def plain(cells: Sequence[tuple[str, NodesKey]]) -> list[Tensor]:
            return [self._plain[kind].differences([torch.tensor(nodes)])[0] for kind, nodes in cells]

        def cost(cells: Sequence[tuple[str, NodesKey]]) -> float:
            return sum(len(self._prompts[kind]) for kind, _ in cells)

        return Part(name, engine, plain, cost)

    def _faithfulness(self, scored: Recorded, searched: Recorded) -> None:
        setting, random = self.setting, Random("faithfulness")
        model, nodes = circuits.whole(setting.n_layers, setting.n_heads), nodes_of(setting, self.circuit)
        draws = [validation_stages.in_same_roles(self.circuit, setting, random) for _ in range(self._effort.draws)]
        kept = [nodes_of(setting, each) for each in (self.naive, self.circuit.everywhere(), *draws)]
        complement = circuits.without(model, self.circuit.heads, nodes)
        scored.logit_differences([model, nodes, complement, torch.zeros_like(model), *kept])

    def _completeness(self, scored: Recorded, searched: Recorded) -> None:
        asked = []
        for circuit in (self.circuit, self.naive):
            random = Random(f"completeness/{circuit.name}")
            drawn = [validation_stages.drawn_subset(circuit, random) for _ in range(self.setting.trials.subsets)]
            greedy = validation_stages.greedy_subsets(searched, circuit, self.setting, random)
            asked.append((circuit, [(), *circuit.roles.values(), *drawn, *greedy]))
        validation_stages.both(scored, self.setting, asked)

    def _minimality(self, scored: Recorded, searched: Recorded) -> None:
        """Every K of every head is searched, and of each head the last one scored, whichever shows it most."""
        nodes = nodes_of(self.setting, self.circuit)
        options = {head: validation_stages.options_of(self.circuit, head) for head in self.circuit.heads}
        every = [(head, subset) for head, subsets in options.items() for _, subset in subsets]
        validation_stages.with_and_without(searched, nodes, every)
        validation_stages.with_and_without(scored, nodes, [(head, of[-1][1]) for head, of in options.items()])

    def _elimination(self, scored: Recorded, searched: Recorded) -> None:
        """As the stage does it where faithfulness falls by MISSED with each head of the circuit that is gone."""
        effort, heads, needed = self._effort, all_heads(self.setting), set(self.circuit.heads)
        order = interleaved(self.circuit.heads, [head for head in heads if head not in needed])

        def measure(sets: Sequence[frozenset[Head]]) -> list[float]:
            if sets:
                discovery_stages.differences(searched, self.setting, sets)
            return [1 - MISSED * len(needed - of) for of in sets]

        start = len(heads)
        if len(heads) > effort.all_of:
            sizes = [size for size in discovery.sizes_to_measure(len(heads)) if size]
            start = discovery.shortest_faithful(measure, order, sizes, discovery_stages.FLOOR)
        discovery.eliminate(measure, order[:start], discovery_stages.FLOOR, effort.at_once)
        discovery.grow(measure, order[: effort.among], discovery_stages.FLOOR, effort.grown)

    def _ablation(self, kind: str) -> Recorded:
        return Recorded(self.setting.model.network, self._prompts[kind], self._means)

    @property
    def _effort(self) -> Effort:
        return EFFORT[self.setting.tier]

    @cached_property
    def _network(self) -> Network:
        return Network(self.setting.model.network)

    @cached_property
    def _prompts(self) -> Mapping[str, IOIPrompts]:
        trials = self.setting.trials
        return {
            "scored": self.setting.clean(trials.validated, SCORES),
            "searched": self.setting.clean(min(self._effort.search, trials.search), SEARCH),
        }

    @cached_property
    def _abc(self) -> tuple[IOIPrompts, ...]:
        """The sentences of p_ABC of all prompts."""
        setting = self.setting
        return tuple(
            setting.tokenized(drawing_prompts.abc(of.sentences, setting.seed)) for of in self._prompts.values()
        )

    @cached_property
    def _means(self) -> Means:
        return Means.over(self.setting.model.network, self._abc, self.setting.trials.batch)

    @cached_property
    def _plain(self) -> Mapping[str, plain_circuits.Circuits]:
        means = plain_circuits.means(self._network, self._abc)
        return {kind: plain_circuits.Circuits(self._network, prompts, means) for kind, prompts in self._prompts.items()}


def interleaved(first: Sequence[Head], others: Sequence[Head]) -> list[Head]:
    """One of the first, one of the others, and so on; what is left of either at the end."""
    both = [head for pair in zip(first, others, strict=False) for head in pair]
    return [*both, *first[len(others) :], *others[len(first) :]]
