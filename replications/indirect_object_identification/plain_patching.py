"""Patching by plain hooks on a GPT-2 of transformers: what `bench` compares the engine with.

    patching          one pass a cell: the model with one activation replaced
    path patching     one pass a sender to the logits; to queries, keys or values another one, that ends at receivers

All prompts of one length go through the model together, so that none is padded; logits are computed at END alone, of
IO and S alone; what cells put in is recorded once for all of them. Nothing of the engine is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from replications.indirect_object_identification.circuit import Head
from replications.indirect_object_identification.grouping import Group, groups_of
from replications.indirect_object_identification.positions import IOIPrompts
from torch import Tensor, nn

Edit = Callable[[Tensor], Tensor | None]
Projection = Literal["q", "k", "v"]


@contextmanager
def hooked(before: Mapping[nn.Module, Edit], after: Mapping[nn.Module, Edit] | None = None) -> Iterator[None]:
    """Inside, edits change what modules are given, or what they give; an edit that returns None changes nothing."""

    def of_input(edit: Edit) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            new = edit(args[0])
            return None if new is None else (new, *args[1:])

        return hook

    def of_output(edit: Edit) -> Callable[[nn.Module, object, Tensor], Tensor | None]:
        return lambda module, args, output: edit(output)

    handles = [module.register_forward_pre_hook(of_input(edit)) for module, edit in before.items()]
    handles += [module.register_forward_hook(of_output(edit)) for module, edit in (after or {}).items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Network:
    """A GPT-2 of transformers."""

    model: Any

    @property
    def layers(self) -> range:
        return range(len(self.model.transformer.h))

    @property
    def n_heads(self) -> int:
        return int(self.model.config.n_head)

    def block(self, layer: int) -> Any:
        return self.model.transformer.h[layer]

    def qkv(self, layer: int) -> nn.Module:
        """What gives queries, keys and values, [batch, pos, 3 * head * d_head]."""
        module: nn.Module = self.block(layer).attn.c_attn
        return module

    def projection(self, layer: int) -> nn.Module:
        """What is given z, [batch, pos, head * d_head]."""
        module: nn.Module = self.block(layer).attn.c_proj
        return module

    def heads(self, x: Tensor) -> Tensor:
        """A view of x as [..., head, d_head]."""
        return x.unflatten(-1, (self.n_heads, -1))  # type: ignore[no-untyped-call,no-any-return]

    def direction(self, prompts: IOIPrompts, group: Group) -> Float[Tensor, "row d_model"]:
        """W_U[IO] - W_U[S]."""
        W_U: Tensor = self.model.lm_head.weight
        return W_U[prompts.io[group.rows]] - W_U[prompts.s[group.rows]]

    def run(self, prompts: IOIPrompts, group: Group) -> Float[Tensor, " row"]:
        """logit(IO) - logit(S) at END, of one pass over the group's prompts."""
        tokens = prompts.tokens[group.rows, -group.length :]
        hidden: Tensor = self.model.transformer(tokens, use_cache=False).last_hidden_state
        return (hidden[:, -1] * self.direction(prompts, group)).sum(dim=-1)


@dataclass(frozen=True)
class Seen:
    """F = logit(IO) - logit(S), and by layer: the stream before it, queries, keys and values, and z."""

    difference: Float[Tensor, " row"]
    stream: list[Float[Tensor, "row pos d_model"]]
    qkv: list[Float[Tensor, "row pos three_d_model"]]
    z: list[Float[Tensor, "row pos d_model"]]

    @classmethod
    def of(cls, network: Network, prompts: IOIPrompts, group: Group) -> Seen:
        """One pass."""
        stream, qkv, z = list[Tensor](), list[Tensor](), list[Tensor]()
        before: dict[nn.Module, Edit] = {network.block(layer): stream.append for layer in network.layers}
        before |= {network.projection(layer): z.append for layer in network.layers}
        with torch.no_grad(), hooked(before, {network.qkv(layer): qkv.append for layer in network.layers}):
            return cls(network.run(prompts, group), stream, qkv, z)


class _SeenAllError(Exception):
    """Ends a pass that has no more to show."""


