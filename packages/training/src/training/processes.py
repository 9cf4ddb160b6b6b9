"""Data parallel: each process takes its share of every batch, and gradients are averaged.

    g = 1/P sum_p g_p,    g_p: gradient of the mean loss over the rows of process p

For a loss that is a mean over rows this is the gradient of the whole batch, so P processes step as one does, up to the
rounding of sums. Processes are started by torch's own launcher:

    python -m torch.distributed.run --nproc-per-node 2 program.py

Batch norm normalises by the rows of its own process, so a network with it trains as with the smaller batch; its running
statistics are averaged after every step, and stay equal in all processes. Random numbers are each process' own: dropout
differs from that of one process, and is the same in all of them if they seed alike.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.errors import TrainingError

StateT = TypeVar("StateT")
ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def join() -> tuple[int, int]:
    """This process' number and how many there are, the group being set up where it is not.

    Raises:
        TrainingError: if the process was not started by torch's launcher.
    """
    if not dist.is_initialized():
        missing = [name for name in ENVIRONMENT if name not in os.environ]
        if missing:
            raise TrainingError(
                f"data_parallel: expected the environment of torch's launcher, {', '.join(missing)} missing; start "
                "with `python -m torch.distributed.run --nproc-per-node N program.py`"
            )
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(_leave)
    return dist.get_rank(), dist.get_world_size()


def _leave() -> None:
    """End the group while the interpreter still runs.

    gloo's threads may hold tensors; one that is let go of while the interpreter is torn down aborts the process, now
    and then, after all its work is done. A program that ends in an exception does not wait for the others here.
    """
    if dist.is_initialized() and not hasattr(sys, "last_value"):
        dist.destroy_process_group()


def rank() -> int:
    """This process' number, whether or not it has joined a group."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))


def start_alike(modules: Iterable[nn.Module]) -> None:
    """Give every process the weights and buffers of the first."""
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor.detach(), 0)


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace gradients by their means; one that is there in some processes alone counts as 0 in the others."""
    present = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.int32)
    present = present.to(parameters[0].device)
    dist.all_reduce(present)
    used = [p for p, count in zip(parameters, present.tolist(), strict=True) if count]
    for parameter in used:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    _average([parameter.grad for parameter in used if parameter.grad is not None])


def average_terms(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """The means of the terms of the loss, in double precision."""
    values = torch.stack([term.detach().double().reshape(()) for term in terms.values()])
    dist.all_reduce(values)
    return dict(zip(terms, values / dist.get_world_size(), strict=True))


def average_statistics(statistics: Sequence[Tensor]) -> None:
    """The means of what batch norm gathered; its counts of batches are equal anyhow."""
    _average([tensor for tensor in statistics if tensor.is_floating_point()])


def gather(state: StateT) -> list[StateT]:
    """Each process' own state, in every process."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, state)
    return found


def wait() -> None:
    """Until all processes are here."""
    dist.barrier()


def _average(tensors: Sequence[Tensor]) -> None:
    """One message for each dtype."""
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for alike in kinds.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in alike])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        means = torch.split(flat, [tensor.numel() for tensor in alike])
        for tensor, mean in zip(alike, means, strict=True):
            tensor.copy_(mean.view_as(tensor))
