"""What the parts of the benchmark cost in FLOPs, both ways: a comparison that does not depend on a machine's load.

    FLOPs = sum over calls of linear layers of 2 * rows * the layer's weights at GPT-2 small's width

Rows are counted in a network of GPT-2 small's depth and heads that is narrow, so that all of it takes minutes: which
rows are computed depends on prompts, layers and heads alone. Rows that gradients go back through count twice, those of
which some heads alone are computed for their part. Attention itself, norms, activations and logits of single tokens are
not counted.

    python -m replications.indirect_object_identification.bench_flops
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from replications.indirect_object_identification.bench import GAIN, PROMPTS, parts_of, setting_of
from replications.indirect_object_identification.bench_search import Part
from replications.indirect_object_identification.circuit import GPT2_SMALL, NAIVE_GPT2_SMALL
from torch import Tensor, nn

D_MODEL, NARROW = 768, 24
WEIGHTS = {  # of GPT-2's linear layers, in units of d_model^2
    "attn.c_attn": 3,
    "attn.c_proj": 1,
    "mlp.c_fc": 4,
    "mlp.c_proj": 4,
}


@dataclass(frozen=True)
class Cost:
    """FLOPs of a part by the engine and by plain hooks, these scaled up from the cells on which they are run."""

    name: str
    engine: float
    plain: float


def counted(network: Any, call: Callable[[], object], d_model: int = D_MODEL) -> float:
    """FLOPs of all linear layers of a GPT-2 in a call, as if it had this width."""
    total = 0.0

    def count(weights: int) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def hook(module: Any, args: tuple[Any, ...], output: Tensor) -> None:
            nonlocal total
            x, share = args[0], output.shape[-1] / module.nf  # of the columns, where some heads alone are computed
            times = 2 if torch.is_grad_enabled() and x.requires_grad else 1
            total += times * 2.0 * (x.numel() // x.shape[-1]) * weights * share * d_model**2

        return hook

    handles = [
        block.get_submodule(name).register_forward_hook(count(weights))
        for block in network.transformer.h
        for name, weights in WEIGHTS.items()
    ]
    try:
        call()
    finally:
        for handle in handles:
            handle.remove()
    return total


def costs(network: Any, parts: Iterable[Part], d_model: int = D_MODEL) -> Iterator[Cost]:
    """Of each part, of the engine as it comes first; what plain hooks record once for all calls is not counted."""
    for part in parts:
        every: list[Any] = []
        engine = counted(network, partial(_extend, every, part), d_model)
        cells = every[min(part.every // 2, len(every) - 1) :: part.every]
        part.plain(cells[:1])
        plain = counted(network, partial(part.plain, cells), d_model)
        yield Cost(part.name, engine, plain * part.cost(every) / part.cost(cells))


def _extend(cells: list[Any], part: Part) -> None:
    cells.extend(part.engine())


def markdown(found: Iterable[Cost]) -> str:
    """A table in TFLOP, with all parts together at its end."""
    rows = list(found)
    rows.append(Cost("**all**", sum(row.engine for row in rows), sum(row.plain for row in rows)))
    lines = ["| TFLOP | engine | hooks | ratio |", "|---|---|---|---|"]
    lines += [
        f"| {row.name} | {row.engine / 1e12:.2f} | {row.plain / 1e12:.1f} | {row.plain / row.engine:.1f} |"
        for row in rows
    ]
    return "\n".join(lines)


def gpt2_small() -> Iterator[Cost]:
    """Of the whole analysis at GPT-2 small's shape."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    network = GPT2LMHeadModel(GPT2Config(n_embd=NARROW))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(GAIN if parameter.ndim > 1 else 1.0)
    yield from costs(network, parts_of(setting_of(network, PROMPTS), GPT2_SMALL, NAIVE_GPT2_SMALL))


if __name__ == "__main__":
    sys.stdout.write(f"{markdown(gpt2_small())}\n")
