"""Mean ablation by template: every node outside of a circuit gives what it gives on average over p_ABC.

    z_h := mean over p_ABC of z_h            outside of the circuit, at every token on its own
    F(C) = E[logit(IO) - logit(S)]           of the model so ablated, at END

(Wang et al. 2022, section 4.) The mean is over the sentences of p_ABC that are laid out as the prompt is: one template,
one order of the names, one number of tokens, the names at the same places, so that tokens correspond. MLPs, embeddings
and norms are never ablated, they read what the ablated heads write.

Many circuits are measured together (`circuit_rows`); `edits` does one of them by ordinary hooks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from jaxtyping import Bool, Float, Int
from replications.indirect_object_identification.circuit import ELSEWHERE, EVERYWHERE, WORDS, Nodes
from replications.indirect_object_identification.circuit_rows import Choose, Plan, choose, run_rows
from replications.indirect_object_identification.grouping import Group, Progress, by_prompt, groups_of
from replications.indirect_object_identification.positions import IOIPrompts, Layout
from torch import Tensor, nn

from interventions import Site, values_of
from interventions.hooks import Modules
from interventions.memory import branch_bytes
from interventions.network import inference, unembed_columns

BUDGET = 2**28  # bytes that the rows of one pass take, about


@dataclass(frozen=True)
class Means:
    """The mean of every head's z over p_ABC, of each layout and token; tokens end together, as prompts do."""

    layouts: tuple[Layout, ...]
    z: Float[Tensor, "layout layer pos head d_head"]

    @classmethod
    def over(cls, network: nn.Module, prompts: Sequence[IOIPrompts], batch: int = 100) -> Means:
        """Over all sentences of p_ABC that are given.

        Raises:
            ValueError: none is given.
        """
        if not prompts:
            raise ValueError("means over no prompts: expected sentences of p_ABC; draw some")
        layers = range(len(Modules(network)))
        sums: dict[Layout, Tensor] = {}
        counts: dict[Layout, int] = {}
        for each in prompts:
            for group in groups_of(each):
                for rows in torch.split(group.rows, batch):
                    seen = values_of(network, replace(group, rows=rows).of(each), "z", layers)
                    z = torch.stack([seen[layer] for layer in layers], dim=1).float().cpu()
                    for at in torch.unique(each.templates[rows]).tolist():
                        mine, layout = z[each.templates[rows] == at], each.layouts[at]
                        sums[layout] = mine.sum(dim=0) + sums.get(layout, 0)
                        counts[layout] = counts.get(layout, 0) + len(mine)
        longest = max(layout.length for layout in sums)
        means = torch.zeros(len(sums), len(layers), longest, *next(iter(sums.values())).shape[2:])
        for at, (layout, total) in enumerate(sums.items()):
            means[at, :, longest - layout.length :] = total / counts[layout]
        return cls(tuple(sums), means)

    def of(self, prompts: IOIPrompts) -> Int[Tensor, " prompt"]:
        """The place of each prompt's layout.

        Raises:
            ValueError: no sentence of p_ABC is laid out as a prompt is.
        """
        place = {layout: at for at, layout in enumerate(self.layouts)}
        for row, at in enumerate(prompts.templates.tolist()):
            if prompts.layouts[at] not in place:
                raise ValueError(
                    f"prompt {row} ({prompts.sentences[row].text!r}) is laid out as none of the {len(place)} layouts "
                    f"that means are over: expected its template, order and tokens among them; add its p_ABC sentence"
                )
        places = torch.tensor([place.get(layout, 0) for layout in prompts.layouts])
        return places[prompts.templates]