@dataclass(frozen=True)
class Patching:
    """Effects [prompt] on F of cells, each replaced by what it is on the aligned sentence of p_ABC."""

    network: Network
    clean: IOIPrompts
    abc: IOIPrompts

    def stream(self, cells: Sequence[tuple[str, int]]) -> list[Float[Tensor, " prompt"]]:
        """The stream at a word before a layer; cells are (word, layer)."""

        def edited(cell: tuple[str, int], at: int) -> AbstractContextManager[None]:
            (word, layer), (_, abc) = cell, self._seen[at]
            return hooked({self.network.block(layer): partial(_put, abc.stream[layer], self._places(word, at))})

        return self._effects(cells, edited)

    def heads(self, cells: Sequence[Head]) -> list[Float[Tensor, " prompt"]]:
        """z of a head at END."""
        return self._effects(cells, lambda cell, at: self._with_z(cell, self._seen[at][1].z[cell[0]], slice(-1, None)))

    def heads_everywhere(self, cells: Sequence[Head]) -> list[Float[Tensor, " prompt"]]:
        """z of a head at all tokens."""
        return self._effects(cells, lambda cell, at: self._with_z(cell, self._seen[at][1].z[cell[0]], slice(None)))

    def patterns(self, cells: Sequence[Head]) -> list[Float[Tensor, " prompt"]]:
        """Where a head attends from END; the values there stay those of p_IOI."""
        return self._effects(cells, lambda cell, at: self._with_z(cell, self._crossed[at][cell[0]], slice(-1, None)))

    def paths_to_logits(self, senders: Sequence[Head]) -> list[Float[Tensor, " prompt"]]:
        """z of a head at END, all other heads held."""
        return self._effects(senders, lambda sender, at: hooked(self._held(sender, "END", at)))

    def paths_to_inputs(
        self, senders: Sequence[Head], receivers: Sequence[Head], into: Projection, word: str
    ) -> list[Float[Tensor, " prompt"]]:
        """z of a head at a word, by way of the queries, keys or values of all receivers together."""
        network, layers, part = self.network, sorted({layer for layer, _ in receivers}), "qkv".index(into)

        def projected(x: Tensor) -> Tensor:
            return network.heads(x.chunk(3, dim=-1)[part])

        def edited(sender: Head, at: int) -> AbstractContextManager[None]:
            seen: dict[int, Tensor] = {}

            def keep(layer: int, x: Tensor) -> None:
                seen[layer] = projected(x)
                if layer == layers[-1]:
                    raise _SeenAllError

            def put(layer: int, x: Tensor) -> Tensor:
                heads = [head for of, head in receivers if of == layer]
                x = x.clone()
                projected(x)[:, :, heads] = seen[layer][:, :, heads]
                return x

            keeping = {network.qkv(layer): partial(keep, layer) for layer in layers}
            with suppress(_SeenAllError), hooked(self._held(sender, word, at), keeping):
                network.run(self.clean, self._groups[at])
            return hooked({}, {network.qkv(layer): partial(put, layer) for layer in layers})

        return self._effects(senders, edited)

    def _effects(
        self, cells: Sequence[Any], edited: Callable[[Any, int], AbstractContextManager[None]]
    ) -> list[Float[Tensor, " prompt"]]:
        """F inside of `edited`, of a cell and the number of a group, less F without."""
        found = []
        with torch.no_grad():
            for cell in cells:
                effects = torch.empty(len(self.clean))
                for at, group in enumerate(self._groups):
                    with edited(cell, at):
                        effects[group.rows] = self.network.run(self.clean, group) - self._seen[at][0].difference
                found.append(effects)
        return found

    def _with_z(self, head: Head, new: Float[Tensor, "row pos d_model"], where: slice) -> AbstractContextManager[None]:
        def put(z: Tensor) -> Tensor:
            z = z.clone()
            self.network.heads(z)[:, where, head[1]] = self.network.heads(new)[:, where, head[1]]
            return z

        return hooked({self.network.projection(head[0]): put})

    def _held(self, sender: Head, word: str, at: int) -> dict[nn.Module, Edit]:
        """All heads at their clean z, but the sender at a word."""
        (layer, head), (clean, abc) = sender, self._seen[at]
        z, places = clean.z[layer].clone(), self._places(word, at)
        self.network.heads(z)[*places, head] = self.network.heads(abc.z[layer])[*places, head]
        held = [*clean.z[:layer], z, *clean.z[layer + 1 :]]
        return {self.network.projection(layer): partial(always, each) for layer, each in enumerate(held)}

    def _places(self, word: str, at: int) -> tuple[Tensor, Tensor]:
        """Rows and tokens, from the end, of a word."""
        rows = self._groups[at].rows
        return torch.arange(len(rows)), self.clean.positions[word][rows] - self.clean.tokens.shape[1]

    @cached_property
    def _groups(self) -> tuple[Group, ...]:
        return groups_of(self.clean)

    @cached_property
    def _seen(self) -> list[tuple[Seen, Seen]]:
        """p_IOI and p_ABC, by group."""
        return [
            (Seen.of(self.network, self.clean, group), Seen.of(self.network, self.abc, group)) for group in self._groups
        ]

    @cached_property
    def _crossed(self) -> list[list[Float[Tensor, "row 1 d_model"]]]:
        """z at END of p_ABC's attention to p_IOI's values, by group and layer."""
        return [
            [self._cross(own, other) for own, other in zip(clean.qkv, abc.qkv, strict=True)]
            for clean, abc in self._seen
        ]

    def _cross(self, clean: Tensor, abc: Tensor) -> Float[Tensor, "row 1 d_model"]:
        query, key, _ = (self.network.heads(each) for each in abc.chunk(3, dim=-1))
        value = self.network.heads(clean.chunk(3, dim=-1)[2])
        scores = torch.einsum("rhd,rkhd->rhk", query[:, -1], key) / query.shape[-1] ** 0.5
        return torch.einsum("rhk,rkhd->rhd", scores.softmax(dim=-1), value).flatten(1)[:, None]


def _put(new: Tensor, places: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
    x = x.clone()
    x[places] = new[places]
    return x


def always(new: Tensor, x: Tensor) -> Tensor:
    """An edit that puts `new` in."""
    return new
