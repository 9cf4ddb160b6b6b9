"""Steering vectors: a direction in the residual stream for each of some layers, and the model that it is of.

    h := h + c v_l      behind layer l (resid_post), or in front of it (resid_pre, the resid_post of layer l - 1)

where c is what Turner et al. 2023 call the coefficient and Rimsky et al. 2024 the multiplier.

A direction is [d_model], the same wherever it is added, or [pos, d_model] with one row for each of the first positions
of the prompt, as activation addition has it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from interventions.notebook import table
from steering.errors import SteeringError

Component = Literal["resid_pre", "resid_post"]


@dataclass(frozen=True)
class ModelIdentity:
    """Which model a vector is of; `sha256` is the hash of its weights' file where a model card gives it."""

    name: str
    model_type: str
    n_layers: int
    d_model: int
    sha256: str | None = None

    @staticmethod
    def of(network: nn.Module, name: str, sha256: str | None = None) -> ModelIdentity:
        """The identity of a Hugging Face causal model; its hash, if it is not given, is that of its folder's card."""
        config: Any = network.config
        text = config.get_text_config()
        sha256 = sha256 or _of_card(str(getattr(network, "name_or_path", "") or ""))
        return ModelIdentity(name, str(config.model_type), int(text.num_hidden_layers), int(text.hidden_size), sha256)


@dataclass(frozen=True)
class SteeringVector:
    """Directions by layer, added at `component`; `facts` say how they were made (estimator, data, seed, versions).

    Vectors of one model may be added, subtracted, negated and scaled; layers that only one of them has count as 0 in
    the other.
    """

    directions: Mapping[int, Float[Tensor, "*pos d_model"]]
    name: str
    model: ModelIdentity
    component: Component = "resid_post"
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted(self.directions))

    def at(self, *layers: int) -> SteeringVector:
        """The same vector, in some of its layers alone.

        Raises:
            SteeringError: it has no direction for one of them.
        """
        if missing := [layer for layer in layers if layer not in self.directions]:
            raise SteeringError(f"{self.name} has no layer {missing[0]}: expected some of {list(self.layers)}")
        return replace(self, directions={layer: self.directions[layer] for layer in layers})

    def moved(self, source: int, *targets: int) -> SteeringVector:
        """The direction of one layer at others: how well vectors transfer, or what the last layer's output makes of it.

        Raises:
            SteeringError: it has no direction for `source`, or the model no such layer as a target.
        """
        if source not in self.directions:
            raise SteeringError(f"{self.name} has no layer {source}: expected one of {list(self.layers)}")
        if beyond := [layer for layer in targets if not 0 <= layer < self.model.n_layers]:
            raise SteeringError(
                f"{self.name}: layer {beyond[0]}: expected 0 to {self.model.n_layers - 1}, as {self.model.name} has"
            )
        return replace(self, directions=dict.fromkeys(targets, self.directions[source]))

    def unit(self) -> SteeringVector:
        """Every layer's direction with norm 1 (over all its positions); one that is 0 stays so."""
        scaled = {layer: x / x.norm() if bool(x.any()) else x for layer, x in self.directions.items()}
        return replace(self, directions=scaled, name=f"unit ({self.name})")

    def scaled_like(self, other: SteeringVector) -> SteeringVector:
        """The same directions with the norms of another vector's, layer by layer.

        Raises:
            SteeringError: the other has not all its layers.
        """
        norms = {layer: x.norm() for layer, x in other.at(*self.layers).directions.items()}
        scaled = {layer: x * norms[layer].to(x) for layer, x in self.unit().directions.items()}
        return replace(self, directions=scaled)

    def __neg__(self) -> SteeringVector:
        return (-1.0) * self

    def __mul__(self, factor: float) -> SteeringVector:
        scaled = {layer: factor * direction for layer, direction in self.directions.items()}
        return replace(self, directions=scaled, name=f"{factor:g} ({self.name})")

    __rmul__ = __mul__

    def __add__(self, other: SteeringVector) -> SteeringVector:
        return self._with(other, 1.0, "+")

    def __sub__(self, other: SteeringVector) -> SteeringVector:
        return self._with(other, -1.0, "-")

    @property
    def _place(self) -> tuple[str, int, int, Component]:
        return self.model.model_type, self.model.n_layers, self.model.d_model, self.component

    def __repr__(self) -> str:
        norms = ", ".join(f"{layer}: {float(self.directions[layer].norm()):.3g}" for layer in self.layers)
        return f"<SteeringVector: {self.name}, of {self.model.name} at {self.component}; norm by layer {norms}>"

    def _repr_html_(self) -> str:
        norms = [float(self.directions[layer].norm()) for layer in self.layers]
        places = [str(tuple(self.directions[layer].shape)) for layer in self.layers]
        largest = max(norms, default=0.0) or 1.0
        rows = [
            [str(layer), f"{norm:.3g}", place] for layer, norm, place in zip(self.layers, norms, places, strict=True)
        ]
        made = "; ".join(f"{name}: {value}" for name, value in self.facts.items()) or "not said"
        return table(
            f"Steering vector {self.name}, of {self.model.name}, added at {self.component}",
            ["layer", "norm", "shape"],
            rows,
            shades=[[norm / largest, 0.0] for norm in norms],
            note=f"How it was made: {made}.",
        )

    def _with(self, other: SteeringVector, sign: float, symbol: str) -> SteeringVector:
        if self._place != other._place:
            raise SteeringError(
                f"{self.name} is of {self.model.name} at {self.component}, {other.name} of {other.model.name} at "
                f"{other.component}: expected vectors of one model, at one place"
            )
        both: dict[int, Tensor] = dict(self.directions)
        for layer, direction in other.directions.items():
            if layer in both and both[layer].shape != direction.shape:
                raise SteeringError(
                    f"layer {layer}: {self.name} has shape {tuple(both[layer].shape)}, {other.name} "
                    f"{tuple(direction.shape)}: expected vectors for the same positions"
                )
            both[layer] = both[layer] + sign * direction if layer in both else sign * direction
        return replace(self, directions=both, name=f"{self.name} {symbol} {other.name}", facts={})


def _of_card(folder: str) -> str | None:
    """The hash of a model folder's weights, as its card gives it."""
    try:
        found = json.loads((Path(folder) / "card.json").read_text(encoding="utf-8"))["sha256"]["model.safetensors"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(found)