@dataclass(frozen=True)
class Ablation:
    """Prompts of which the nodes outside of circuits are ablated."""

    network: nn.Module
    prompts: IOIPrompts
    means: Means

    def logit_differences(
        self, circuits: Sequence[Nodes], *, budget: int = BUDGET, progress: Progress = lambda done, total: None
    ) -> Float[Tensor, "prompt circuit"]:
        """logit(IO) - logit(S) of every prompt with all outside of each circuit ablated, float32, on the CPU.

        Args:
            circuits: what each keeps, `Circuit.nodes`; `circuit.whole` keeps all: the model itself.
            budget: bytes that the rows of one pass may take, about.
            progress: called with the prompts done and the prompts in all.
        """
        nodes = torch.stack(list(circuits))
        at_words = ((nodes & ELSEWHERE) == 0).flatten(1).all(dim=1)  # these have all other tokens in common
        found = torch.empty(len(self.prompts.sentences), len(nodes))
        families = [family for family in (at_words, ~at_words) if bool(family.any())]
        with inference(self.network):
            for done, family in enumerate(families):
                report = partial(_report, progress, done, len(families))
                found[:, family] = self._family(nodes[family], budget, report)
        return found

    def edits(self, nodes: Nodes, group: Group) -> dict[Site, Choose]:
        """One circuit as edits of an ordinary run on `group.of(self.prompts)`."""
        layers = range(len(self._modules))
        return {
            Site("z", layer): partial(choose, self.kept(nodes[layer][None], group)[:, 0], self.mean(layer, group))
            for layer in layers
        }

    def mean(self, layer: int, group: Group) -> Float[Tensor, "batch pos head d_head"]:
        """What ablated heads of a layer give."""
        return self.means.z[self._place[group.rows], layer, -group.length :]

    def kept(self, nodes: Int[Tensor, "row head"], group: Group) -> Bool[Tensor, "batch row pos head"]:
        """Which z of a layer stay as they are, where its heads keep these nodes."""
        bits = self._bits[group.rows, -group.length :]
        return (nodes[None, :, None] & bits[:, None, :, None]) != 0

    def _family(
        self, nodes: Int[Tensor, "circuit layer head"], budget: int, progress: Progress
    ) -> Float[Tensor, "prompt circuit"]:
        """Circuits that are measured together."""
        modules, plan = self._modules, Plan.of(nodes)
        whole_heads = bool(((nodes == 0) | (nodes == EVERYWHERE)).all())

        def run(group: Group) -> Tensor:
            at_once = max(1, budget // branch_bytes(modules, plan.widest, group.length, group.length))
            return torch.cat(
                [self._measured(plan, replace(group, rows=rows)) for rows in torch.split(group.rows, at_once)]
            )

        # Prompts that have their words at the same places leave the most tokens in common.
        return by_prompt(groups_of(self.prompts, () if whole_heads else WORDS), run, progress)[:, plan.rows]

    def _measured(self, plan: Plan, group: Group) -> Float[Tensor, "batch row"]:
        """logit(IO) - logit(S) of a group's prompts, of every row of the last layer."""
        prompts, layers = self.prompts, range(len(self._modules))
        kept = [self.kept(nodes, group) for nodes in plan.nodes]
        means = [self.mean(layer, group) for layer in layers]
        hidden = run_rows(self._modules, group.of(prompts), plan, kept, means)
        columns = torch.stack([prompts.io, prompts.s], dim=1)[group.rows].to(hidden.device)
        correct, wrong = unembed_columns(self._modules, hidden, columns).unbind(dim=-1)
        return correct - wrong

    @cached_property
    def _modules(self) -> Modules:
        return Modules(self.network)

    @cached_property
    def _place(self) -> Int[Tensor, " prompt"]:
        return self.means.of(self.prompts)

    @cached_property
    def _bits(self) -> Int[Tensor, "prompt pos"]:
        """The bits of the words that stand at a token, or that of all other tokens."""
        bits = torch.zeros_like(self.prompts.tokens)
        rows = torch.arange(len(bits))
        for bit, word in enumerate(WORDS):
            bits[rows, self.prompts.positions[word]] |= 1 << bit
        return bits.masked_fill(bits == 0, ELSEWHERE)


def _report(progress: Progress, family: int, families: int, done: int, total: int) -> None:
    """Progress over all families."""
    progress(family * total + done, families * total)
