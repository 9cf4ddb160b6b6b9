"""A function vector in a file: safetensors, with where it came from.

The file holds one tensor, `vector` [d_model], in its own number format, and in its metadata one JSON text,
`function_vector`: task, heads, layer and `Provenance`. A second text, `sha256`, is the hash of the tensor's bytes and
that JSON: a vector that was damaged or edited by hand is not loaded. Loading gives the bits that were saved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from function_vectors.runners import Head
from function_vectors.vectors import FunctionVector

_LIBRARIES = ("torch", "transformers", "reprise-interventions", "reprise-function-vectors", "nnsight")


class VectorFileError(ValueError):
    """A file that holds no function vector, or not the one that was saved."""


def library_versions() -> dict[str, str]:
    """The installed versions of the libraries that a vector depends on."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Provenance:
    """How a vector was made.

    Args:
        model: its name, folder or id.
        model_sha256: the hash of its weights, where it is known.
        template: of the prompts, by name.
        n_prompts, shots, seed: of the clean prompts that means are over.
        versions: of libraries.
    """

    model: str
    model_sha256: str | None
    template: str
    n_prompts: int
    shots: int
    seed: int
    versions: Mapping[str, str] = field(default_factory=library_versions)


class _Written(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    task: str
    heads: tuple[Head, ...]
    layer: int | None
    provenance: Provenance


def save_vector(path: Path, vector: FunctionVector, provenance: Provenance) -> None:
    """Write a vector and its provenance.

    Raises:
        VectorFileError: the vector has numbers that are not finite, or the folder does not exist.
    """
    from safetensors.torch import save

    if not bool(vector.vector.isfinite().all()):
        raise VectorFileError(f"{path}: the vector of {vector.task} has numbers that are not finite; compute it anew")
    if not path.parent.is_dir():
        raise VectorFileError(f"{path}: folder {path.parent} does not exist; make it first")
    tensor = vector.vector.detach().cpu().contiguous()
    text = msgspec.json.encode(_Written(vector.task, vector.heads, vector.layer, provenance)).decode()
    path.write_bytes(save({"vector": tensor}, {"function_vector": text, "sha256": _sha256(tensor, text)}))


def load_vector(path: Path) -> tuple[FunctionVector, Provenance]:
    """Read a vector and its provenance; on the CPU.

    Raises:
        VectorFileError: one line, for a file that is not there, is no safetensors file, holds something else, or is not
            as it was written.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as opened:
            file: Any = opened
            metadata, names = dict(file.metadata() or {}), list(file.keys())
            tensor = file.get_tensor("vector") if names == ["vector"] else torch.empty(0)
    except FileNotFoundError:
        raise VectorFileError(f"{path}: no such file; save a vector there with save_vector") from None
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise VectorFileError(f"{path}: no readable safetensors file ({reason}); restore it or save anew") from error
    if names != ["vector"] or not {"function_vector", "sha256"} <= metadata.keys() or tensor.ndim != 1:
        raise VectorFileError(
            f"{path}: tensors {names} and metadata {sorted(metadata)}: expected one tensor 'vector' [d_model] and the "
            f"metadata function_vector and sha256; it is no file of save_vector"
        )
    text = metadata["function_vector"]
    if metadata["sha256"] != (found := _sha256(tensor, text)):
        raise VectorFileError(
            f"{path}: SHA-256 is {found[:12]}..., the file says {metadata['sha256'][:12]}...; it was damaged or "
            f"changed: restore it or save anew"
        )
    try:
        written = msgspec.json.decode(text, type=_Written)
    except msgspec.DecodeError as error:
        raise VectorFileError(f"{path}: function_vector is not as expected ({error}); save anew") from error
    return FunctionVector(tensor, written.task, written.heads, written.layer), written.provenance


def _sha256(tensor: Tensor, text: str) -> str:
    raw = tensor.contiguous().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(raw + str(tensor.dtype).encode() + text.encode()).hexdigest()
