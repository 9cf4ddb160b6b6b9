"""Hooks that know which call of the network they are in: its mask, its cache, and where its tokens stand in their rows.

    def hook(x, call):                        # x [batch, pos, d_model] of the call's new tokens alone
        return x + vector * (call.rows < 5)[..., None]

    with hooked(network, {("resid_post", 5): hook}):
        network.generate(tokens, attention_mask=mask)

A layer sees hidden states and nothing of padding or cache. Here the arguments of every call are read on their way in:
the attention mask says which columns are real tokens, the cache how many columns stand before the new ones. Columns
count padding, rows do not: `rows` is 0 at the first real token of every row, on whichever side it is padded.

The prompt of a text is what its first call holds, with the cache that this call was given. A call belongs to the text
before it if it has as many rows and its cache reaches at least to the end of the prompt, as in generation; any other
call begins a new text. So one text (a batch of them) at a time: two that take turns, each with a cache of its own, are
not told apart, and a prompt that is fed in parts ends with the first part.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from interventions.attention import Callback
from interventions.hooks import STREAM, Modules, attached

CallHook = Callable[[Tensor, "Call"], Tensor | None]
"""Gives what is to stand there instead, or None to leave it."""


@dataclass(frozen=True)
class Prompt:
    """Where the prompt of a text ends: it is the first `columns` columns; `call` is the one that gave its last ones."""

    columns: int
    call: Call

    @cached_property
    def lengths(self) -> Int[Tensor, " batch_or_1"]:
        """Real tokens of every row's prompt."""
        call = self.call
        if call.real is None:
            return torch.full((1,), self.columns, device=call.device)
        return call.real[:, : self.columns].sum(dim=1)

    @cached_property
    def shortest(self) -> int:
        """Real tokens of the shortest row."""
        return int(self.lengths.min())


class Call:
    """One call of the network: `length` new columns of `batch` rows, behind `cached` columns of a cache.

    `first` says whether it holds the end of its text's prompt. What is asked for in many layers is computed once.
    """

    def __init__(self, batch: int, length: int, cached: int, mask: Any, device: torch.device) -> None:
        self.batch, self.length, self.cached, self.device = batch, length, cached, device
        self._mask = mask
        self.prompt = Prompt(cached + length, self)
        self.first = True

    def follows(self, prompt: Prompt) -> bool:
        """Whether the call goes on with the text of that prompt."""
        return self.batch == prompt.call.batch and self.cached >= prompt.columns

    @cached_property
    def real(self) -> Bool[Tensor, "batch column"] | None:
        """Which columns, of the cache and new, are real tokens; None where no mask was given: all.

        Raises:
            ValueError: the mask is of another shape, or of a kind that says nothing of columns.
        """
        return None if self._mask is None else _of_columns(self._mask, self.batch, self.cached + self.length)

    @cached_property
    def rows(self) -> Int[Tensor, "batch_or_1 pos"]:
        """Where every new token stands in its row, 0 at the row's first real token; -1 at padding."""
        if self.real is None:
            return torch.arange(self.cached, self.cached + self.length, device=self.device)[None]
        places = self.real.cumsum(dim=1)[:, self.cached :] - 1
        return places.masked_fill(~self.real[:, self.cached :], -1)


@contextmanager
def hooked(network: nn.Module, hooks: Mapping[tuple[str, int], CallHook]) -> Iterator[None]:
    """Inside, every call of the network runs the hooks, by (component, layer), of components of the stream.

    Raises:
        ValueError: before anything runs, the network has no such component or layer.
        RuntimeError: inside, a layer was run by itself, so that its call is not known.
    """
    modules = Modules(network)
    for component, layer in hooks:
        modules.check(component, layer)
        if component not in STREAM:
            raise ValueError(f"component {component!r} has no hooks by call: expected one of {', '.join(STREAM)}")
    calls = _Calls(modules)
    with calls.seen(), attached(modules, {place: calls.telling(hook) for place, hook in hooks.items()}):
        yield


class _Calls:
    """The call that is running, and the prompt of the text that it belongs to."""

    def __init__(self, modules: Modules) -> None:
        # The module that calls the layers: the network calls it, and so does who wants hidden states without logits.
        self.model = modules.network.get_submodule(modules.architecture.layers.rpartition(".")[0])
        self.names = tuple(inspect.signature(self.model.forward).parameters)
        self.current: Call | None = None
        self.prompt: Prompt | None = None

    @contextmanager
    def seen(self) -> Iterator[None]:
        handles = [
            self.model.register_forward_pre_hook(self._before, with_kwargs=True),
            self.model.register_forward_hook(self._after, always_call=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def telling(self, hook: CallHook) -> Callback:
        def callback(x: Tensor) -> Tensor:
            if self.current is None:
                raise RuntimeError(
                    "a layer ran outside a call of its network: expected calls of the network, whose mask and cache "
                    "hooks are told of; call the network"
                )
            new = hook(x, self.current)
            return x if new is None else new

        return callback

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = {**dict(zip(self.names, args, strict=False)), **kwargs} if args else kwargs
        tokens = given.get("input_ids")
        if tokens is None:
            tokens = given["inputs_embeds"]
        cache = given.get("past_key_values")
        cached = 0 if cache is None else int(cache.get_seq_length())
        call = Call(tokens.shape[0], tokens.shape[1], cached, given.get("attention_mask"), tokens.device)
        if self.prompt is not None and call.follows(self.prompt):
            call.prompt, call.first = self.prompt, False
        self.prompt, self.current = call.prompt, call

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        self.current = None


def _of_columns(mask: Any, batch: int, columns: int) -> Bool[Tensor, "batch column"]:
    """A mask as transformers takes it: [batch, column], or [batch, 1, query, key] as it makes for static caches."""
    if isinstance(mask, Mapping):  # one for each kind of layer
        mask = mask.get("full_attention")
    if isinstance(mask, Tensor) and mask.ndim == 4:
        last = mask[:, 0, -1]  # the last query sees all real keys, and of a static cache none that is still empty
        mask = (last > torch.finfo(last.dtype).min / 2 if last.is_floating_point() else last.bool()).expand(batch, -1)
    if not isinstance(mask, Tensor) or mask.ndim != 2 or mask.shape[0] != batch or mask.shape[1] < columns:
        found = f"shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(
            f"attention_mask: {found}: expected [{batch}, {columns}], all columns of the cache and the new ones; pass "
            f"the mask that the tokenizer gives, extended by what was generated"
        )
    return mask[:, :columns].bool()
