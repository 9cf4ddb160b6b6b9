"""Many checkpoints of one model in one small file.

Matrices are stored as 8-bit integers with one scale a row, w_ij ~ s_i q_ij with s_i = max_j |w_ij| / 127, vectors in
16 bits: a quarter of the size of fp32. What that costs is bounded in the tests; the shipped final weights are
stored in 16 bits apart from these, and every final number is computed from those.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float, Int8
from safetensors import safe_open
from torch import Tensor

from zoo.whole_files import save_whole

State = dict[str, Tensor]
_SCALE = ".scale"


def quantise(weight: Float[Tensor, "row column"]) -> tuple[Int8[Tensor, "row column"], Float[Tensor, " row"]]:
    """Nearest 8-bit integers and the scale of every row; the error is at most half a scale an entry."""
    scale = (weight.float().abs().amax(dim=1) / 127).clamp_min(1e-12)
    return torch.round(weight.float() / scale[:, None]).to(torch.int8), scale


def pack(states: dict[int, State], path: Path) -> None:
    """Write the weights of several steps into one safetensors file, atomically."""
    tensors: State = {}
    for step, state in states.items():
        for name, tensor in state.items():
            key = f"{step:08d}/{name}"
            if tensor.ndim == 2:
                tensors[key], tensors[key + _SCALE] = quantise(tensor)
            else:
                tensors[key] = tensor.half()
    save_whole(tensors, path)


def packed_steps(path: Path) -> tuple[int, ...]:
    """The steps in a packed file, ascending."""
    with safe_open(path, framework="pt") as file:
        return tuple(sorted({int(key.split("/", 1)[0]) for key in file.keys()}))  # noqa: SIM118 (no dict)


def unpack(path: Path, step: int) -> State:
    """The fp32 weights of one step.

    Raises:
        KeyError: naming the steps that are there.
    """
    prefix = f"{step:08d}/"
    with safe_open(path, framework="pt") as file:
        keys = [key for key in file.keys() if key.startswith(prefix) and not key.endswith(_SCALE)]  # noqa: SIM118
        if not keys:
            raise KeyError(f"{path}: no checkpoint of step {step}; there are {packed_steps(path)}")
        state: State = {}
        for key in keys:
            tensor = file.get_tensor(key).float()
            if tensor.ndim == 2:
                tensor = tensor * file.get_tensor(key + _SCALE)[:, None]
            state[key.removeprefix(prefix)] = tensor
    return state
