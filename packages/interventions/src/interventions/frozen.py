"""Runs in which all heads but one keep their clean z: what a head's output does before any other head reads it.

For a sender s of layer m, of which z' takes the place of z at some positions, the stream at the input of layer l > m is

    MLPs frozen      x_l = clean x_l + attn_out(z') - attn_out(z)
    MLPs live        x_l from x_m by layers whose attention gives its clean z (the sender's z' in layer m)

attn_out is computed by the model's own modules, with the norm that some architectures have behind the projection. Heads
that are held cost no attention, and no position sees another one; all senders are rows beside each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interventions.attention import AttentionCall, Callback
from interventions.branch_attention import BranchEdit
from interventions.branching import Shared, run_shared
from interventions.hooks import Modules, attached
from interventions.prompts import Prompts
from interventions.receivers import Projection
from interventions.sources import Edited
from interventions.sweeps import Cell


def run_frozen(modules: Modules, prompts: Prompts, start: int, edited: Edited, through_mlps: bool) -> Frozen:
    """One ordinary pass over the prompts that keeps what senders from position `start` on need.

    Args:
        edited: z' by layer.
        through_mlps: whether MLPs are computed anew, or frozen.
    """
    seen: dict[tuple[str, int], Tensor] = {}

    def keep(site: tuple[str, int]) -> Callback:
        def see(x: Tensor) -> None:
            seen[site] = x[:, start:]

        return see

    end = ("resid_post", len(modules) - 1)
    sites = [end, *(("z", layer) for layer in range(len(modules)))]
    shared = run_shared(modules, prompts, start, {site: keep(site) for site in sites}, whole=True)
    z = [seen["z", layer] for layer in range(len(modules))]
    return Frozen(shared, z, [*shared.stream, seen[end]], edited, through_mlps)


@dataclass(frozen=True)
class Frozen:
    """The clean run: z of every layer and the stream at every layer's input and end, from `shared.start` on."""

    shared: Shared
    z: Sequence[Float[Tensor, "batch kept head d_head"]]
    clean: Sequence[Float[Tensor, "batch kept d_model"]]
    edited: Edited
    through_mlps: bool

    def streams(
        self, senders: Sequence[Cell], layers: Sequence[int]
    ) -> dict[int, Float[Tensor, "batch sender kept d_model"]]:
        """The stream at the input of `layers` (the end: their number), for the senders of layers before.

        Args:
            senders: single heads, ascending by layer.
        """
        wanted = [layer for layer in layers if layer > senders[0].layer]
        if self.through_mlps and self.shared.modules.architecture.mlp_out is not None:
            return self._by_layers(senders, wanted)
        change = torch.cat([self.change(senders, layer) for layer in sorted({cell.layer for cell in senders})], dim=1)
        return {
            layer: self.clean[layer][:, None] + change[:, : sum(cell.layer < layer for cell in senders)]
            for layer in wanted
        }

    def projected(
        self, layer: int, projection: Projection, streams: Float[Tensor, "batch sender kept d_model"]
    ) -> Float[Tensor, "batch sender kept head d_head"]:
        """Queries, keys or values of a layer that reads `streams`, as they enter the product."""
        rows, positions = streams.flatten(1, 2), self._positions(streams.shape[1])
        call = self.shared.replay.attention_call(layer, rows, positions)
        projections = {"q": call.query, "k": call.key, "v": call.value}
        new = projections[projection].transpose(1, 2)
        return new.reshape(*streams.shape[:3], *new.shape[2:])

    def _by_layers(self, senders: Sequence[Cell], wanted: Sequence[int]) -> dict[int, Tensor]:
        modules, width = self.shared.modules, self.z[0].shape[1]
        edits = {cell.layer: self._edit(senders, cell.layer) for cell in senders}
        rows, found = self.clean[0][:, :0], {}
        with attached(modules, {}, _Held(self.z, edits)):
            for layer in range(senders[0].layer, wanted[-1] + 1):
                if layer in wanted:
                    found[layer] = rows.unflatten(1, (-1, width))  # type: ignore[no-untyped-call]
                if layer == wanted[-1]:
                    break
                new = sum(cell.layer == layer for cell in senders)
                rows = torch.cat([rows, self.clean[layer].repeat(1, new, 1)], dim=1)
                rows = self.shared.replay.layer(layer, rows, self._positions(rows.shape[1] // width))
        return found

    def change(self, senders: Sequence[Cell], layer: int) -> Float[Tensor, "batch sender kept d_model"]:
        """attn_out(z') - attn_out(z) of the senders of one layer."""
        mine = [cell for cell in senders if cell.layer == layer]
        clean = self.z[layer][:, None]
        changed = self._edit(mine, layer)(clean.repeat(1, len(mine), 1, 1, 1))
        return self._attn_out(layer, changed) - self._attn_out(layer, clean)

    def _attn_out(
        self, layer: int, z: Float[Tensor, "batch sender kept head d_head"]
    ) -> Float[Tensor, "batch sender kept d_model"]:
        modules = self.shared.modules
        row = modules.architecture
        out: Tensor = modules.output_projection(layer)(z.flatten(-2).contiguous())
        behind = row.attention_out != row.attention
        return modules.layers[layer].get_submodule(row.attention_out)(out) if behind else out

    def _edit(self, senders: Sequence[Cell], layer: int) -> BranchEdit:
        mine = [(sender, cell) for sender, cell in enumerate(senders) if cell.layer == layer]
        return self.edited.of_branches(mine, self.shared.start, layer, "z")

    def _positions(self, senders: int) -> Tensor:
        start, length = self.shared.start, self.shared.prompts.length
        return torch.arange(start, length, device=self.clean[0].device).repeat(senders)


@dataclass(frozen=True)
class _Held:
    """Attention that gives the clean z to all rows [batch, sender * kept], edited for the senders of its layer."""

    z: Sequence[Tensor]
    edits: Mapping[int, BranchEdit]

    def __call__(self, call: AttentionCall) -> Float[Tensor, "batch row head d_head"]:
        clean = self.z[call.layer]
        z = clean[:, None].repeat(1, call.query.shape[2] // clean.shape[1], 1, 1, 1)
        edit = self.edits.get(call.layer)
        return (edit(z) if edit else z).flatten(1, 2)
