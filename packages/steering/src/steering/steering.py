"""Steering: what a vector does to the residual stream while a network runs, in the caller's own passes.

With h the stream at a position, v the layer's direction, u = v / |v| and c the coefficient:

    add               h + c v                                   (Turner et al. 2023; Rimsky et al. 2024: multiplier c)
    norm_preserving   (h + c v) |h| / |h + c v|
    project_out       h - c (h . u) u                           c = 1 removes the direction
    clamp             h + (c |v| - h . u) u                     so that h . u = c |v|

Where a direction is [pos, d_model], its row p is that of position p of every row's text; nothing happens behind its
last row or where a row is 0, and a prompt with fewer positions is refused, as the paper's code does. In half precision
`add` rounds c v once, and the others are computed in float32. Positions that are not acted on keep their bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interventions import Model
from interventions.calls import Call, CallHook, hooked
from steering.errors import SteeringError, check_choice
from steering.positions import Everywhere, Positions
from steering.vectors import ModelIdentity, SteeringVector

Operation = Literal["add", "project_out", "clamp", "norm_preserving"]
_HALF = (torch.float16, torch.bfloat16)
_TINY = 1e-30


@dataclass(frozen=True)
class Steer:
    """A vector and how it acts: `layers` are some of the vector's (by default all).

    Args:
        any_weights: act on a model of the same architecture whose weights are known to be others, too.

    Raises:
        SteeringError: a coefficient that is not finite, an unknown operation, a layer that the vector does not have.
    """

    vector: SteeringVector
    coefficient: float = 1.0
    layers: int | Sequence[int] | None = None
    positions: Positions = field(default_factory=Everywhere)
    operation: Operation = "add"
    any_weights: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.coefficient):
            raise SteeringError(
                f"{self.vector.name}: coefficient {self.coefficient}: expected a finite number; 0 leaves the model as "
                f"it is"
            )
        check_choice(f"{self.vector.name}: operation", self.operation, get_args(Operation))
        self.vector.at(*self.chosen)

    @property
    def chosen(self) -> tuple[int, ...]:
        """The layers that it acts in."""
        if self.layers is None:
            return self.vector.layers
        return (self.layers,) if isinstance(self.layers, int) else tuple(dict.fromkeys(self.layers))


@contextmanager
def steered(model: Model | nn.Module, *steers: Steer) -> Iterator[None]:
    """Inside, every forward pass of the model's network is steered, those of `generate` included.

    Several act in the order given, and contexts inside each other as well. Afterwards nothing is left of them.

    Raises:
        SteeringError: before anything runs, a vector is of another architecture, depth or width, has no directions or
            some that are not finite, or is known to be of other weights; inside, positions do not fit a call.
    """
    network = model.network if isinstance(model, Model) else model
    steps: dict[tuple[str, int], list[_Step]] = {}
    for steer in steers:
        check_fits(steer, network)
        where = _Where(steer)
        for layer in steer.chosen:
            steps.setdefault((steer.vector.component, layer), []).append(_Step(steer, layer, where))
    if not steps:
        yield
        return
    with hooked(network, {place: _together(group) for place, group in steps.items()}):
        yield


def check_fits(steer: Steer, network: nn.Module) -> None:
    """Refuse a vector that is of another model.

    Raises:
        SteeringError: saying what differs.
    """
    vector, of = steer.vector, steer.vector.model
    here = ModelIdentity.of(network, "the network")
    shape = (here.model_type, here.n_layers, here.d_model)
    if (of.model_type, of.n_layers, of.d_model) != shape:
        raise SteeringError(
            f"{vector.name} is of {of.name} ({of.model_type}, {of.n_layers} layers, d_model {of.d_model}), the network "
            f"is {here.model_type} with {here.n_layers} layers, d_model {here.d_model}: expected a vector of this model"
        )
    if of.sha256 and here.sha256 and of.sha256 != here.sha256 and not steer.any_weights:
        raise SteeringError(
            f"{vector.name} is of weights with SHA-256 {of.sha256[:12]}..., the network has {here.sha256[:12]}...: "
            f"expected a vector of these weights; pass any_weights=True to Steer to use it all the same"
        )
    if not vector.directions:
        raise SteeringError(f"{vector.name} has no directions: expected at least one layer's")
    for layer in steer.chosen:
        direction = vector.directions[layer]
        if not 0 <= layer < here.n_layers:
            raise SteeringError(f"{vector.name}: layer {layer}: expected 0 to {here.n_layers - 1}, as the network has")
        if direction.ndim not in (1, 2) or direction.shape[-1] != here.d_model or not direction.numel():
            raise SteeringError(
                f"{vector.name}: layer {layer} has shape {tuple(direction.shape)}: expected [{here.d_model}] or "
                f"[pos, {here.d_model}], the network's width"
            )
        if not bool(direction.isfinite().all()):
            raise SteeringError(f"{vector.name}: layer {layer} has numbers that are not finite; extract it anew")


class _Where:
    """Where a vector acts in the call that is running, found out once for all its layers."""

    def __init__(self, steer: Steer) -> None:
        self.name, self.positions = steer.vector.name, steer.positions
        tables = [direction for direction in map(steer.vector.directions.get, steer.chosen) if direction is not None]
        self.n_rows = max((len(table) for table in tables if table.ndim == 2), default=0)
        self.call: Call | None = None
        self.found: bool | Tensor = False

    def of(self, call: Call) -> bool | Bool[Tensor, "batch_or_1 pos 1"]:
        if self.call is not call:
            found = self._by_row(call) if self.n_rows else self.positions.of(call)
            self.call, self.found = call, found[..., None] if isinstance(found, Tensor) else found
        return self.found

    def _by_row(self, call: Call) -> bool | Bool[Tensor, "batch_or_1 pos"]:
        """Of a vector with a row for each of the first positions, which are all in the prompt."""
        if not call.first:
            return False
        if call.cached or call.prompt.shortest < self.n_rows:
            found = f"a cache of {call.cached}" if call.cached else f"a prompt of {call.prompt.shortest} tokens"
            raise SteeringError(
                f"{self.name} has {self.n_rows} positions, got {found}: expected whole prompts, BOS included, at least "
                f"as long; use longer prompts or a shorter contrast"
            )
        where = self.positions.of(call)
        if where is False:
            return False
        inside = (call.rows >= 0) & (call.rows < self.n_rows)
        return inside if where is True else where & inside


class _Step:
    """What a vector does at one layer."""

    def __init__(self, steer: Steer, layer: int, where: _Where) -> None:
        self.operation, self.coefficient, self.where = steer.operation, steer.coefficient, where
        direction = steer.vector.directions[layer].detach().cpu().double()
        norm = direction.norm(dim=-1, keepdim=True)
        self.exact = (
            self.coefficient * direction,
            torch.where(norm > 0, direction / norm, 0.0),
            self.coefficient * norm,
        )
        self.ready: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor, Tensor]] = {}

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        where = self.where.of(call)
        if where is False:
            return x
        key = (x.device, x.dtype)
        if key not in self.ready:
            wide = torch.float32 if x.dtype in _HALF and self.operation != "add" else x.dtype
            parts = [part.to(x.device, wide) for part in self.exact]
            self.ready[key] = (parts[0], parts[1], parts[2])
        vector, unit, target = self.ready[key]
        if vector.ndim == 2:
            rows = call.rows.clamp(0, len(vector) - 1).to(x.device)
            vector, unit, target = vector[rows], unit[rows], target[rows]
        new = self._changed(x, vector, unit, target)
        # Layers may be on other devices than the tokens.
        return torch.where(where.to(x.device), new, x) if isinstance(where, Tensor) else new

    def _changed(self, x: Tensor, vector: Tensor, unit: Tensor, target: Tensor) -> Float[Tensor, "batch pos d_model"]:
        if self.operation == "add":
            return x + vector
        h = x.to(unit.dtype)
        if self.operation == "norm_preserving":
            moved = h + vector
            before, after = (torch.linalg.vector_norm(y, dim=-1, keepdim=True) for y in (h, moved))
            kept: Tensor = moved * (before / after.clamp(min=_TINY))
            return kept.to(x.dtype)
        along = (h * unit).sum(dim=-1, keepdim=True)
        change: Tensor = -self.coefficient * along if self.operation == "project_out" else target - along
        return (h + change * unit).to(x.dtype)


def _together(steps: list[_Step]) -> CallHook:
    """All steps at one place, in their order."""
    if len(steps) == 1:
        return steps[0]

    def hook(x: Tensor, call: Call) -> Any:
        for step in steps:
            x = step(x, call)
        return x

    return hook
