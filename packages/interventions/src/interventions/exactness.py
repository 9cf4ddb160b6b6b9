"""How far branches are from plain hooks: the largest difference of any cell, by architecture and number format.

    difference = max |value_branches - value_hooks| over prompts, components and cells,    in logits

Every component of an architecture is replaced by that of other prompts, in a small random network: at the last token,
at every position, in every head, and everywhere at once. In exact arithmetic all differences are 0. In bfloat16 and
float16 both ways round, differently; there the errors of each against plain hooks in float32 (root mean square) say
more than their difference.

    python -m interventions.exactness        prints the table
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interventions.edits import Replace
from interventions.hooks import COMPONENTS, HEADS, Modules
from interventions.metrics import token_logit
from interventions.prompts import Prompts, as_prompts
from interventions.sweeps import Axis, sweep

_TOKENS = {"vocab_size": 37, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
_GPT = {"n_layer": 3, "n_head": 4, "n_embd": 32, "n_positions": 64, **_TOKENS}
_HEADS = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 64}
_NEOX = {**_HEADS, "intermediate_size": 40, **_TOKENS}
_LLAMA = {**_NEOX, "num_key_value_heads": 2, "head_dim": 8}
_GEMMA = {**_LLAMA, "sliding_window": 5, "query_pre_attn_scalar": 8}
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "gpt2": _GPT,
    "gptj": {**_GPT, "rotary_dim": 4},
    "gpt_neox": _NEOX,
    "llama": _LLAMA,
    "mistral": {**_LLAMA, "sliding_window": 5},
    "qwen2": {**_LLAMA, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "qwen3": _LLAMA,
    "gemma2": {**_GEMMA, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 10.0},
    "gemma3_text": {**_GEMMA, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "phi": _NEOX,
    "phi3": {**_LLAMA, "sliding_window": 5},
    "opt": {**_HEADS, "ffn_dim": 40, "word_embed_proj_dim": 32, **_TOKENS},
}
"""Settings of small networks by `model_type`; windows are shorter than the prompts."""

Grid = tuple[tuple[Axis, ...], tuple[int, ...] | None]
_LAST: tuple[int, ...] = (-1,)
STREAM_GRIDS: tuple[Grid, ...] = ((("layer",), _LAST), (("layer", "position"), None), (("layer",), None))
HEAD_GRIDS: tuple[Grid, ...] = (
    (("layer", "head"), _LAST),
    (("layer", "position"), None),
    (("layer", "head"), None),
    (("layer", "head", "position"), None),
)


@dataclass(frozen=True)
class Agreement:
    """One row: `difference` and `largest_effect` in logits; the errors are against plain hooks in float32."""

    architecture: str
    dtype: str
    cells: int
    difference: float
    branches_error: float
    hooks_error: float
    largest_effect: float


def largest_differences(
    networks: Sequence[str] | Mapping[str, nn.Module] = tuple(CONFIGS),
    dtypes: Sequence[torch.dtype] = (torch.float32, torch.bfloat16),
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> list[Agreement]:
    """Compare branches with plain hooks, on every component that each network has.

    Args:
        networks: names of `CONFIGS`, built here with random weights, or networks of one's own by name.
        seed: of weights and prompts.

    Raises:
        ValueError: a name that is not in `CONFIGS`.
    """
    if not isinstance(networks, Mapping):
        if unknown := set(networks) - CONFIGS.keys():
            raise ValueError(f"{', '.join(sorted(unknown))}: no such config: expected some of {', '.join(CONFIGS)}")
        networks = {name: random_network(name, seed=seed) for name in networks}
    rows = []
    for name, network in networks.items():
        reference, _ = _values(_copy(network, torch.float32, device), seed, branches=False)
        for dtype in dtypes:
            converted = _copy(network, dtype, device)
            hooks, clean = _values(converted, seed, branches=False)
            branches, _ = _values(converted, seed, branches=True)
            row = Agreement(
                architecture=name,
                dtype=str(dtype).removeprefix("torch."),
                cells=hooks.shape[1],
                difference=float((branches - hooks).abs().max()),
                branches_error=float((branches - reference).square().mean().sqrt()),
                hooks_error=float((hooks - reference).square().mean().sqrt()),
                largest_effect=float((hooks - clean[:, None]).abs().max()),
            )
            rows.append(row)
    return rows


def markdown(rows: Sequence[Agreement]) -> str:
    """The rows as a table."""
    lines = [
        "| architecture | format | cells | largest difference | branches' error | hooks' error | largest effect |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        numbers = " | ".join(f"{x:.1e}" for x in (row.difference, row.branches_error, row.hooks_error))
        lines.append(f"| {row.architecture} | {row.dtype} | {row.cells} | {numbers} | {row.largest_effect:.1f} |")
    return "\n".join(lines)


def random_network(name: str, *, seed: int) -> nn.Module:
    """A small network in which weights are of the size of their inputs, and norms have gains and biases."""
    import transformers

    config = transformers.AutoConfig.for_model(name, **CONFIGS[name])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = transformers.AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = 0.3 * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter + noise if parameter.ndim == 1 else noise)
    return network.eval()


def _copy(network: nn.Module, dtype: torch.dtype, device: torch.device | str) -> nn.Module:
    return copy.deepcopy(network).to(device=device, dtype=dtype)


def _prompts(d_vocab: int, seed: int) -> tuple[Prompts, Prompts]:
    """Prompts of 9, 6 and 8 tokens, and others that differ from the first token on."""
    generator = torch.Generator().manual_seed(seed)
    ours = [torch.randint(1, d_vocab - 1, (n,), generator=generator).tolist() for n in (9, 6, 8)]
    return as_prompts(ours), as_prompts([[(7 * token + 1) % d_vocab for token in prompt] for prompt in ours])


def _values(
    network: nn.Module, seed: int, *, branches: bool
) -> tuple[Float[Tensor, "prompt cell"], Float[Tensor, " prompt"]]:
    """All values of all sweeps of a network in a row, and the clean run's."""
    config: Any = network.config
    modules = Modules(network)
    prompts, others = _prompts(int(config.vocab_size), seed)
    values, clean = [], torch.zeros(0)
    for component in COMPONENTS:
        if not _has(modules, component):
            continue
        for over, positions in HEAD_GRIDS if component in HEADS else STREAM_GRIDS:
            result = sweep(
                network,
                prompts,
                Replace(others),
                token_logit(torch.arange(1, 1 + len(prompts))),
                component=component,
                over=over,
                positions=positions,
                method="branches" if branches else "oracle",
            )
            values.append(result.values.flatten(1))
            clean = result.clean
    return torch.cat(values, dim=1), clean


def _has(modules: Modules, component: str) -> bool:
    try:
        modules.check(component, 0)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    print(markdown(largest_differences()))  # noqa: T201
