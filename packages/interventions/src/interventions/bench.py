"""The benchmark `reprise bench patching`: sweeps by branches beside the other ways to get the same numbers.

Plain hooks, TransformerLens, nnsight and the loop of Todd et al. 2024 run on the same random networks of GPT-2-small
depth, all rows in one run.

Loops that would take hours are timed on evenly spread cells, and their row says what share that is. The FLOPs of a row
are those of its matrix products, counted by torch; the peak is a product of the shape of GPT-2 small's MLP.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from interventions.edits import Given
from interventions.metrics import log_probability, logit_difference
from interventions.prompts import Prompts
from interventions.sweeps import sweep

Work = Mapping[str, float]
Row = tuple[str, str | None, Callable[[], object], Work]
LAYERS, HEADS, VOCABULARY, PROMPTS = 12, 12, 50_257, 4
WIDTHS, LENGTHS = (384, 768), (64, 128, 512)
CELLS, CELLS_LONG = 3, 1  # that a loop of one forward pass a cell is timed on; the second where prompts are long
POSITIONS, POSITIONS_LONG = 8, 4  # that branches over positions are timed on
LONG = 256


def rows(widths: tuple[int, ...] = WIDTHS, lengths: tuple[int, ...] = LENGTHS) -> Iterator[Row]:
    """The rows, for every width and prompt length."""
    a, b = torch.randn(2048, 768), torch.randn(768, 3072)
    yield timed_row("matmul peak", None, lambda: [a @ b for _ in range(20)])
    for width in widths:
        for length in lengths:
            yield from Case(width, length).rows()


def timed_row(
    name: str, baseline: str | None, call: Callable[[], object], *, sampled: float = 1.0, device: str = "cpu"
) -> Row:
    """A row whose FLOPs and memory are counted by torch; on a GPU, calls end when their work has.

    Memory is the most that tensors take at once, beyond those that were there before.
    """
    call()  # what a first call makes and keeps is not the row's
    memory = profile(activities=[ProfilerActivity.CPU], profile_memory=device == "cpu")
    with memory as seen, FlopCounterMode(display=False) as counter:
        call()
    work = {"flops": float(counter.get_total_flops()), "sampled": sampled}
    if device == "cpu":
        return name, baseline, call, {**work, "peak_mib": _most_at_once(seen) / 2**20}

    def finished() -> None:
        call()
        torch.cuda.synchronize()

    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    finished()
    return name, baseline, finished, {**work, "peak_mib": (torch.cuda.max_memory_allocated() - before) / 2**20}


def _most_at_once(seen: Any) -> int:
    """Bytes, from what a profiler saw being allocated and freed."""
    changes = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    ordered = sorted(changes, key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in ordered), default=0)


@dataclass(frozen=True)
class Case:
    """All rows of one width and prompt length; prompts, and what is patched into them, are random."""

    width: int
    length: int
    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    @property
    def cells(self) -> int:
        return CELLS_LONG if self.length > LONG else CELLS

    @property
    def layers(self) -> tuple[int, ...]:
        """Of the heads that a loop is timed on."""
        return (1, 6, 11)[-self.cells :]

    @cached_property
    def network(self) -> Any:
        from transformers import GPT2Config, GPT2LMHeadModel

        torch.manual_seed(0)
        network = GPT2LMHeadModel(GPT2Config(n_embd=self.width, n_layer=LAYERS, n_head=HEADS))
        return network.to(self.device, self.dtype).eval()

    @cached_property
    def bridge(self) -> Any:
        from transformer_lens.model_bridge.sources import build_bridge_from_module

        network = copy.deepcopy(self.network)
        network.set_attn_implementation("eager")
        return build_bridge_from_module(network, "GPT2LMHeadModel", hf_config=network.config).eval()

    @cached_property
    def nnsight(self) -> Any:
        """Of a copy: nnsight replaces the forward of every module it has seen, for good, and other ways would pay."""
        import nnsight

        return nnsight.NNsight(copy.deepcopy(self.network))

    @cached_property
    def tokens(self) -> Int[Tensor, "prompt pos"]:
        tokens = torch.randint(VOCABULARY, (PROMPTS, self.length), generator=torch.Generator().manual_seed(0))
        return tokens.to(self.device)

    @cached_property
    def answers(self) -> Int[Tensor, "2 prompt"]:
        answers = torch.randint(VOCABULARY, (2, PROMPTS), generator=torch.Generator().manual_seed(1))
        return answers.to(self.device)

    @cached_property
    def z(self) -> dict[int, Float[Tensor, "prompt 1 head d_head"]]:
        return self._random(2, 1, HEADS, self.width // HEADS)

    @cached_property
    def stream(self) -> dict[int, Float[Tensor, "prompt pos d_model"]]:
        return self._random(3, self.length, self.width)

    def _random(self, seed: int, *shape: int) -> dict[int, Tensor]:
        """By layer, for each prompt."""
        generator = torch.Generator().manual_seed(seed)
        parts = [torch.randn(PROMPTS, *shape, generator=generator) for _ in range(LAYERS)]
        return {layer: part.to(self.device, self.dtype) for layer, part in enumerate(parts)}

    def rows(self) -> Iterator[Row]:
        of = f"d {self.width}, T {self.length}: "
        heads, positions = LAYERS * HEADS, LAYERS * self.length
        loop, hooks = of + "heads, one prompt a forward, full logits", of + "heads, plain hooks"
        lens = of + "positions, TransformerLens"
        sampled = POSITIONS_LONG if self.length > LONG else POSITIONS
        one, few, places = 1 / heads, self.cells / heads, self.cells / positions
        yield self._row(of + "one forward pass", None, lambda: self._forward(self.tokens, full=True))
        yield self._row(loop, None, self.reference_loop, one)
        yield self._row(hooks, loop, self._plain_hooks, few)
        yield self._row(of + "heads, TransformerLens", loop, self._transformer_lens_heads, few)
        yield self._row(of + "heads, nnsight", loop, self._nnsight, few)
        yield self._row(of + "heads, branches, logit difference", loop, lambda: self.heads(full=False))
        yield self._row(of + "heads, branches, log-probability (all logits)", loop, lambda: self.heads(full=True))
        yield self._row(lens, None, self.transformer_lens_positions, places)
        yield self._row(of + "positions, plain hooks", lens, lambda: self.positions("oracle", self.cells), places)
        branches = of + "positions, branches"
        yield self._row(branches, lens, lambda: self.positions("branches", sampled), sampled / self.length)

    def _row(self, name: str, baseline: str | None, call: Callable[[], object], sampled: float = 1.0) -> Row:
        return timed_row(name, baseline, call, sampled=sampled, device=self.device)

    def _forward(self, tokens: Tensor, *, full: bool) -> Tensor:
        with torch.no_grad():
            logits: Tensor = self.network(tokens, use_cache=False, logits_to_keep=0 if full else 1).logits
        return logits

    def _patched(self, layer: int, head: int, tokens: Tensor, z: Tensor, *, full: bool) -> Tensor:
        """One forward pass in which a hook of this function's own puts z in at the last token."""
        size = self.width // HEADS

        def replace(module: Any, args: tuple[Tensor]) -> tuple[Tensor]:
            flat = args[0].clone()
            flat[:, -1, head * size : (head + 1) * size] = z
            return (flat,)

        handle = self.network.transformer.h[layer].attn.c_proj.register_forward_pre_hook(replace)
        try:
            return self._forward(tokens, full=full)[:, -1]
        finally:
            handle.remove()

    def reference_loop(self) -> object:
        """One cell as the public code of Todd et al. 2024 runs it: a forward pass for each prompt, all logits."""
        return [self._patched(6, 5, self.tokens[i : i + 1], self.z[6][i, 0, 5], full=True) for i in range(PROMPTS)]

    def _plain_hooks(self) -> object:
        return [self._patched(layer, 5, self.tokens, self.z[layer][:, 0, 5], full=False) for layer in self.layers]

    def heads(self, *, full: bool) -> object:
        metric = log_probability(self.answers[0]) if full else logit_difference(*self.answers)
        edit, prompts = Given(self.z), Prompts(self.tokens)
        return sweep(self.network, prompts, edit, metric, component="z", over=("layer", "head"))

    def positions(self, method: Any, cells: int) -> object:
        metric = logit_difference(*self.answers)
        places = torch.linspace(-self.length, -1, min(cells, self.length)).long().tolist()
        layers = None if method == "branches" else [6]
        return sweep(
            self.network,
            Prompts(self.tokens),
            Given(self.stream),
            metric,
            component="resid_pre",
            over=("layer", "position"),
            layers=layers,
            positions=places,
            method=method,
        )

    def _transformer_lens(self, name: str, put: Callable[[Tensor, Any, Any], Tensor], cells: list[Any]) -> object:
        import pandas as pd
        from transformer_lens.patching import generic_activation_patch

        def metric(logits: Tensor) -> Tensor:
            last = logits[:, -1]
            rows = torch.arange(PROMPTS, device=self.device)
            return (last[rows, self.answers[0]] - last[rows, self.answers[1]]).mean()

        frame = pd.DataFrame(cells)
        nothing: Any = defaultdict(lambda: None)  # the activations come from `put`
        with torch.no_grad():
            return generic_activation_patch(
                self.bridge, self.tokens, nothing, metric, put, name, index_df=frame, return_index_df=False
            )

    def _transformer_lens_heads(self) -> object:
        def put(z: Tensor, index: Any, cache: Any) -> Tensor:
            z[:, -1, index[1]] = self.z[index[0]][:, 0, index[1]]
            return z

        return self._transformer_lens("z", put, [{"layer": layer, "head_index": 5} for layer in self.layers])

    def transformer_lens_positions(self) -> object:
        def put(stream: Tensor, index: Any, cache: Any) -> Tensor:
            stream[:, index[1]] = self.stream[index[0]][:, index[1]]
            return stream

        places = torch.linspace(0, self.length - 1, self.cells).long().tolist()
        return self._transformer_lens("resid_pre", put, [{"layer": 6, "pos": place} for place in places])

    def _nnsight(self) -> object:
        view, size, found = self.nnsight, self.width // HEADS, []
        with torch.no_grad():
            for layer in self.layers:
                with view.trace(self.tokens, use_cache=False, logits_to_keep=1):
                    view.transformer.h[layer].attn.c_proj.input[:, -1, 5 * size : 6 * size] = self.z[layer][:, 0, 5]
                    logits = view.lm_head.output[:, -1].save()
                found.append(logits)
        return found
