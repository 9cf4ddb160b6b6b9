"""Mean ablation by template: every node outside of a circuit gives what it gives on average over p_ABC.

    z_h := mean over p_ABC of z_h            outside of the circuit, at every token on its own
    F(C) = E[logit(IO) - logit(S)]           of the model so ablated, at END

(Wang et al. 2022, section 4.) The mean is over the sentences of p_ABC that are laid out as the prompt is: one template,
one order of the names, one number of tokens, the names at the same places, so that tokens correspond. MLPs, embeddings
and norms are never ablated, they read what the ablated heads write.

Many circuits are measured together (`circuit_states`, `circuit_rows`); `edits` does one of them by ordinary hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from jaxtyping import Bool, Float, Int
from replications.indirect_object_identification.circuit import ELSEWHERE, EVERYWHERE, WORDS, Nodes
from replications.indirect_object_identification.circuit_rows import Inputs, Some, run_rows
from replications.indirect_object_identification.circuit_states import States
from replications.indirect_object_identification.grouping import Group, Progress, groups_of
from replications.indirect_object_identification.positions import IOIPrompts, Layout
from torch import Tensor, nn

from interventions import Site, values_of
from interventions.hooks import Modules
from interventions.memory import branch_bytes
from interventions.network import Replay, final_hidden, first_stream, inference, unembed_columns

Choose = Callable[[Tensor], Tensor]
Mean = Float[Tensor, "batch pos head d_head"]
BUDGET = 2**27  # bytes that the rows of one pass take, about; half as much again for keys and values


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
        nodes, circuit = torch.unique(torch.stack(list(circuits)), dim=0, return_inverse=True)
        whole_heads = bool(((nodes == 0) | (nodes == EVERYWHERE)).all())
        words = self._bits.where(self._bits == 0, EVERYWHERE) if whole_heads else self._bits
        kinds, kind_of = torch.unique(words, dim=0, return_inverse=True)
        found, done = torch.empty(len(self.prompts), len(nodes)), 0
        states = States.of(nodes, kinds)
        with inference(self.network):
            sizes = states.widest() * branch_bytes(self._modules, 1, 1, kinds.shape[1])
            for rows in _packed(kind_of, sizes, budget):
                found[rows] = self._measured(states, Some(rows, torch.bincount(kind_of[rows], minlength=len(kinds))))
                done += len(rows)
                progress(done, len(found))
        return found[:, circuit]

    def edits(self, nodes: Nodes, group: Group) -> dict[Site, Choose]:
        """One circuit as edits of an ordinary run on `group.of(self.prompts)`."""
        bits = self._bits[group.rows, -group.length :, None]
        return {
            Site("z", layer): partial(_choose, (of_layer & bits) != 0, self.mean(layer, group))
            for layer, of_layer in enumerate(nodes)
        }

    def mean(self, layer: int, group: Group) -> Mean:
        """What ablated heads of a layer give."""
        return self.means.z[self._place[group.rows], layer, -group.length :]

    def _measured(self, states: States, some: Some) -> Float[Tensor, "prompt circuit"]:
        """logit(IO) - logit(S) of some of the prompts."""
        hidden = run_rows(self._inputs, states, some)
        columns = torch.stack([self.prompts.io, self.prompts.s], dim=1)[some.rows].to(hidden.device)
        correct, wrong = unembed_columns(self._modules, hidden, columns).unbind(dim=-1)
        return (correct - wrong).cpu()

    @cached_property
    def _modules(self) -> Modules:
        return Modules(self.network)

    @cached_property
    def _inputs(self) -> Inputs:
        prompts, modules = self.prompts, self._modules
        length, groups, replay = prompts.tokens.shape[1], groups_of(prompts), Replay(modules)
        with replay.recording():
            longest = max(groups, key=lambda group: group.length)
            final_hidden(modules, replace(longest, rows=longest.rows[:1]).of(prompts))
        like = next(modules.final_norm.parameters())
        embedded = like.new_zeros(len(prompts), length, like.shape[-1])
        for group in groups:
            embedded[group.rows, -group.length :] = first_stream(modules, group.of(prompts))
        means = tuple(mean.contiguous() for mean in self.means.z[:, :, -length:].to(like).unbind(dim=1))
        return Inputs(replay, embedded, length - prompts.lengths, means, self._place)

    @cached_property
    def _place(self) -> Int[Tensor, " prompt"]:
        return self.means.of(self.prompts)

    @cached_property
    def _bits(self) -> Int[Tensor, "prompt pos"]:
        """The bits of the words that stand at a token, or that of all other tokens; 0 before the first."""
        bits = torch.zeros_like(self.prompts.tokens)
        rows = torch.arange(len(bits))
        for bit, word in enumerate(WORDS):
            bits[rows, self.prompts.positions[word]] |= 1 << bit
        real = torch.arange(bits.shape[1]) >= bits.shape[1] - self.prompts.lengths[:, None]
        return bits.masked_fill(bits == 0, ELSEWHERE) * real


def _packed(
    kind_of: Int[Tensor, " prompt"], sizes: Int[Tensor, " kind"], budget: int
) -> Iterator[Int[Tensor, " some"]]:
    """Prompts, kind by kind, as many together as the budget allows; at least one."""
    together, taken = list[int](), 0
    for prompt in kind_of.argsort(stable=True).tolist():
        size = int(sizes[kind_of[prompt]])
        if together and taken + size > budget:
            yield torch.tensor(together)
            together, taken = [], 0
        together.append(prompt)
        taken += size
    yield torch.tensor(together)


def _choose(kept: Bool[Tensor, "batch pos head"], mean: Mean, z: Tensor) -> Tensor:
    """z where it is kept, else its mean."""
    return torch.where(kept.to(z.device)[..., None], z, mean.to(z))
