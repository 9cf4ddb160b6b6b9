"""Small random models with a word tokenizer, and plain torch hooks on them that share no code with the package."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from interventions import Model
from interventions.exactness import random_network as exactness_network
from steering.vectors import ModelIdentity, SteeringVector

N_LAYERS, D_MODEL, D_VOCAB = 3, 32, 37
NETWORKS = ("gpt2", "llama", "gpt_neox")  # llama with grouped queries
BOS = 0
# fmt: off
WORDS = [
    "<bos>", ",", ".", "the", "a", "and", "of", "to", "in", "love", "hate", "king", "queen", "sea", "farm", "war",
    "school", "ship", "bread", "star", "night", "day", "red", "blue", "old", "new", "sat", "ran", "saw", "took",
    "she", "he", "it", "they", "was", "is", "not",
]
# fmt: on

Write = Callable[[Tensor], Tensor]
Writes = Mapping[tuple[str, int], Write]


class WordTokenizer:
    """A token a word, apart by single spaces; a space by itself has no token."""

    def encode(self, text: str) -> list[int]:
        return [WORDS.index(word) for word in text.split()]

    def decode(self, tokens: list[int]) -> str:
        return " ".join(WORDS[token] for token in tokens)


@functools.cache
def random_network(name: str, *, dtype: torch.dtype = torch.float32) -> Any:
    """A random network, 3 layers of 4 heads, 37 tokens; one for all tests, which must leave it as it was."""
    return copy.deepcopy(exactness_network(name, seed=1)).to(dtype)


def random_model(name: str, *, dtype: torch.dtype = torch.float32, bos: int | None = BOS) -> Model:
    return Model(name, random_network(name, dtype=dtype), WordTokenizer(), bos)


def random_vector(
    network: Any,
    layers: Sequence[int] = (1,),
    *,
    component: Any = "resid_post",
    positions: int | None = None,
    seed: int = 0,
) -> SteeringVector:
    """Standard normal directions; with `positions` a row for each of the first."""
    generator = torch.Generator().manual_seed(seed)
    shape = (D_MODEL,) if positions is None else (positions, D_MODEL)
    directions = {layer: torch.randn(shape, generator=generator) for layer in layers}
    return SteeringVector(directions, f"random {seed}", ModelIdentity.of(network, "random"), component)


def texts(lengths: Sequence[int], *, seed: int = 0) -> list[str]:
    """Random words, so many a text, without the BOS."""
    generator = torch.Generator().manual_seed(seed)
    return [
        " ".join(WORDS[int(word)] for word in torch.randint(1, D_VOCAB, (n,), generator=generator)) for n in lengths
    ]


def tokens_of(text: str) -> list[int]:
    """With the BOS."""
    return [BOS, *(WORDS.index(word) for word in text.split())]


def blocks(network: Any) -> list[nn.Module]:
    if network.config.model_type == "gpt2":
        return list(network.transformer.h)
    return list(network.gpt_neox.layers if network.config.model_type == "gpt_neox" else network.model.layers)


@torch.no_grad()
def plain_run(
    network: Any, tokens: Sequence[int], writes: Writes | None = None
) -> tuple[Tensor, dict[tuple[str, int], Tensor]]:
    """Logits [pos, d_vocab] and every layer's streams [pos, d_model], of one prompt without padding or cache.

    `writes` map a component and layer to what is to become of its [pos, d_model]; what is seen is what was written.
    """
    seen: dict[tuple[str, int], Tensor] = {}
    handles = []

    def pass_on(place: tuple[str, int], x: Tensor) -> Tensor:
        value = x[0].clone()
        if writes and place in writes:
            value = writes[place](value)
        seen[place] = value.clone()
        return value[None]

    def before(layer: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        if args:
            return (pass_on(("resid_pre", layer), args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": pass_on(("resid_pre", layer), kwargs["hidden_states"])}

    def after(layer: int, output: Any) -> Any:
        if isinstance(output, tuple):
            return (pass_on(("resid_post", layer), output[0]), *output[1:])
        return pass_on(("resid_post", layer), output)

    for at, block in enumerate(blocks(network)):
        pre = block.register_forward_pre_hook(lambda m, a, k, at=at: before(at, a, k), with_kwargs=True)
        handles += [pre, block.register_forward_hook(lambda m, a, output, at=at: after(at, output))]
    try:
        logits = network(torch.tensor([list(tokens)]), use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()
    return logits.float(), seen


@torch.no_grad()
def stream_behind(network: Any, layer: int, tokens: Tensor, **options: Any) -> Tensor:
    """What the next layer gets, in a pass of the network: [batch, pos, d_model].

    Not by `output_hidden_states`: transformers keeps what a layer gave before hooks that come later changed it.
    """
    seen: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append((args[0] if args else kwargs["hidden_states"]).clone())

    with blocks(network)[layer + 1].register_forward_pre_hook(keep, with_kwargs=True):
        network(tokens, use_cache=False, **options)
    return seen[0]


def plain_greedy(network: Any, tokens: Sequence[int], n: int, writes: Writes | None = None) -> list[int]:
    """n tokens, the whole text run again for each."""
    text = list(tokens)
    for _ in range(n):
        text.append(int(plain_run(network, text, writes)[0][-1].argmax()))
    return text[len(tokens) :]


def adding(vector: Tensor, places: Callable[[int], Sequence[int]]) -> Write:
    """A write that adds [d_model], or [pos, d_model] row by row, at the places that a text of that length has."""

    def write(x: Tensor) -> Tensor:
        for place in places(len(x)):
            x[place] = x[place] + (vector if vector.ndim == 1 else vector[place])
        return x

    return write


def padded(rows: Sequence[Sequence[int]], *, left: bool) -> tuple[Tensor, Tensor]:
    """Tokens and mask; padding is token 5."""
    longest = max(map(len, rows))
    tokens, mask = torch.full((len(rows), longest), 5), torch.zeros(len(rows), longest, dtype=torch.long)
    for at, row in enumerate(rows):
        where = slice(longest - len(row), longest) if left else slice(0, len(row))
        tokens[at, where], mask[at, where] = torch.tensor(list(row)), 1
    return tokens, mask


def hooks_of(network: nn.Module) -> list[Any]:
    """All hooks and attributes of all modules."""
    return [(sorted(vars(m)), list(m._forward_hooks), list(m._forward_pre_hooks)) for m in network.modules()]


def state_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same_state(network: nn.Module, before: Mapping[str, Tensor]) -> bool:
    """Whether all weights and buffers are bitwise those of before."""
    state = network.state_dict()
    return state.keys() == before.keys() and all(torch.equal(state[name], before[name]) for name in before)
