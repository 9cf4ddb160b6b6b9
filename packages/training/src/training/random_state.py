"""The random state of a process: torch's (CPU, and CUDA where it is in use), numpy's global one and Python's."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def state() -> dict[str, Any]:
    """What `restore` needs, as tensors and numbers."""
    numpy_state: Any = np.random.get_state()
    kind, keys, position, has_gauss, gauss = numpy_state
    in_use = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    version, internal, next_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if in_use else [],
        "numpy": [str(kind), torch.tensor(keys.tolist()), int(position), int(has_gauss), float(gauss)],
        "python": [version, torch.tensor(internal), next_gauss],
    }


def restore(saved: dict[str, Any]) -> None:
    """Set the random state of this process."""
    torch.set_rng_state(saved["torch"])
    if saved["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(saved["cuda"])
    kind, keys, position, has_gauss, gauss = saved["numpy"]
    np.random.set_state((kind, np.array(keys.tolist(), dtype=np.uint32), position, has_gauss, gauss))
    version, internal, next_gauss = saved["python"]
    random.setstate((version, tuple(internal.tolist()), next_gauss))
