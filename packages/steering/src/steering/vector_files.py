"""A steering vector in a file: safetensors, with where it came from.

The file holds one tensor a layer, `layer.N` [d_model] or [pos, d_model], each in its own number format, and in its
metadata one JSON text, `steering_vector`: name, component, `ModelIdentity` and facts. A second text, `sha256`, is the
hash of the tensors (layer, format, shape and bytes, in the order of the layers) and of that JSON: a vector that was
damaged or edited by hand is not loaded. Loading gives the bits that were saved.

Versions of libraries are among the facts (`versions`): those that made the vector where it says so, otherwise those
that saved it first.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from steering.errors import SteeringError
from steering.vectors import Component, ModelIdentity, SteeringVector

_LIBRARIES = ("torch", "transformers", "scikit-learn", "reprise-interventions", "reprise-steering")
_FORMATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_NAME = re.compile(r"layer\.(0|[1-9][0-9]{0,5})")
_TEXTS = {"steering_vector", "sha256"}


def library_versions() -> dict[str, str]:
    """The installed versions of the libraries that a vector depends on."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class _Written(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    component: Component
    model: ModelIdentity
    facts: dict[str, Any]


def save_vector(path: Path, vector: SteeringVector) -> None:
    """Write a vector; an existing file is replaced, by the whole vector or not at all.

    Args:
        vector: its facts must be what JSON can hold; tuples come back as lists.

    Raises:
        SteeringError: it has no directions, one that is not finite or does not fit its model, or facts that are no
            JSON; or the file cannot be written.
    """
    from safetensors.torch import save

    if problem := _problem(vector):
        raise SteeringError(f"{path}: {vector.name} cannot be saved: {problem}; compute it anew")
    facts = _plain({"versions": library_versions(), **vector.facts})
    text = None
    try:
        if json.loads(json.dumps(facts, allow_nan=False)) == facts:
            text = msgspec.json.encode(_Written(vector.name, vector.component, vector.model, facts)).decode()
    except (TypeError, ValueError, RecursionError):
        pass
    if text is None:
        raise SteeringError(
            f"{path}: name and facts of {vector.name} are not what JSON can hold: expected texts, finite numbers, "
            f"lists and mappings from texts; convert the others"
        )
    tensors = {layer: vector.directions[layer].detach().cpu().contiguous() for layer in vector.layers}
    metadata = {"steering_vector": text, "sha256": _sha256(tensors, text)}
    with whole_file(path) as partial:
        # A tensor that is stored twice would be refused as shared memory, and one layer may well be another's.
        partial.write_bytes(save({f"layer.{at}": tensor.clone() for at, tensor in tensors.items()}, metadata))


def load_vector(path: Path) -> SteeringVector:
    """Read a vector; on the CPU.

    Raises:
        SteeringError: one line, for a file that is not there, is no safetensors file, holds something else, or is not
            as it was written.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as opened:
            file: Any = opened
            metadata, names = dict(file.metadata() or {}), sorted(file.keys())
            ours = metadata.keys() == _TEXTS and all(_NAME.fullmatch(name) for name in names)
            tensors = {int(name.partition(".")[2]): file.get_tensor(name) for name in names} if ours else {}
    except FileNotFoundError:
        raise SteeringError(f"{path}: no such file; save a vector there with save_vector") from None
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise SteeringError(f"{path}: no readable safetensors file ({reason}); restore it or save anew") from error
    if not ours or any(tensor.dtype not in _FORMATS or not tensor.ndim for tensor in tensors.values()):
        raise SteeringError(
            f"{path}: tensors {_shortened(names)} and metadata {_shortened(sorted(metadata))}: expected one float "
            f"tensor 'layer.N' a layer and the metadata sha256 and steering_vector; it is no file of save_vector"
        )
    text = metadata["steering_vector"]
    if metadata["sha256"] != (found := _sha256(tensors, text)):
        raise SteeringError(
            f"{path}: SHA-256 is {found[:12]}..., the file says {metadata['sha256'][:12]}...; it was damaged or "
            f"changed: restore it or save anew"
        )
    try:
        written = msgspec.json.decode(text, type=_Written)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise SteeringError(f"{path}: steering_vector is not as expected ({error}); save anew") from error
    vector = SteeringVector(
        {layer: tensors[layer] for layer in sorted(tensors)},
        written.name,
        written.model,
        written.component,
        written.facts,
    )
    if problem := _problem(vector):
        raise SteeringError(f"{path}: {problem}; it is no file of save_vector: save anew")
    return vector


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name to write to, which becomes `path` at the end, and is gone after an error.

    Raises:
        SteeringError: the folder does not exist, or the file cannot be written.
    """
    if not path.parent.is_dir():
        raise SteeringError(f"{path}: folder {path.parent} does not exist; make it first")
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise SteeringError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from error
    finally:
        partial.unlink(missing_ok=True)


def _problem(vector: SteeringVector) -> str | None:
    """What is wrong with a vector, if something is."""
    if not vector.directions:
        return "it has no directions"
    n_layers, width = vector.model.n_layers, vector.model.d_model
    for layer, direction in sorted(vector.directions.items()):
        if not 0 <= layer < n_layers:
            return f"it has a layer {layer}, {vector.model.name} has layers 0 to {n_layers - 1}"
        if direction.ndim not in (1, 2) or direction.shape[-1] != width or not direction.numel():
            return f"layer {layer} has shape {tuple(direction.shape)}, not [{width}] or [pos, {width}]"
        if direction.dtype not in _FORMATS:
            return f"layer {layer} has format {direction.dtype}, not one of {', '.join(map(str, _FORMATS))}"
        if not bool(direction.isfinite().all()):
            return f"layer {layer} has numbers that are not finite"
    return None


def _plain(value: Any) -> Any:
    """The same with lists in place of tuples, and dictionaries in place of other mappings."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def _sha256(tensors: Mapping[int, Tensor], text: str) -> str:
    digest = hashlib.sha256()
    for layer, tensor in sorted(tensors.items()):
        digest.update(f"{layer} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    digest.update(text.encode())
    return digest.hexdigest()


def _shortened(names: Sequence[str]) -> str:
    """The first few of them."""
    return str([name[:30] for name in names[:4]]) if len(names) <= 4 else f"{[name[:30] for name in names[:4]]}..."
