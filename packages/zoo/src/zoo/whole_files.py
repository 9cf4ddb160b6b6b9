"""Tensors in a file, written whole or not at all.

safetensors writes under a random name beside the file and renames it at the end; a kill in between leaves that name
behind for good. Here the name is the file's own with `.partial`, so that the next attempt overwrites what a kill left.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor


def save_whole(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write `tensors` (and `metadata`) as safetensors; `path` is never seen half-written."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(save(dict(tensors), None if metadata is None else dict(metadata)))
    partial.replace(path)
