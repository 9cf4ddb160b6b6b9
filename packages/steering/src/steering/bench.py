"""The benchmark `reprise bench steering`: extraction and steered generation beside the other ways to the same numbers.

A random network of GPT-2 small's width, heads and vocabulary with half its layers, all rows in one run:

    extraction     the mean difference at the last token of 1,000 pairs of short texts, in all layers
    generation     128 greedy tokens behind each of 64 prompts, with a vector added at every position of one layer

One text at a time is what packages for steering do by default: an ordinary pass, with a hook on every layer, and logits
that nobody asked for. Generation is done by transformers, unsteered and with a hook written by hand, by nnsight, and by
`generate`, unsteered and steered. What would take too long is timed on a share of its texts or tokens, and its row says
which. The memory of 1,000 pairs is that of all of them, as torch counts it, and so is that of their longest batch; the
memory of generation is what the process grows by. Weights, texts and vector are random: only the time is of interest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interventions import Model, Prompts, as_prompts
from interventions.bench import Row, timed_row
from steering.extraction import ContrastPair, contrastive
from steering.generation import generate
from steering.steering import Steer
from steering.vectors import ModelIdentity, SteeringVector

LAYERS, WIDTH, HEADS, VOCABULARY = 6, 768, 12, 50_257
PROMPTS, NEW, PAIRS = 64, 128, 1000
TIMED_PAIRS, TIMED_ALONE, TIMED_TRACED = 100, 20, 16  # pairs in batches, pairs one text at a time, tokens by nnsight
BATCH = 32  # texts


def rows() -> Iterator[Row]:
    """The rows."""
    yield from Case().rows()


@dataclass(frozen=True)
class Case:
    """One random GPT-2; texts have 8 to 24 tokens, those of pairs one more, in which the two differ."""

    layers: int = LAYERS
    width: int = WIDTH
    heads: int = HEADS
    vocabulary: int = VOCABULARY
    prompts: int = PROMPTS
    new: int = NEW
    pairs: int = PAIRS
    batch: int = BATCH

    @cached_property
    def network(self) -> Any:
        from transformers import GPT2Config, GPT2LMHeadModel

        config = GPT2Config(
            n_embd=self.width,
            n_layer=self.layers,
            n_head=self.heads,
            vocab_size=self.vocabulary,
            bos_token_id=None,
            eos_token_id=None,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return GPT2LMHeadModel(config).eval()

    @cached_property
    def model(self) -> Model:
        return Model("random", self.network, _Numbers(), None)

    @cached_property
    def view(self) -> Any:
        """The network as an nnsight model, over the same weights."""
        from tokenizers import Tokenizer, models
        from transformers import PreTrainedTokenizerFast

        from interventions.views import nnsight_view

        words = Tokenizer(models.WordLevel({str(token): token for token in range(self.vocabulary)}, unk_token="0"))
        return nnsight_view(self.network, PreTrainedTokenizerFast(tokenizer_object=words, pad_token="0"), "random")

    @cached_property
    def contrasts(self) -> list[ContrastPair]:
        texts = _texts(self.pairs, self.vocabulary, seed=1)
        first = torch.randint(self.vocabulary, (self.pairs,), generator=torch.Generator().manual_seed(2)).tolist()
        return [
            ContrastPair(f"{text} {end}", f"{text} {(end + 1) % self.vocabulary}")
            for text, end in zip(texts, first, strict=True)
        ]

    @cached_property
    def texts(self) -> list[str]:
        return _texts(self.prompts, self.vocabulary, seed=3)

    @cached_property
    def padded(self) -> Prompts:
        return as_prompts([_Numbers().encode(text) for text in self.texts])

    @property
    def layer(self) -> int:
        """Where the vector is added."""
        return self.layers // 2

    @cached_property
    def vector(self) -> SteeringVector:
        direction = torch.randn(self.width, generator=torch.Generator().manual_seed(4))
        return SteeringVector({self.layer: direction}, "random", ModelIdentity.of(self.network, "random"))

    def rows(self) -> Iterator[Row]:
        alone, plain = "extraction: one text at a time", "generation: transformers, not steered"
        ours = "generation: ours, not steered"
        share, few = TIMED_PAIRS / self.pairs, TIMED_ALONE / self.pairs
        traced = max(1, TIMED_TRACED * self.new // NEW)
        yield timed_row(alone, None, lambda: self.one_at_a_time(TIMED_ALONE), sampled=few)
        longest = sorted(self.contrasts, key=lambda pair: len(pair.positive.split()))[-(self.batch // 2) :]
        one_batch = timed_row("extraction: the longest batch", alone, lambda: self._in_batches(longest))
        yield (*one_batch[:3], {**one_batch[3], "sampled": (self.batch // 2) / self.pairs})
        whole = timed_row("", None, lambda: self.in_batches(self.pairs))[3]["peak_mib"]
        batches = timed_row("extraction: 1,000 pairs in batches", alone, lambda: self.in_batches(TIMED_PAIRS))
        yield (*batches[:3], {**batches[3], "sampled": share, "peak_mib": whole})
        yield plain, None, self.transformers, {}
        yield ours, plain, lambda: self.generated(steered=False), {}
        yield "generation: ours, steered", ours, lambda: self.generated(steered=True), {}
        yield "generation: hook by hand, steered", plain, self.hooked, {}
        yield "generation: nnsight, steered", plain, lambda: self.traced(traced), {"sampled": traced / self.new}

    def one_at_a_time(self, pairs: int) -> Float[Tensor, "layer d_model"]:
        """Mean difference by one ordinary pass a text."""
        encode = _Numbers().encode
        total = torch.zeros(self.layers, self.width, dtype=torch.float64)
        with torch.no_grad():
            for pair in self.contrasts[:pairs]:
                for text, sign in ((pair.positive, 1.0), (pair.negative, -1.0)):
                    hidden = self._behind_layers(torch.tensor([encode(text)]))
                    total += sign * torch.stack([layer[0, -1] for layer in hidden]).double()
        return (total / len(self.contrasts[:pairs])).float()

    def _behind_layers(self, tokens: Int[Tensor, "1 pos"]) -> list[Tensor]:
        """The stream behind each layer, by hooks: transformers gives that of the last one behind the final norm."""
        seen: list[Tensor] = []

        def see(_: nn.Module, args: object, output: Any) -> None:
            seen.append(output[0] if isinstance(output, tuple) else output)

        handles = [block.register_forward_hook(see) for block in self.network.transformer.h]
        try:
            self.network(tokens, use_cache=False)
            return seen
        finally:
            for handle in handles:
                handle.remove()

    def in_batches(self, pairs: int) -> Float[Tensor, "layer d_model"]:
        return self._in_batches(self.contrasts[:pairs])

    def _in_batches(self, pairs: list[ContrastPair]) -> Float[Tensor, "layer d_model"]:
        vector = contrastive(self.model, pairs, batch_size=self.batch)
        return torch.stack([vector.directions[layer] for layer in vector.layers])

    def generated(self, *, steered: bool) -> list[list[int]]:
        steers = [Steer(self.vector)] if steered else []
        found = generate(self.model, self.texts, steers=steers, max_new_tokens=self.new, batch_size=self.prompts)
        return [list(row) for row in found.new_tokens]

    def transformers(self) -> list[list[int]]:
        return self._cut(self.network.generate(**self._given(self.new)))

    def hooked(self) -> list[list[int]]:
        vector = self.vector.directions[self.layer]

        def add(_: nn.Module, args: object, output: Any) -> Any:
            return (output[0] + vector, *output[1:]) if isinstance(output, tuple) else output + vector

        handle = self.network.transformer.h[self.layer].register_forward_hook(add)
        try:
            return self.transformers()
        finally:
            handle.remove()

    def traced(self, new: int) -> list[list[int]]:
        """The first `new` tokens."""
        view, vector = self.view, self.vector.directions[self.layer]
        block, given = view.transformer.h[self.layer], self._given(new)
        tokens = given.pop("inputs")
        with torch.no_grad(), view.generate(tokens, **given) as tracer:
            for _ in tracer.iter[:new]:
                output = block.output
                stream = output[0] if isinstance(output, tuple) else output
                stream[:] = stream + vector
            found = tracer.result.save()
        return self._cut(found)

    def _given(self, new: int) -> dict[str, Any]:
        valid = self.padded.valid
        mask = torch.ones_like(self.padded.tokens) if valid is None else valid.long()
        given = {"inputs": self.padded.tokens, "attention_mask": mask, "max_new_tokens": new}
        return {**given, "do_sample": False, "pad_token_id": 0}

    def _cut(self, written: Int[Tensor, "prompt pos"]) -> list[list[int]]:
        rows: list[list[int]] = written[:, self.padded.length :].tolist()
        return rows


class _Numbers:
    """A tokenizer whose texts are the numbers of their tokens."""

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, tokens: list[int]) -> str:
        return " ".join(map(str, tokens))


def _texts(n: int, vocabulary: int, *, seed: int) -> list[str]:
    """Of 8 to 24 tokens."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(8, 25, (n,), generator=generator).tolist()
    return [" ".join(map(str, torch.randint(vocabulary, (m,), generator=generator).tolist())) for m in lengths]
