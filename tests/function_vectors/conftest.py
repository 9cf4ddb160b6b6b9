"""Small random networks of every architecture, and plain torch hooks on them that share no code with the package."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from function_vectors.encoding import Encoded
from interventions import as_prompts
from interventions.attention_only import AttentionOnlyConfig, AttentionOnlyNetwork
from interventions.exactness import CONFIGS
from interventions.exactness import random_network as exactness_network

N_LAYERS, N_HEADS, D_HEAD, D_MODEL, D_VOCAB = 3, 4, 8, 32, 37
NETWORKS = (*CONFIGS, "attention_only")
FOUR = ("gpt2", "llama", "gptj", "gpt_neox")
Write = Callable[[Tensor], Tensor]


@functools.cache
def random_network(name: str, *, dtype: torch.dtype = torch.float32) -> Any:
    """A random network, 3 layers of 4 heads, 37 tokens; one for all tests, which must leave it as it was."""
    if name != "attention_only":
        return copy.deepcopy(exactness_network(name, seed=1)).to(dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = AttentionOnlyConfig(
            num_hidden_layers=N_LAYERS,
            hidden_size=D_MODEL,
            num_attention_heads=N_HEADS,
            head_dim=D_HEAD,
            vocab_size=D_VOCAB,
            max_position_embeddings=64,
        )
        network: Any = AttentionOnlyNetwork._from_config(config)
        with torch.no_grad():
            for parameter in network.parameters():
                noise = 0.3 * torch.randn(parameter.shape)
                parameter.copy_(parameter + noise if parameter.ndim == 1 else noise)
    return network.to(dtype).eval()


def encoded(lengths: Sequence[int], *, seed: int, answer_lengths: Sequence[int] = (1,)) -> Encoded:
    """Random prompts of these lengths, with random answers; the answers' lengths are taken in turn."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(n: int) -> list[int]:
        return [int(token) for token in torch.randint(1, D_VOCAB, (n,), generator=generator)]

    answers = [tuple(drawn(answer_lengths[at % len(answer_lengths)])) for at in range(len(lengths))]
    return Encoded(as_prompts([drawn(n) for n in lengths]), tuple(answers))


def lists(encoded: Encoded) -> list[list[int]]:
    """The prompts without padding."""
    prompts = encoded.prompts
    rows = prompts.tokens.tolist()
    if prompts.valid is None:
        return rows
    kept = prompts.valid.tolist()
    return [
        [token for token, real in zip(row, keep, strict=True) if real] for row, keep in zip(rows, kept, strict=True)
    ]


@dataclass(frozen=True)
class Run:
    """What one plain forward pass of one prompt computed."""

    logits: Tensor  # [d_vocab], of the last token
    z: Tensor  # [layer, head, d_head], of the last token
    stream: Tensor  # [layer, d_model], of the last token
    written: Tensor  # [layer, d_model], what attention adds to the stream at the last token


class Plain:
    """A network run by plain hooks, one prompt at a time, without padding and without a cache."""

    def __init__(self, name: str, dtype: torch.dtype = torch.float32) -> None:
        self.name, self.network = name, random_network(name, dtype=dtype)
        if name in ("gpt2", "gptj"):
            self.blocks = list(self.network.transformer.h)
        elif name == "gpt_neox":
            self.blocks = list(self.network.gpt_neox.layers)
        elif name == "opt":
            self.blocks = list(self.network.model.decoder.layers)
        else:
            self.blocks = list(self.network.model.layers)
        attentions = {"gpt2": "attn", "gptj": "attn", "gpt_neox": "attention"}
        outputs = {"gpt2": "c_proj", "gptj": "out_proj", "gpt_neox": "dense", "opt": "out_proj", "phi": "dense"}
        attention, output = attentions.get(name, "self_attn"), outputs.get(name, "o_proj")
        self.projections = [getattr(getattr(block, attention), output) for block in self.blocks]
        self.behind = [
            block.post_attention_layernorm if name.startswith("gemma") else projection
            for block, projection in zip(self.blocks, self.projections, strict=True)
        ]

    def weight(self, layer: int) -> Tensor:
        """W_O [head, d_head, d_model]."""
        weight: Tensor = self.projections[layer].weight
        rows = weight if self.name == "gpt2" else weight.T
        return rows.view(N_HEADS, D_HEAD, D_MODEL)

    @torch.no_grad()
    def run(
        self, tokens: list[int], z: Mapping[int, Write] | None = None, stream: Mapping[int, Write] | None = None
    ) -> Run:
        """`z` and `stream` map a layer to what is to become of its [pos, head, d_head] and [pos, d_model]."""
        seen_z, seen_stream, seen_written, handles = {}, {}, {}, []

        def on_z(layer: int, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            heads = args[0][0].clone().view(-1, N_HEADS, D_HEAD)
            if z and layer in z:
                heads = z[layer](heads)
            seen_z[layer] = heads[-1].clone()
            return (heads.reshape(1, -1, N_HEADS * D_HEAD),)

        def on_block(layer: int, output: Any) -> Any:
            value = (output[0] if isinstance(output, tuple) else output)[0].clone()
            if stream and layer in stream:
                value = stream[layer](value)
            seen_stream[layer] = value[-1].clone()
            return (value[None], *output[1:]) if isinstance(output, tuple) else value[None]

        def on_written(layer: int, output: Tensor) -> None:
            seen_written[layer] = output[0, -1].clone()

        for at, (block, projection, behind) in enumerate(zip(self.blocks, self.projections, self.behind, strict=True)):
            handles.append(projection.register_forward_pre_hook(lambda m, args, at=at: on_z(at, args)))
            handles.append(behind.register_forward_hook(lambda m, args, output, at=at: on_written(at, output)))
            handles.append(block.register_forward_hook(lambda m, args, output, at=at: on_block(at, output)))
        try:
            logits = self.network(torch.tensor([tokens]), use_cache=False).logits[0, -1]
        finally:
            for handle in handles:
                handle.remove()
        order = range(N_LAYERS)
        found = [torch.stack([seen[at] for at in order]) for seen in (seen_z, seen_stream, seen_written)]
        return Run(logits.float(), *(part.float() for part in found))

    def greedy(
        self, tokens: list[int], n: int, write: Write | None = None, *, layer: int, every_step: bool
    ) -> list[int]:
        """n tokens; `write` acts on [d_model] of the prompt's last token, or of each token from there on."""
        text, last = list(tokens), len(tokens) - 1

        def edit(value: Tensor) -> Tensor:
            assert write is not None
            for place in range(last, len(value) if every_step else last + 1):
                value[place] = write(value[place])
            return value

        for _ in range(n):
            run = self.run(text, stream=None if write is None else {layer: edit})
            text.append(int(run.logits.argmax()))
        return text[len(tokens) :]


def at_last(write: Write) -> Write:
    """A write that acts on the last position alone."""

    def edit(value: Tensor) -> Tensor:
        value[-1] = write(value[-1])
        return value

    return edit


def plus(vector: Tensor) -> Write:
    return lambda value: value + vector


def put(vector: Tensor) -> Write:
    return lambda value: vector
