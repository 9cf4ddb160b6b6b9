"""Ordinary passes that are kept, so that sweeps and path patches of the same prompts run each of them once.

    recordings = Recordings(network)
    sweep(network, prompts, Replace(others), ..., recordings=recordings)       # runs prompts and others
    path_patch(network, prompts, others, ..., recordings=recordings)           # runs neither again

What a pass leaves is kept row by row: prompts are found by their tokens, in whatever order and company they come. Those
that were not seen yet are run. Padded prompts are never kept, since their rows depend on how they are padded. The
network must stay as it is; memory is that of queries, keys, values, z and the stream of every layer, of each prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interventions.attention import AttentionCall, Callback, PlainAttention
from interventions.branching import Shared, run_shared
from interventions.hooks import Modules
from interventions.prompts import Prompts


@dataclass(frozen=True)
class Whole:
    """A pass to its end, from `shared.start` on: what branches need, z of every layer, and the stream at the end."""

    shared: Shared
    z: list[Float[Tensor, "batch kept head d_head"]]
    end: Float[Tensor, "batch kept d_model"]

    def part(self, rows: Int[Tensor, " row"], prompts: Prompts, start: int) -> Whole:
        """Some rows, which are these prompts, of a pass that was kept from its first position on."""
        shared = self.shared
        final = shared.final
        found = Shared(
            shared.modules,
            prompts.to(self.end.device),
            start,
            shared.replay,
            [x[rows] for x in shared.keys],
            [x[rows] for x in shared.values],
            [x[rows, start:] for x in shared.stream],
            final=None if final is None else final[rows],
        )
        pairs = zip(shared.calls, found.keys, found.values, strict=True)
        found.calls = [replace(call, query=call.query[rows, :, start:], key=k, value=v) for call, k, v in pairs]
        return Whole(found, [x[rows, start:] for x in self.z], self.end[rows, start:])

    def and_rows(self, other: Whole) -> Whole:
        """The rows of both passes, over prompts of one length."""
        ours, theirs = self.shared, other.shared
        assert ours.final is not None
        assert theirs.final is not None

        def joined(first: Sequence[Tensor], second: Sequence[Tensor]) -> list[Tensor]:
            return [torch.cat(pair) for pair in zip(first, second, strict=True)]

        both = Shared(
            ours.modules,
            Prompts(torch.cat([ours.prompts.tokens, theirs.prompts.tokens])),
            ours.start,
            ours.replay,
            joined(ours.keys, theirs.keys),
            joined(ours.values, theirs.values),
            joined(ours.stream, theirs.stream),
            final=torch.cat([ours.final, theirs.final]),
        )
        queries = joined([call.query for call in ours.calls], [call.query for call in theirs.calls])
        parts = zip(ours.calls, queries, both.keys, both.values, strict=True)
        both.calls = [replace(call, query=q, key=k, value=v) for call, q, k, v in parts]
        return Whole(both, joined(self.z, other.z), torch.cat([self.end, other.end]))


def run_whole(modules: Modules, prompts: Prompts, start: int = 0) -> Whole:
    """One ordinary pass to its end."""
    seen: dict[tuple[str, int], Tensor] = {}

    def keep(site: tuple[str, int]) -> Callback:
        def see(x: Tensor) -> None:
            seen[site] = x[:, start:]

        return see

    end = ("resid_post", len(modules) - 1)
    sites = [end, *(("z", layer) for layer in range(len(modules)))]
    shared = run_shared(modules, prompts, start, {site: keep(site) for site in sites}, whole=True)
    return Whole(shared, [seen["z", layer] for layer in range(len(modules))], seen[end])


class Recordings:
    """Passes of one network, by length of the prompts; `place` is where the row of a prompt is."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._modules = Modules(network)
        self._passes: dict[int, Whole] = {}
        self._place: dict[tuple[int, ...], int] = {}

    def check(self, network: nn.Module) -> None:
        """Raises ValueError where they are of another network."""
        if network is not self.network:
            raise ValueError("recordings are of another network: expected those of the one that is run; make new ones")

    def clear(self) -> None:
        """Forget all passes."""
        self._passes.clear()
        self._place.clear()

    def whole(self, prompts: Prompts, start: int = 0) -> Whole:
        """The pass over prompts, from a position on; to be called as `run_whole` is."""
        if prompts.valid is not None:
            return run_whole(self._modules, prompts, start)
        found, rows = self._found(prompts)
        return found.part(rows, prompts, start)

    def shared(self, prompts: Prompts, start: int = 0) -> Shared:
        """What branches of the prompts need, from a position on."""
        return self.whole(prompts, start).shared

    def captured(
        self, prompts: Prompts, component: str, layers: Sequence[int]
    ) -> dict[int, Float[Tensor, "batch pos ..."]] | None:
        """The stream before layers, z, or patterns; None of what is not kept."""
        if prompts.valid is not None or component not in _KEPT:
            return None
        found, rows = self._found(prompts)
        return {layer: _KEPT[component](found, layer, rows) for layer in layers}

    def _found(self, prompts: Prompts) -> tuple[Whole, Int[Tensor, " row"]]:
        """The pass that has the prompts, and their rows in it."""
        tokens = [tuple(row) for row in prompts.tokens.tolist()]
        if missing := {row: at for at, row in enumerate(tokens) if row not in self._place}:
            new = run_whole(self._modules, prompts.take(torch.tensor(list(missing.values()))))
            before = self._passes.get(prompts.length)
            n = 0 if before is None else len(before.end)
            self._passes[prompts.length] = new if before is None else before.and_rows(new)
            self._place |= {row: n + at for at, row in enumerate(missing)}
        return self._passes[prompts.length], torch.tensor([self._place[row] for row in tokens])


