"""The benchmark `reprise bench function-vectors-gpu`: the rows of `bench` for a network of GPT-J 6B's shape on a GPU.

The network has 28 layers of 16 heads and random weights in bfloat16; seconds are those of one task.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from function_vectors.bench import Extraction
from interventions.bench import Row, timed_row
from interventions.bench_gpu import GPTJ

EVERY, EVERY_MEAN = 100, 5  # of the reference's passes, as in `bench`


def rows() -> Iterator[Row]:
    """The rows; raises RuntimeError where torch sees no GPU."""
    if not torch.cuda.is_available():
        raise RuntimeError(
            "function-vectors-gpu needs a GPU that torch sees: expected CUDA; use `reprise bench function-vectors`"
        )
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    yield timed_row("matmul peak", None, lambda: [a @ b for _ in range(20)], device="cuda")
    yield from Extraction(GPTJ().network, every=EVERY, every_mean=EVERY_MEAN).rows("GPT-J 6B: ")
