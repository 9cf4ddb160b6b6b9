"""Runs in which all heads but one keep their clean z: what a head's output does before any other head reads it.

For a sender s of layer m, of which z' takes the place of z at some positions, the stream at the input of layer l > m is

    MLPs frozen      x_l = clean x_l + attn_out(z') - attn_out(z)
    MLPs live        x_l from x_m by layers whose attention gives its clean z (the sender's z' in layer m)

attn_out is computed by the model's own modules, with the norm that some architectures have behind the projection. Heads
that are held cost no queries, keys, values or attention, and no position sees another one: what is computed is the
positions at which senders are patched, and there the MLPs alone. All senders are rows beside each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interventions.branch_attention import BranchEdit
from interventions.branching import Shared
from interventions.hooks import Modules
from interventions.prompts import Prompts
from interventions.receivers import Projection
from interventions.recordings import Recordings, run_whole
from interventions.sources import Edited
from interventions.sweeps import Cell


def run_frozen(
    modules: Modules,
    prompts: Prompts,
    start: int,
    edited: Edited,
    through_mlps: bool,
    positions: Sequence[int] | None = None,
    recordings: Recordings | None = None,
) -> Frozen:
    """One ordinary pass over the prompts that keeps what senders from position `start` on need.

    Args:
        positions: at which senders are patched, from the start of the prompts; by default all from `start` on.
        edited: z' by layer.
        through_mlps: whether MLPs are computed anew, or frozen.
        recordings: where the pass may have been kept.
    """
    run = recordings.whole(prompts, start) if recordings else run_whole(modules, prompts, start)
    patched = range(start, prompts.length) if positions is None else sorted(positions)
    offsets = torch.tensor(patched, dtype=torch.long) - start
    return Frozen(run.shared, run.z, [*run.shared.stream, run.end], edited, through_mlps, offsets)


@dataclass(frozen=True)
class Frozen:
    """The clean run: z of every layer and the stream at every layer's input and end, from `shared.start` on.

    `patched` says at which of these positions senders are patched.
    """

    shared: Shared
    z: Sequence[Float[Tensor, "batch kept head d_head"]]
    clean: Sequence[Float[Tensor, "batch kept d_model"]]
    edited: Edited
    through_mlps: bool
    patched: Int[Tensor, " patched"]

    def streams(
        self, senders: Sequence[Cell], layers: Sequence[int]
    ) -> dict[int, Float[Tensor, "batch sender patched d_model"]]:
        """The stream at the input of `layers` (the end: their number), for the senders of layers before.

        Args:
            senders: single heads, ascending by layer.
        """
        wanted = [layer for layer in layers if layer > senders[0].layer]
        if self.through_mlps and self.shared.modules.architecture.mlp_out is not None:
            return self._by_layers(senders, wanted)
        change = torch.cat([self.change(senders, layer) for layer in sorted({cell.layer for cell in senders})], dim=1)
        return {
            layer: self.clean[layer][:, None, self.patched] + change[:, : sum(cell.layer < layer for cell in senders)]
            for layer in wanted
        }

    def projected(
        self, layer: int, projection: Projection, streams: Float[Tensor, "batch sender patched d_model"]
    ) -> Float[Tensor, "batch sender patched head d_head"]:
        """Queries, keys or values of a layer that reads `streams`, as they enter the product."""
        rows, positions = streams.flatten(1, 2), self._positions(streams.shape[1])
        call = self.shared.replay.attention_call(layer, rows, positions)
        projections = {"q": call.query, "k": call.key, "v": call.value}
        new = projections[projection].transpose(1, 2)
        return new.reshape(*streams.shape[:3], *new.shape[2:])

    def read_by(
        self,
        projection: Projection,
        layer: int,
        heads: list[int],
        new: Float[Tensor, "batch sender patched receiver d_head"],
    ) -> BranchEdit:
        """Puts `new` into branches [batch, sender, kept, head, d_head], and what is clean wherever none is patched."""
        call, start = self.shared.calls[layer], self.shared.start
        parts = {"q": call.query, "k": call.key[:, :, start:], "v": call.value[:, :, start:]}
        clean = parts[projection].transpose(1, 2)[:, None, :, heads]

        def edit(x: Tensor) -> Tensor:
            x = x.clone()
            x[..., heads, :] = clean
            x[:, :, self.patched[:, None], heads] = new
            return x

        return edit

    def change(self, senders: Sequence[Cell], layer: int) -> Float[Tensor, "batch sender patched d_model"]:
        """attn_out(z') - attn_out(z) of the senders of one layer."""
        clean = self.shared.replay.written(layer, self.z[layer][:, None, self.patched])
        return self._normed(layer, self._written(senders, layer)) - self._normed(layer, clean)

    def _by_layers(self, senders: Sequence[Cell], wanted: Sequence[int]) -> dict[int, Tensor]:
        replay, width = self.shared.replay, len(self.patched)
        rows, found = self.clean[0][:, :0], {}
        for layer in range(senders[0].layer, wanted[-1] + 1):
            if layer in wanted:
                found[layer] = rows.unflatten(1, (-1, width))  # type: ignore[no-untyped-call]
            if layer == wanted[-1]:
                break
            held = replay.written(layer, self.z[layer][:, self.patched])
            written = held.repeat(1, rows.shape[1] // width, 1)
            if new := sum(cell.layer == layer for cell in senders):
                rows = torch.cat([rows, self.clean[layer][:, self.patched].repeat(1, new, 1)], dim=1)
                written = torch.cat([written, self._written(senders, layer).flatten(1, 2)], dim=1)
            rows = replay.behind_written(layer, rows, self._positions(rows.shape[1] // width), written)
        return found

    def _written(self, senders: Sequence[Cell], layer: int) -> Float[Tensor, "batch sender patched d_model"]:
        """What attention writes with z' of the senders of one layer."""
        mine = [cell for cell in senders if cell.layer == layer]
        edit = self.edited.of_branches(list(enumerate(mine)), self.shared.start, layer, "z")
        changed = edit(self.z[layer][:, None].repeat(1, len(mine), 1, 1, 1))
        return self.shared.replay.written(layer, changed[:, :, self.patched])

    def _normed(self, layer: int, written: Tensor) -> Tensor:
        """Behind the norm that some architectures have there."""
        modules = self.shared.modules
        row = modules.architecture
        behind = row.attention_out != row.attention
        normed: Tensor = modules.layers[layer].get_submodule(row.attention_out)(written) if behind else written
        return normed

    def _positions(self, senders: int) -> Int[Tensor, " row"]:
        return (self.shared.start + self.patched).to(self.clean[0].device).repeat(senders)
