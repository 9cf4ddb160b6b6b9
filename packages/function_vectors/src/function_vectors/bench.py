"""The benchmark `reprise bench function-vectors`: the extraction for one task, beside the loops of the public code.

What Todd et al. 2024 (section 2.3) run for one task, at GPT-2 small's shapes, all rows in one run:

    means               z of every head, over 100 clean prompts of ten demonstrations
    indirect effects    P(answer) with each head replaced in turn, on 25 prompts with shuffled labels
    evaluation          the answer with the vector added at each layer in turn, on 100 zero-shot prompts

`EngineRunner` does all of it. The reference does it as the public code of Todd et al. does: a forward pass for each
prompt, for each prompt and head, and for each prompt and layer, all logits computed. It is written anew here with plain
hooks, leaves out the unedited passes that the public code repeats beside the edited ones, and is timed on evenly spread
cells: its rows say what share that is. Weights, tokens, and for the single rows means and vector, are random: only the
time is of interest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from function_vectors.effects import average_indirect_effect, indirect_effects, top_heads
from function_vectors.encoding import Encoded
from function_vectors.engine import EngineRunner
from function_vectors.evaluation import score_by_layer
from function_vectors.runners import adding
from function_vectors.scores import Scores
from function_vectors.vectors import function_vector, mean_z
from interventions import SweepResult, as_prompts
from interventions.bench import Case as Patching
from interventions.bench import Row, timed_row

WIDTH = 768
K = 10  # heads of a vector, as many as Todd et al. take for GPT-J
TEN_SHOT = tuple(80 + 8 * i % 21 for i in range(100))  # tokens of the prompts: 80 to 100, 90 on average
ZERO_SHOT = tuple(5 + i % 4 for i in range(100))
SHUFFLED = 25
EVERY = 50  # of the reference's passes, one in so many is timed
EVERY_MEAN = 5


def rows() -> Iterator[Row]:
    """The rows."""
    a, b = torch.randn(2048, WIDTH), torch.randn(WIDTH, 4 * WIDTH)
    yield timed_row("matmul peak", None, lambda: [a @ b for _ in range(20)])
    yield from Extraction(Patching(WIDTH, max(TEN_SHOT)).network).rows("GPT-2 small: ")


@dataclass(frozen=True)
class Extraction:
    """One task on a random network (GPT-2 or GPT-J); prompts of the given lengths, and answers, are random.

    Args:
        ten_shot, zero_shot: tokens of each prompt; the first `shuffled` of the ten-shot ones are those of the effects.
        every, every_mean: the reference is timed on one in so many of its passes.
    """

    network: nn.Module
    ten_shot: tuple[int, ...] = TEN_SHOT
    zero_shot: tuple[int, ...] = ZERO_SHOT
    shuffled: int = SHUFFLED
    every: int = EVERY
    every_mean: int = EVERY_MEAN

    @cached_property
    def runner(self) -> EngineRunner:
        return EngineRunner(self.network)

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @cached_property
    def clean(self) -> Encoded:
        return self._encoded(self.ten_shot, seed=0)

    @cached_property
    def with_shuffled_labels(self) -> Encoded:
        return self._encoded(self.ten_shot[: self.shuffled], seed=1)

    @cached_property
    def without_examples(self) -> Encoded:
        return self._encoded(self.zero_shot, seed=2)

    @cached_property
    def z(self) -> Float[Tensor, "layer head d_head"]:
        """Stands for the means in the row of the effects."""
        shape = (self.runner.n_layers, self.runner.n_heads, self._width // self.runner.n_heads)
        return torch.randn(shape, generator=torch.Generator().manual_seed(3))

    @cached_property
    def vector(self) -> Float[Tensor, " d_model"]:
        """Stands for the function vector in the row of the evaluation."""
        return torch.randn(self._width, generator=torch.Generator().manual_seed(4))

    def rows(self, of: str) -> Iterator[Row]:
        """Names begin with `of`."""
        reference = ", one forward a cell"
        means, mean_cells = of + "means", self._cells(len(self.ten_shot), 1, self.every_mean)
        effects, effect_cells = of + "indirect effects", self._effect_cells()
        scores, score_cells = of + "evaluation", self._score_cells()
        whole, few = of + "the whole", self._cells(len(self.ten_shot), 1, self.every)
        share, few_share = 1 / self.every, 1 / self.every_mean
        yield self._row(means + reference, None, lambda: self.reference_z(mean_cells), few_share)
        yield self._row(means + ", engine", means + reference, self.means)
        yield self._row(effects + reference, None, lambda: self.reference_effects(effect_cells), share)
        yield self._row(effects + ", engine", effects + reference, self.effects)
        yield self._row(scores + reference, None, lambda: self.reference_predictions(score_cells), share)
        yield self._row(scores + ", engine", scores + reference, self.scores)

        def reference_whole() -> object:
            parts = self.reference_z(few), self.reference_effects(effect_cells)
            return *parts, self.reference_predictions(score_cells)

        yield self._row(whole + reference, None, reference_whole, share)
        yield self._row(whole + ", engine", whole + reference, self.whole)

    def means(self) -> Float[Tensor, "layer head d_head"]:
        return mean_z(self.runner, self.clean)

    def effects(self) -> SweepResult:
        return indirect_effects(self.runner, self.with_shuffled_labels, self.z)

    def scores(self) -> Scores:
        return score_by_layer(self.runner, self.without_examples, adding(self.vector))

    def whole(self) -> Scores:
        """From prompts to accuracies, with what was computed before instead of random means and vector."""
        z = self.means()
        average = average_indirect_effect([indirect_effects(self.runner, self.with_shuffled_labels, z)])
        vector = function_vector(self.runner, z, top_heads(average, min(K, average.numel())), task="random")
        return score_by_layer(self.runner, self.without_examples, adding(vector.vector))

    def reference_z(self, cells: Sequence[tuple[int, int]]) -> Float[Tensor, "cell layer width"]:
        """z at the last token; cells are (prompt, _)."""
        found = []
        for prompt, _ in cells:
            seen: list[Tensor] = []

            def see(_: nn.Module, args: tuple[Tensor], seen: list[Tensor] = seen) -> None:
                seen.append(args[0][0, -1].float())

            projections = [self._projection(layer) for layer in range(self.runner.n_layers)]
            hooks = [projection.register_forward_pre_hook(see) for projection in projections]
            self._forward(self.clean, prompt, hooks)
            found.append(torch.stack(seen))
        return torch.stack(found)

    def reference_effects(self, cells: Sequence[tuple[int, int]]) -> Float[Tensor, " cell"]:
        """P(answer) with one head replaced; cells are (prompt, head), heads counted through all layers."""
        found, z = [], self.z.to(self.device)
        for prompt, number in cells:
            layer, head = divmod(number, self.runner.n_heads)

            def put(_: nn.Module, args: tuple[Tensor], at: tuple[int, int] = (layer, head)) -> tuple[Tensor]:
                heads = args[0].unflatten(-1, (self.runner.n_heads, -1)).clone()  # type: ignore[no-untyped-call]
                heads[0, -1, at[1]] = z[at]
                return (heads.flatten(-2),)

            hook = self._projection(layer).register_forward_pre_hook(put)
            logits = self._forward(self.with_shuffled_labels, prompt, [hook])
            found.append(logits.float().softmax(dim=-1)[self.with_shuffled_labels.answers[prompt][0]])
        return torch.stack(found)

    def reference_predictions(self, cells: Sequence[tuple[int, int]]) -> list[int]:
        """The most likely token with the vector added behind one layer; cells are (prompt, layer)."""

        def add(_: nn.Module, args: object, output: Any) -> Any:
            stream = (output[0] if isinstance(output, tuple) else output).clone()
            stream[:, -1] += self.vector.to(stream)
            return (stream, *output[1:]) if isinstance(output, tuple) else stream

        found = []
        for prompt, layer in cells:
            hook = self._block(layer).register_forward_hook(add)
            found.append(int(self._forward(self.without_examples, prompt, [hook]).argmax()))
        return found

    def _forward(self, encoded: Encoded, prompt: int, hooks: Sequence[Any]) -> Float[Tensor, " d_vocab"]:
        """Logits of the last token of one prompt, without its padding, from a pass that computes those of all."""
        network: Any = self.network
        tokens = encoded.prompts.tokens[prompt, -self._lengths(encoded)[prompt] :]
        try:
            with torch.no_grad():
                logits: Tensor = network(tokens[None].to(self.device)).logits
            return logits[0, -1]
        finally:
            for hook in hooks:
                hook.remove()

    def _lengths(self, encoded: Encoded) -> tuple[int, ...]:
        return self.zero_shot if encoded is self.without_examples else self.ten_shot

    def _block(self, layer: int) -> nn.Module:
        network: Any = self.network
        block: nn.Module = network.transformer.h[layer]
        return block

    def _projection(self, layer: int) -> nn.Module:
        attention: Any = self._block(layer).attn
        projection: nn.Module = getattr(attention, "c_proj", None) or attention.out_proj
        return projection

    @property
    def _config(self) -> Any:
        return self.network.config

    @property
    def _width(self) -> int:
        return int(self._config.hidden_size)

    def _effect_cells(self) -> list[tuple[int, int]]:
        return self._cells(self.shuffled, self.runner.n_layers * self.runner.n_heads, self.every)

    def _score_cells(self) -> list[tuple[int, int]]:
        return self._cells(len(self.zero_shot), self.runner.n_layers, self.every)

    def _cells(self, prompts: int, others: int, every: int) -> list[tuple[int, int]]:
        """One in so many of prompts x others, evenly spread."""
        return [divmod(at, others) for at in range(every // 2, prompts * others, every)]

    def _encoded(self, lengths: Sequence[int], *, seed: int) -> Encoded:
        generator = torch.Generator().manual_seed(seed)
        vocabulary = int(self._config.vocab_size)
        prompts = [torch.randint(vocabulary, (length,), generator=generator).tolist() for length in lengths]
        answers = torch.randint(vocabulary, (len(lengths), 1), generator=generator).tolist()
        return Encoded(as_prompts(prompts), tuple(map(tuple, answers)))

    def _row(self, name: str, baseline: str | None, call: Callable[[], object], sampled: float = 1.0) -> Row:
        return timed_row(name, baseline, call, sampled=sampled, device=self.device.type)
