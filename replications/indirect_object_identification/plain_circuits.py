"""Attribution, means, circuits and gradients by plain hooks: the other half of what `bench` compares the engine with.

    attribution         one pass that records what components write at END
    means               one pass over p_ABC that records z
    circuits            one pass a circuit: z at its mean in all layers but where the circuit keeps it
    gradients           one pass there and back a layer and step

Prompts go through the model as in `plain_patching`, and nothing of the engine is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from replications.indirect_object_identification.circuit import WORDS, Nodes
from replications.indirect_object_identification.grouping import Group, groups_of
from replications.indirect_object_identification.plain_patching import Edit, Network, Seen, always, hooked
from replications.indirect_object_identification.positions import IOIPrompts, Layout
from torch import Tensor, nn

MeanZ = Mapping[Layout, Float[Tensor, "layer pos d_model"]]


def attributions(network: Network, prompts: IOIPrompts) -> Mapping[str, Float[Tensor, " prompt"]]:
    """What heads ("L0H0") and MLPs ("MLP0") write at END along W_U[IO] - W_U[S], the final norm's divisor as it is."""
    found: dict[str, Tensor] = {}
    norm: Any = network.model.transformer.ln_f
    for group in groups_of(prompts):
        z, mlps, final = list[Tensor](), list[Tensor](), list[Tensor]()
        before: dict[nn.Module, Edit] = {network.projection(layer): z.append for layer in network.layers}
        after = {network.block(layer).mlp: mlps.append for layer in network.layers}
        with torch.no_grad(), hooked({**before, norm: final.append}, after):
            network.run(prompts, group)
            divisor = (final[0][:, -1].var(dim=-1, correction=0, keepdim=True) + norm.eps).sqrt()
            gained = norm.weight * network.direction(prompts, group)
            direction = (gained - gained.mean(dim=-1, keepdim=True)) / divisor
            for layer in network.layers:
                weight = network.block(layer).attn.c_proj.weight.view(network.n_heads, -1, direction.shape[-1])
                heads = torch.einsum("rhd,hdm,rm->hr", network.heads(z[layer][:, -1]), weight, direction)
                of_mlp = (mlps[layer][:, -1] * direction).sum(dim=-1)
                named = {f"L{layer}H{head}": each for head, each in enumerate(heads)} | {f"MLP{layer}": of_mlp}
                for name, each in named.items():
                    found.setdefault(name, torch.empty(len(prompts)))[group.rows] = each
    return found


def means(network: Network, parts: Sequence[IOIPrompts]) -> MeanZ:
    """The mean z of all prompts of a layout."""
    seen: dict[Layout, list[Tensor]] = {}
    for prompts in parts:
        for group in groups_of(prompts):
            z = torch.stack(Seen.of(network, prompts, group).z, dim=1)
            for row, at in enumerate(prompts.templates[group.rows].tolist()):
                seen.setdefault(prompts.layouts[at], []).append(z[row])
    return {layout: torch.stack(each).mean(dim=0) for layout, each in seen.items()}


@dataclass(frozen=True)
class Circuits:
    """Prompts with all outside of circuits at its mean."""

    network: Network
    prompts: IOIPrompts
    means: MeanZ

    def differences(self, circuits: Sequence[Nodes]) -> list[Float[Tensor, " prompt"]]:
        """F = logit(IO) - logit(S) of each circuit."""
        network, found = self.network, []
        with torch.no_grad():
            for nodes in circuits:
                differences = torch.empty(len(self.prompts))
                for at, group in enumerate(self._groups):
                    words, mean = self._words[group.rows, -group.length :], self._mean[at]
                    hooks = {
                        network.projection(layer): partial(
                            self._ablated, (nodes[layer] & words[..., None]) != 0, mean[:, layer]
                        )
                        for layer in network.layers
                    }
                    with hooked(hooks):
                        differences[group.rows] = network.run(self.prompts, group)
                found.append(differences)
        return found

    def gradients(self, steps: int) -> Float[Tensor, "prompt layer head"]:
        """(mean z - z) . dF/dz, the gradient averaged along the line from z to its mean, a layer at a time."""
        network = self.network
        found = torch.empty(len(self.prompts), len(network.layers), network.n_heads)
        for at, group in enumerate(self._groups):
            clean = Seen.of(network, self.prompts, group).z
            for layer in network.layers:
                change = self._mean[at][:, layer] - clean[layer]
                total = torch.zeros_like(change)
                for step in range(steps):
                    z = (clean[layer] + (step + 0.5) / steps * change).requires_grad_()
                    with torch.enable_grad(), hooked({network.projection(layer): partial(always, z)}):
                        total += torch.autograd.grad(network.run(self.prompts, group).sum(), z)[0]
                found[group.rows, layer] = network.heads(change * total / steps).sum(dim=(1, 3))
        return found

    def _ablated(self, kept: Bool[Tensor, "row pos head"], mean: Float[Tensor, "row pos d_model"], z: Tensor) -> Tensor:
        return torch.where(kept[..., None], self.network.heads(z), self.network.heads(mean)).flatten(2)

    @cached_property
    def _groups(self) -> tuple[Group, ...]:
        return groups_of(self.prompts)

    @cached_property
    def _mean(self) -> list[Float[Tensor, "row layer pos d_model"]]:
        """By group."""
        layouts, templates = self.prompts.layouts, self.prompts.templates
        return [torch.stack([self.means[layouts[at]] for at in templates[group.rows]]) for group in self._groups]

    @cached_property
    def _words(self) -> Int[Tensor, "prompt pos"]:
        """The bit by which nodes name the word at a token; the highest one at tokens that are none."""
        words = torch.full_like(self.prompts.tokens, 1 << len(WORDS))
        for bit, word in enumerate(WORDS):
            words[torch.arange(len(words)), self.prompts.positions[word]] = 1 << bit
        return words
