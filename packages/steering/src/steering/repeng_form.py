"""repeng's form of a vector: a model type, and an array [d_model] for each of some layers.

    repeng's directions[k]  =  v_k at resid_post of layer k        k from 0, counted from the end where it is negative

That is what repeng does with it: `ControlModel` (repeng/control.py) wraps layer k of the model and adds
`coeff * directions[k]` to what that layer returns, at every position, and `read_representations` (repeng/extract.py)
takes it from `hidden_states[k + 1]`, the output of layer k (of the last layer: behind the final norm). `coeff` is our
coefficient. Since its version 0.2 repeng stores negative keys as positive ones; before, -1 was the last layer.

resid_pre of layer l is resid_post of layer l - 1, so that such a vector is converted exactly. resid_pre of layer 0 and
rows for single positions have no place in this form, and are refused.

repeng itself is not imported: `ControlVector(**vars(to_repeng(vector)))` is one of its own, and `from_repeng` takes any
object with the two attributes.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from interventions import Model
from steering.errors import SteeringError
from steering.vectors import ModelIdentity, SteeringVector

_LLAMA_CPP_NAMES = {"gemma3_text": "gemma3", "gpt_neox": "gptneox", "mistral": "llama", "phi": "phi2"}
"""What llama.cpp calls an architecture, where it differs from Hugging Face's `model_type`."""


@dataclass
class RepengVector:
    """The two fields of repeng's `ControlVector`."""

    model_type: str
    directions: dict[int, NDArray[Any]]


def to_repeng(vector: SteeringVector) -> RepengVector:
    """The vector in repeng's form. Number formats stay, but for bfloat16, which numpy lacks: float32, exactly.

    Raises:
        SteeringError: the form cannot hold it.
    """
    arrays = {layer: as_array(direction) for layer, direction in behind_layers(vector, "repeng's form").items()}
    return RepengVector(vector.model.model_type, arrays)


def from_repeng(
    given: Any, model: nn.Module | Model | ModelIdentity, name: str, *, any_model_type: bool = False
) -> SteeringVector:
    """A vector of repeng's, at resid_post.

    Args:
        given: repeng's `ControlVector`, or anything else with its `model_type` and `directions`.
        model: that the vector is of; its layers and width are not in the form.
        any_model_type: take it whatever its `model_type` says.

    Raises:
        SteeringError: the object has not repeng's form, or does not fit the model.
    """
    identity = identity_of(model)
    directions = getattr(given, "directions", None)
    if not isinstance(directions, Mapping) or not isinstance(getattr(given, "model_type", None), str):
        raise SteeringError(
            f"{name}: {type(given).__name__} has not repeng's form: expected a text `model_type` and a mapping "
            f"`directions` from layers to arrays [d_model]"
        )
    if not any_model_type:
        check_model_type(name, given.model_type, identity)
    pairs = [(_layer(name, key, identity), torch.from_numpy(_array(name, key, directions[key]))) for key in directions]
    facts = {"from": "repeng", "model_type": given.model_type}
    return SteeringVector(checked(name, pairs, identity, first=0), name, identity, "resid_post", facts)


def behind_layers(vector: SteeringVector, form: str) -> dict[int, Float[Tensor, " d_model"]]:
    """The vector as directions at resid_post.

    Args:
        form: that they are meant for, named in errors.

    Raises:
        SteeringError: it has rows for single positions, or a direction in front of the first layer.
    """
    if positioned := [layer for layer in vector.layers if vector.directions[layer].ndim != 1]:
        raise SteeringError(
            f"{vector.name}: layer {positioned[0]} has shape {tuple(vector.directions[positioned[0]].shape)}: {form} "
            f"holds directions [d_model], the same at every position; use save_vector"
        )
    back = 1 if vector.component == "resid_pre" else 0
    if vector.layers and vector.layers[0] < back:
        raise SteeringError(
            f"{vector.name}: resid_pre of layer 0 is behind no layer: {form} cannot hold it; leave layer 0 out with "
            f"at(...), or use save_vector"
        )
    found = {layer - back: vector.directions[layer].detach().cpu() for layer in vector.layers}
    return checked(vector.name, list(found.items()), vector.model, first=0)


def checked(
    name: str, pairs: Iterable[tuple[int, Tensor]], model: ModelIdentity, *, first: int
) -> dict[int, Float[Tensor, " d_model"]]:
    """Directions by layer, if they are directions of that model, in layers from `first` on.

    Raises:
        SteeringError: saying what does not fit.
    """
    found: dict[int, Tensor] = {}
    for layer, direction in pairs:
        if not first <= layer < model.n_layers:
            raise SteeringError(f"{name}: layer {layer}: expected {first} to {model.n_layers - 1}, as {model.name} has")
        if layer in found:
            raise SteeringError(f"{name}: two directions for layer {layer}: expected one a layer")
        if tuple(direction.shape) != (model.d_model,):
            raise SteeringError(
                f"{name}: layer {layer} has shape {tuple(direction.shape)}: expected [{model.d_model}], the width of "
                f"{model.name}; it is of another model"
            )
        if not bool(direction.isfinite().all()):
            raise SteeringError(f"{name}: layer {layer} has numbers that are not finite; compute it anew")
        found[layer] = direction
    if not found:
        raise SteeringError(f"{name}: no directions: expected at least one layer's")
    return dict(sorted(found.items()))


def check_model_type(name: str, found: str, model: ModelIdentity) -> None:
    """Refuse a vector that says it is of another architecture; both Hugging Face's and llama.cpp's names will do.

    Raises:
        SteeringError: it does.
    """
    expected = {model.model_type, _LLAMA_CPP_NAMES.get(model.model_type, model.model_type)}
    if found not in expected:
        raise SteeringError(
            f"{name}: it is of model type {found[:60]!r}: expected {' or '.join(sorted(expected))}, that of "
            f"{model.name}; pass any_model_type=True if it is meant for it all the same"
        )


def identity_of(model: nn.Module | Model | ModelIdentity) -> ModelIdentity:
    """Which model it is; a network without a name of its own goes by its `model_type`."""
    if isinstance(model, ModelIdentity):
        return model
    if isinstance(model, Model):
        return ModelIdentity.of(model.network, model.name)
    config: Any = model.config
    return ModelIdentity.of(model, str(getattr(config, "name_or_path", "") or config.model_type))


def as_array(direction: Float[Tensor, " d_model"]) -> NDArray[Any]:
    """A numpy array of its own."""
    wide = direction.float() if direction.dtype == torch.bfloat16 else direction
    return np.array(wide.numpy())


def _layer(name: str, key: Any, model: ModelIdentity) -> int:
    try:
        layer = operator.index(key)
    except TypeError:
        raise SteeringError(f"{name}: layer {str(key)[:30]!r}: expected an integer") from None
    if not -model.n_layers <= layer < model.n_layers:
        raise SteeringError(
            f"{name}: layer {layer}: expected {-model.n_layers} to {model.n_layers - 1}, as {model.name} has"
        )
    return layer % model.n_layers


def _array(name: str, key: Any, value: Any) -> NDArray[Any]:
    try:
        array = np.array(value)
    except (TypeError, ValueError, RuntimeError):
        array = np.array(None)
    if array.dtype.name not in ("float16", "float32", "float64"):
        raise SteeringError(
            f"{name}: layer {key} is {type(value).__name__} of {array.dtype}: expected an array of float16, float32 or "
            f"float64 [d_model]"
        )
    return array.astype(array.dtype.newbyteorder("="))
