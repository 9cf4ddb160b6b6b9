"""The benchmark `reprise bench patching-gpu`: the rows of `bench` in bfloat16 on a GPU, and one of GPT-J 6B's shape.

The last is what Todd et al. 2024 (section 2.3) run for one task: the causal indirect effect of all 448 heads over 25
prompts of ten demonstrations, 11,200 forward passes in their public code. Weights and tokens are random: only the time
is of interest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interventions.bench import LENGTHS, WIDTHS, Case, Row, timed_row
from interventions.edits import Given
from interventions.metrics import probability
from interventions.prompts import Prompts
from interventions.sweeps import sweep

LAYERS, HEADS, D_MODEL, VOCABULARY = 28, 16, 4096, 50_400
PROMPTS, LENGTH = 25, 96  # ten demonstrations of "Q: word\nA: word\n\n" and a query are 80 to 110 tokens
SAMPLED = 10  # forward passes that the loop is timed on


def rows() -> Iterator[Row]:
    """The rows; raises RuntimeError where torch sees no GPU."""
    if not torch.cuda.is_available():
        raise RuntimeError("patching-gpu needs a GPU that torch sees: expected CUDA; use `reprise bench patching`")
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    yield timed_row("matmul peak", None, lambda: [a @ b for _ in range(20)], device="cuda")
    for width in WIDTHS:
        for length in LENGTHS:
            yield from Case(width, length, "cuda", torch.bfloat16).rows()
    yield from GPTJ().rows()


@dataclass(frozen=True)
class GPTJ:
    """A random network of GPT-J 6B's shape, or of another one, and random prompts."""

    layers: int = LAYERS
    d_model: int = D_MODEL
    device: str = "cuda"

    @cached_property
    def network(self) -> Any:
        from transformers import AutoModelForCausalLM, GPTJConfig

        config = GPTJConfig(n_layer=self.layers, n_head=HEADS, n_embd=self.d_model, vocab_size=VOCABULARY)
        torch.manual_seed(0)
        with torch.device(self.device):
            return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()

    @cached_property
    def tokens(self) -> Int[Tensor, "prompt pos"]:
        return torch.randint(VOCABULARY, (PROMPTS, LENGTH), generator=torch.Generator().manual_seed(0)).to(self.device)

    @cached_property
    def means(self) -> Float[Tensor, "layer head d_head"]:
        shape = (self.layers, HEADS, self.d_model // HEADS)
        return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(self.device, torch.bfloat16)

    def rows(self) -> Iterator[Row]:
        of = f"GPT-J {sum(x.numel() for x in self.network.parameters()) / 1e9:.1f}B, {self.layers * HEADS} heads x "
        of += f"{PROMPTS} prompts of {LENGTH} tokens: "
        loop = of + "one forward a head and prompt"
        share = SAMPLED / (self.layers * HEADS * PROMPTS)
        yield timed_row(loop, None, self.reference_loop, sampled=share, device=self.device)
        yield timed_row(of + "branches, probability", loop, self.branches, device=self.device)

    def branches(self) -> object:
        given = Given({layer: means[None, None] for layer, means in enumerate(self.means)})
        metric = probability(self.tokens[:, 0])
        return sweep(self.network, Prompts(self.tokens), given, metric, component="z", over=("layer", "head"))

    def reference_loop(self) -> object:
        """Forward passes as the public code of Todd et al. 2024 runs them: one prompt each, all logits."""
        return [self._patched(i * self.layers // SAMPLED, i % HEADS, i) for i in range(SAMPLED)]

    def _patched(self, layer: int, head: int, prompt: int) -> Tensor:
        size = self.d_model // HEADS

        def replace(module: Any, args: tuple[Tensor]) -> tuple[Tensor]:
            flat = args[0].clone()
            flat[:, -1, head * size : (head + 1) * size] = self.means[layer, head]
            return (flat,)

        projection = self.network.transformer.h[layer].attn.out_proj
        handle = projection.register_forward_pre_hook(replace)
        try:
            with torch.no_grad():
                logits: Tensor = self.network(self.tokens[prompt : prompt + 1], use_cache=False).logits
            return logits[0, -1].softmax(dim=-1)
        finally:
            handle.remove()