class LastPass(Recordings):
    """What branches need of the last batch of prompts alone, padded or not: several sweeps of one batch run it once.

    The pass ends where that of a sweep ends, and the next batch takes its place.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self._last: Shared | None = None

    def clear(self) -> None:
        super().clear()
        self._last = None

    def shared(self, prompts: Prompts, start: int = 0) -> Shared:
        if self._last is None or self._last.start != start or not _same(self._last.prompts, prompts):
            self._last = None  # so that one is held, not two
            self._last = run_shared(self._modules, prompts, start)
        return self._last


def _same(one: Prompts, other: Prompts) -> bool:
    if (one.valid is None) != (other.valid is None) or not torch.equal(one.tokens.cpu(), other.tokens.cpu()):
        return False
    return one.valid is None or other.valid is None or torch.equal(one.valid.cpu(), other.valid.cpu())


def _pattern(of: Whole, layer: int, rows: Int[Tensor, " row"]) -> Float[Tensor, "batch query head key"]:
    """Computed from the queries and keys that are kept."""
    call, seen = of.shared.calls[layer], list[Tensor]()
    mine = replace(call, query=call.query[rows], key=call.key[rows], value=call.value[rows], mask=_mask(call))
    PlainAttention({("pattern", layer): seen.append})(mine)
    return seen[0]


def _mask(call: AttentionCall) -> Float[Tensor, "1 1 query key"]:
    """Of prompts without padding."""
    length = call.key.shape[2]
    seen = torch.ones(length, length, dtype=torch.bool, device=call.key.device).tril()
    if call.window is not None:
        seen = seen.triu(1 - call.window)
    return torch.zeros_like(seen, dtype=call.query.dtype).masked_fill(~seen, -torch.inf)[None, None]


_KEPT: dict[str, Callable[[Whole, int, Tensor], Tensor]] = {
    "resid_pre": lambda of, layer, rows: of.shared.stream[layer][rows],
    "z": lambda of, layer, rows: of.z[layer][rows],
    "pattern": _pattern,
}
