"""Control vectors of llama.cpp: GGUF files with an array [d_model], float32, for each of some layers.

    direction.N  =  v_N at resid_post of layer N                   N from 1 to n_layers - 1

That is what llama.cpp does with the file. `common_control_vector_load_one` (common/common.cpp) puts direction N at
offset n_embd (N - 1) of a buffer, and refuses N = 0; `llama_adapter_cvec::apply` (src/llama-adapter.cpp) fills the
tensor of layer il, from 1 on, from offset n_embd (il - 1), so that il = N; and every architecture (`build_cvec` in
src/models) adds it to l_out, what layer il returns, at every position, times the scale given on the command line, which
is our coefficient. The output of layer 0 cannot be steered there. repeng's `export_gguf` writes the same numbers. Not
so llama.cpp's own llama-cvector-generator: its direction N was measured at the output of layer N - 1, and acts at that
of layer N all the same; it is read as what it does.

resid_pre of layer l is resid_post of layer l - 1, so that such a vector is converted exactly. What the format cannot
hold is refused: layer 0's output, rows for single positions, and numbers that float32 would round.

Of the model a file says `controlvector.model_hint` alone, which llama.cpp does not look at; here it must be the
model's. There is no hash in it: a number that was changed is not noticed. To keep a vector, use `save_vector`.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from interventions import Model
from steering.errors import SteeringError
from steering.repeng_form import as_array, behind_layers, check_model_type, checked, identity_of
from steering.vector_files import whole_file
from steering.vectors import ModelIdentity, SteeringVector

_ARCHITECTURE = "controlvector"
_NAME = re.compile(r"direction\.(0|[1-9][0-9]{0,5})")


def write_gguf(path: Path, vector: SteeringVector) -> None:
    """Write a vector for llama.cpp; an existing file is replaced, by the whole vector or not at all.

    Its facts are not written. `controlvector.layer_count` is the number of directions, as in files of repeng and of
    llama.cpp.

    Raises:
        SteeringError: the format cannot hold the vector, the file cannot be written, or gguf is not installed.
    """
    gguf = _library(path)
    directions = behind_layers(vector, "a GGUF file")
    if 0 in directions:
        raise SteeringError(
            f"{path}: {vector.name} has the output of layer 0, which llama.cpp cannot steer: expected layers 1 to "
            f"{vector.model.n_layers - 1}; leave it out with at(...), or use save_vector"
        )
    for layer, direction in directions.items():
        if not torch.equal(direction.float().to(direction.dtype), direction):
            raise SteeringError(
                f"{path}: layer {layer} of {vector.name} is {direction.dtype} and would be rounded: expected numbers "
                f"that float32 holds; round the directions with .float(), or use save_vector"
            )
    with whole_file(path) as partial:
        writer = gguf.GGUFWriter(partial, _ARCHITECTURE)
        writer.add_name(vector.name)
        writer.add_string(f"{_ARCHITECTURE}.model_hint", vector.model.model_type)
        writer.add_uint32(f"{_ARCHITECTURE}.layer_count", len(directions))
        for layer, direction in directions.items():
            writer.add_tensor(f"direction.{layer}", as_array(direction.float()))
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def read_gguf(
    path: Path,
    model: nn.Module | Model | ModelIdentity,
    *,
    name: str | None = None,
    any_model_type: bool = False,
) -> SteeringVector:
    """Read a control vector, at resid_post, float32.

    Args:
        model: that the vector is of; its number of layers and width are not in the file.
        name: by default the file's `general.name`, or the name of the file.
        any_model_type: take it whatever its hint says.

    Raises:
        SteeringError: one line, for a file that is not there, is no GGUF file or no control vector, or does not fit the
            model; or gguf is not installed.
    """
    reader = _read(path, _library(path))
    identity = identity_of(model)
    kind, hint = _text(reader, "general.architecture"), _text(reader, f"{_ARCHITECTURE}.model_hint")
    if kind != _ARCHITECTURE:
        raise SteeringError(
            f"{path}: general.architecture is {None if kind is None else kind[:60]!r}: expected {_ARCHITECTURE!r}; it "
            f"is no control vector"
        )
    if hint is not None and not any_model_type:
        check_model_type(str(path), hint, identity)
    pairs = [_direction(path, tensor) for tensor in reader.tensors]
    if any(layer == 0 for layer, _ in pairs):
        raise SteeringError(
            f"{path}: direction.0: expected 1 to {identity.n_layers - 1}: llama.cpp refuses it; if repeng wrote the "
            f"file, load it with repeng's import_gguf and use from_repeng"
        )
    facts = {"from": "gguf", "file": path.name, "model_hint": hint}
    called = name or _text(reader, "general.name") or path.stem
    return SteeringVector(checked(str(path), pairs, identity, first=1), called, identity, "resid_post", facts)


def _library(path: Path) -> Any:
    try:
        return import_module("gguf")
    except ModuleNotFoundError as error:
        raise SteeringError(
            f"{path}: gguf is not installed; pip install 'reprise-steering[gguf]' for control vectors of llama.cpp"
        ) from error


def _read(path: Path, gguf: Any) -> Any:
    """gguf's reader, with an end: its own reads on behind the end of a damaged file, for as long as a count says."""

    class Reader(gguf.GGUFReader):  # type: ignore[misc]
        def _get(self, offset: Any, dtype: Any, count: Any = 1, override_order: Any = None) -> Any:
            if int(offset) + np.dtype(dtype).itemsize * int(count) > len(self.data):
                raise ValueError("it ends before it should")
            return super()._get(int(offset), dtype, count, override_order)

    try:
        with np.errstate(over="raise"):
            reader = Reader(path)
            _check_offsets(reader)
    except FileNotFoundError:
        raise SteeringError(f"{path}: no such file; write a vector there with write_gguf") from None
    except Exception as error:  # whatever the library stumbles over: it does not check what it reads
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise SteeringError(f"{path}: no readable GGUF file ({reason}); restore it or write anew") from error
    return reader


def _check_offsets(reader: Any) -> None:
    """Tensors lie one behind the other, as llama.cpp demands."""
    expected = reader.data_offset
    for tensor in reader.tensors:
        if tensor.data_offset != expected:
            raise ValueError(f"{tensor.name[:30]} is at {tensor.data_offset}, not at {expected}")
        expected += -(-tensor.n_bytes // int(reader.alignment)) * int(reader.alignment)


def _text(reader: Any, key: str) -> str | None:
    """The text of a key, None where there is none."""
    field = reader.get_field(key)
    try:
        value = None if field is None else field.contents()
    except (ValueError, IndexError):
        return None
    return value if isinstance(value, str) else None


def _direction(path: Path, tensor: Any) -> tuple[int, Tensor]:
    found = _NAME.fullmatch(tensor.name)
    if found is None or tensor.tensor_type.name != "F32" or tensor.data.ndim != 1:
        raise SteeringError(
            f"{path}: tensor {tensor.name[:30]!r} is {tensor.tensor_type.name} with {tensor.data.ndim} dimensions: "
            f"expected 'direction.N', F32 [d_model]; it is no control vector"
        )
    return int(found[1]), torch.from_numpy(np.array(tensor.data, dtype=np.float32))
