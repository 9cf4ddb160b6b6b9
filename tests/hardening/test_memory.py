"""Memory stays flat over 200 sweeps, steered generations and hooked passes in one process.

What Python has allocated is counted in blocks, tensors, whose memory Python does not see, by their number and size. The
resident set is compared last, with room for what allocators keep of freed memory.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

import psutil
import pytest
import torch
from tests.steering.conftest import random_model, random_vector

import interventions
from interventions import Prompts
from interventions.hooks import Modules, attached
from steering import Steer, generate

WARM, TIMES = 10, 200
BLOCKS = 600  # of Python's memory: three a call
RESIDENT = 16 * 2**20  # bytes
MODEL = random_model("gpt2")
PROMPTS = Prompts(torch.arange(12).view(2, 6))


def sweep() -> None:
    metric = interventions.logit_difference(torch.tensor([1, 2]), torch.tensor([3, 4]))
    interventions.sweep(
        MODEL.network, PROMPTS, interventions.Zero(), metric, component="z", over=("layer", "head"), positions=(-1,)
    )


def steer() -> None:
    vector = random_vector(MODEL.network)
    generate(MODEL, ["the king saw", "she"], steers=[Steer(vector, 2.0)], max_new_tokens=3, temperature=1.0)


def hook() -> None:
    modules, seen = Modules(MODEL.network), list[torch.Tensor]()
    callbacks = {(component, 1): seen.append for component in ("resid_pre", "z", "pattern", "mlp_out", "resid_post")}
    with attached(modules, callbacks), torch.no_grad():
        MODEL.network(PROMPTS.tokens)
    assert len(seen) == len(callbacks)


def tensors() -> tuple[int, int]:
    """The number and the bytes of all tensors that Python can reach."""
    gc.collect()
    found = [
        item for item in gc.get_objects() if issubclass(type(item), torch.Tensor)
    ]  # isinstance() imports lazy modules
    return len(found), sum(tensor.numel() * tensor.element_size() for tensor in found)


@pytest.mark.parametrize("work", [sweep, steer, hook])
def test_memory_is_flat(work: Callable[[], None]) -> None:
    for _ in range(WARM):
        work()
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in MODEL.network.modules()]
    process = psutil.Process()
    before, resident = tensors(), process.memory_info().rss
    blocks = sys.getallocatedblocks()
    for _ in range(TIMES):
        work()
    gc.collect()
    assert sys.getallocatedblocks() - blocks < BLOCKS
    assert tensors() == before
    assert process.memory_info().rss - resident < RESIDENT
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in MODEL.network.modules()] == hooks
