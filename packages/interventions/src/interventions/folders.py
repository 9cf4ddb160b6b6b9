"""Model folders: what is in one, and whether it is unchanged.

Two kinds are known by their config.json: `"model_type": "attention_only"` is this project's own format (the parameter
names of a TransformerLens bridge, a card.json with hashes), anything else is a Hugging Face folder. Weights are read
from safetensors alone; pickled weights and remote code are never loaded.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from interventions.errors import ModelError

ATTENTION_ONLY = "attention_only"


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a folder.

    Raises:
        ModelError: if it is missing or is not a JSON object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file; expected a model folder with config.json and *.safetensors") from error
    except (ValueError, OSError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read as JSON ({error}); restore the file") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path}: expected a JSON object, got a {type(config).__name__}; restore the file")
    return config


def check_hashes(folder: Path) -> None:
    """Compare the files of a folder with the hashes of its card.json, if it has one.

    Raises:
        ModelError: naming the file that is missing or changed.
    """
    card = folder / "card.json"
    if not card.exists():
        return
    try:
        expected = dict(json.loads(card.read_text(encoding="utf-8"))["sha256"])
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise ModelError(f"{card}: not a model card with the key sha256 ({error}); restore the file") from error
    for name, sha256 in expected.items():
        path = folder / name
        if not path.exists():
            raise ModelError(f"{path}: missing, though card.json lists it; restore it or train the model again")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise ModelError(
                f"{path}: SHA-256 is {found[:12]}..., card.json says {sha256[:12]}...; the file was changed: restore "
                "it or train the model again"
            )


def check_code(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a config that has transformers fetch a kernel, which is code, from a hub.

    Raises:
        ModelError: naming it.
    """
    for key in ("attn_implementation", "_attn_implementation"):
        if "/" in str(config.get(key)):
            raise ModelError(
                f"{folder / 'config.json'}: {key} is {str(config[key])[:60]!r}, code from elsewhere, which is never "
                "run; remove the key"
            )


def check_weights(folder: Path) -> None:
    """Raises ModelError for a folder without safetensors."""
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{folder}: no *.safetensors; weights are loaded from safetensors alone, never by unpickling")
