"""How many branches go through the layers at once: as many as a budget of bytes allows.

A branch of w rows takes the most memory either inside its MLP (the hidden layer before and behind the activation beside
the stream) or inside attention, where torch's fused kernel is given the T keys and values that the branch looks at, and
the written-out one (single rows, edited patterns, soft caps) holds its w x T scores three times over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from interventions.hooks import Modules
from interventions.prompts import Prompts

CellT = TypeVar("CellT")
LEAST = 16 * 2**20


def default_budget(modules: Modules, prompts: Prompts) -> int:
    """Half of the logits of one plain forward pass over the prompts, in bytes; at least 16 MiB.

    The other half is for what the shared pass keeps: keys, values and the stream of every layer.
    """
    config: Any = modules.network.config
    size = next(modules.network.parameters()).element_size()
    return max(LEAST, len(prompts) * prompts.length * int(config.vocab_size) * size // 2)


def in_chunks(
    modules: Modules,
    cells: Sequence[CellT],
    batch: int,
    width: int,
    length: int,
    budget: int,
    *,
    patterns: bool = False,
) -> list[Sequence[CellT]]:
    """The cells in groups of about one size, each of which fits the budget as branches; at least one cell a group."""
    at_once = max(1, budget // branch_bytes(modules, batch, width, length, patterns=patterns))
    groups = -(-len(cells) // at_once)
    at_once = -(-len(cells) // groups)
    return [cells[first : first + at_once] for first in range(0, len(cells), at_once)]


def branch_bytes(modules: Modules, batch: int, width: int, length: int, *, patterns: bool = False) -> int:
    """About what one branch of each of `batch` prompts takes, of `width` rows that look at `length` keys.

    Args:
        patterns: whether the sweep edits them.
    """
    config: Any = modules.network.config
    parameter = next(modules.final_norm.parameters())
    d_model, rows = parameter.shape[-1], batch * width
    mlp = rows * (4 * d_model + 5 * modules.widest // 2)
    attention = rows * 7 * d_model
    if width == 1 or patterns or getattr(config, "attn_logit_softcapping", None):
        attention += rows * 3 * modules.n_heads * length
    else:
        attention += 2 * batch * length * d_model * modules.n_kv_heads // modules.n_heads
    return int(parameter.element_size() * max(mlp, attention))
