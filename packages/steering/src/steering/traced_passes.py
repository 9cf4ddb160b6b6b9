"""Passes through nnsight: a batch a request here or on NDIF (`traces`), a text a request by a server (`served_traces`).

On a server a token costs a request, also where a text is given and its losses are asked for, since it gives the logits
behind a text's last token alone. The numbers are the engine's but for rounding; a drawn token changes with rounding
where the number it is drawn by falls on the border of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from interventions import Prompts, as_prompts
from interventions.backends import Traced
from interventions.calls import Call
from steering.engine_passes import own_tokens, prompts_and_new
from steering.passes import At, Drawn, Rows
from steering.sampling import Sampling
from steering.served_traces import served
from steering.steering import Steer, check_fits
from steering.trace_plans import Place, calls_of, following, of_row, one_by_one, together
from steering.traces import Pick, Trace
from steering.vectors import Component


@dataclass(frozen=True)
class TracedPasses:
    """`passes.Passes` of a model that nnsight runs, here or on NDIF."""

    model: Traced

    @cached_property
    def trace(self) -> Trace:
        return Trace(self.model)

    def streams(
        self, rows: Rows, component: Component, layers: Sequence[int], read: At
    ) -> Float[Tensor, "row layer *pos d_model"]:
        prompts, wanted = as_prompts(rows), [(layer, component == "resid_pre") for layer in sorted(layers)]
        found = self.trace.passed(prompts, [], read=wanted, pick=self._pick(prompts, read)).streams
        assert found is not None
        return found[:, [sorted(layers).index(layer) for layer in layers]]

    def behind(
        self, rows: Rows, asked: Int[Tensor, "row asked"], steers: Sequence[Steer]
    ) -> Float[Tensor, "row asked"]:
        prompts = as_prompts(rows)
        found = self.trace.passed(prompts, self._places(steers, prompts), asked=asked[:, None]).log_p
        assert found is not None
        return found[:, 0]

    def behind_each(
        self, rows: Rows, asked: Int[Tensor, "row asked"], conditions: Sequence[Sequence[Steer]]
    ) -> list[Float[Tensor, "row asked"]]:
        return [self.behind(rows, asked, steers) for steers in conditions]

    def likeliest(
        self, rows: Rows, asked: Int[Tensor, " row"], steers: Sequence[Steer]
    ) -> tuple[Int[Tensor, " row"], Float[Tensor, " row"]]:
        prompts = as_prompts(rows)
        found = self.trace.passed(prompts, self._places(steers, prompts), asked=asked[:, None, None])
        assert found.best is not None
        assert found.log_p is not None
        return found.best[:, 0], found.log_p[:, 0, 0]

    def losses(self, rows: Rows, counts: Sequence[int], steers: Sequence[Steer]) -> list[Float[Tensor, " _"]]:
        prompts, n = as_prompts(rows), max(counts)
        asked = torch.nn.functional.pad(prompts.tokens[:, -n:] if n else prompts.tokens[:, :0], (0, 1))
        found = self.trace.passed(prompts, self._places(steers, prompts), asked=asked[..., None]).log_p
        assert found is not None
        return [-found[row, n - count : n, 0] for row, count in enumerate(counts)]

    def drawn(
        self,
        prompts: Prompts,
        places: Int[Tensor, " row"],
        n: int,
        sampling: Sampling,
        steers: Sequence[Steer],
        bias: Float[Tensor, " d_vocab"] | None,
        ends: frozenset[int],
    ) -> Drawn:
        self._check(steers)
        plan = one_by_one(steers, calls_of(prompts, n))
        numbers = torch.stack([sampling.uniform(place, n) for place in places.tolist()]).float()
        tokens, finite = self.trace.generated(prompts, plan, sampling, numbers, bias)
        yield from zip(tokens.unbind(dim=1), finite.unbind(dim=1), strict=True)

    def sums(
        self, prompts: Rows, new: Rows, steers: Sequence[Steer]
    ) -> tuple[Float64[Tensor, " width"], Float64[Tensor, " width"]]:
        whole, calls, read = _whole(prompts, new)
        self._check(steers)
        totals = [self.trace.passed(whole, of, added=read).total for of in (together(steers, calls), [])]
        assert totals[0] is not None
        assert totals[1] is not None
        return totals[0], totals[1]

    def as_logits(self, found: Float64[Tensor, " width"]) -> Float[Tensor, " d_vocab"]:
        return found.float()

    def _pick(self, prompts: Prompts, read: At) -> Pick:
        if read is None:
            return True
        return read if isinstance(read, int) else own_tokens(self.model, prompts).float()

    def _places(self, steers: Sequence[Steer], prompts: Prompts) -> list[Place]:
        self._check(steers)
        return together(steers, calls_of(prompts, 1))

    def _check(self, steers: Sequence[Steer]) -> None:
        for steer in steers:
            check_fits(steer, self.model.network)


@dataclass(frozen=True)
class ServedPasses(TracedPasses):
    """The same of a model that a server runs."""

    def streams(
        self, rows: Rows, component: Component, layers: Sequence[int], read: At
    ) -> Float[Tensor, "row layer *pos d_model"]:
        wanted, order = [(layer, component == "resid_pre") for layer in sorted(layers)], sorted(layers)
        found = []
        for row in rows:
            prompts = as_prompts([row])
            streams, _ = served(self.trace, row, [], read=wanted, pick=self._pick(prompts, read))
            assert streams is not None
            found.append(streams[[order.index(layer) for layer in layers]])
        return torch.stack(found)

    def behind(
        self, rows: Rows, asked: Int[Tensor, "row asked"], steers: Sequence[Steer]
    ) -> Float[Tensor, "row asked"]:
        return self._log_p(rows, steers).gather(1, asked)

    def likeliest(
        self, rows: Rows, asked: Int[Tensor, " row"], steers: Sequence[Steer]
    ) -> tuple[Int[Tensor, " row"], Float[Tensor, " row"]]:
        log_p = self._log_p(rows, steers)
        return log_p.argmax(dim=-1), log_p.gather(1, asked[:, None])[:, 0]

    def losses(self, rows: Rows, counts: Sequence[int], steers: Sequence[Steer]) -> list[Float[Tensor, " _"]]:
        prompts = as_prompts(rows)
        places, found = self._places(steers, prompts), []
        for row, count in enumerate(counts):
            tokens, before = rows[row], len(rows[row]) - count
            log_p = [self._logits(prompts, places, row, n).log_softmax(-1) for n in range(before, len(tokens))]
            of_row = [-log_p[at][token] for at, token in enumerate(tokens[before:])]
            found.append(torch.stack(of_row) if of_row else torch.empty(0))
        return found

    def drawn(
        self,
        prompts: Prompts,
        places: Int[Tensor, " row"],
        n: int,
        sampling: Sampling,
        steers: Sequence[Steer],
        bias: Float[Tensor, " d_vocab"] | None,
        ends: frozenset[int],
    ) -> Drawn:
        self._check(steers)
        calls = calls_of(prompts, n)
        plan = together(steers, calls)
        numbers = torch.stack([sampling.uniform(place, n) for place in places.tolist()]).float()
        whole, over = prompts, set[int]()
        for step in range(n):
            tokens, finite = torch.zeros(len(prompts), dtype=torch.long), torch.ones(len(prompts), dtype=torch.bool)
            for row in range(len(prompts)):
                if row in over:
                    continue
                logits = self._logits(whole, plan, row)
                logits = logits if bias is None else logits + bias
                token, good = sampling.tokens(logits[None], numbers[row, step : step + 1])
                tokens[row], finite[row] = token[0], good[0]
                if int(token) in ends:
                    over.add(row)
            yield tokens, finite
            valid = None if whole.valid is None else torch.nn.functional.pad(whole.valid, (0, 1), value=True)
            whole = Prompts(torch.cat([whole.tokens, tokens[:, None]], dim=1), valid)

    def sums(
        self, prompts: Rows, new: Rows, steers: Sequence[Steer]
    ) -> tuple[Float64[Tensor, " width"], Float64[Tensor, " width"]]:
        whole, calls, _ = _whole(prompts, new)
        self._check(steers)
        places = [
            (row, n)
            for row, (prompt, written) in enumerate(zip(prompts, new, strict=True))
            for n in range(len(prompt), len(prompt) + len(written))
        ]
        steered, plain = (
            torch.stack([self._logits(whole, plan, row, n).double() for row, n in places]).sum(dim=0)
            for plan in (together(steers, calls), [])
        )
        return steered, plain

    def _log_p(self, rows: Rows, steers: Sequence[Steer]) -> Float[Tensor, "row d_vocab"]:
        prompts = as_prompts(rows)
        places = self._places(steers, prompts)
        return torch.stack([self._logits(prompts, places, row) for row in range(len(rows))]).log_softmax(dim=-1)

    def _logits(
        self, prompts: Prompts, places: Sequence[Place], row: int, n: int | None = None
    ) -> Float[Tensor, " d_vocab"]:
        """Behind the first n real tokens of a row, by default all."""
        columns = torch.arange(prompts.length) if prompts.valid is None else prompts.valid[row].nonzero()[:, 0]
        columns = columns[:n]
        return served(self.trace, prompts.tokens[row, columns].tolist(), of_row(places, row, columns))[1]


def _whole(prompts: Rows, new: Rows) -> tuple[Prompts, list[Call], Bool[Tensor, "row last"]]:
    """Prompts and what is read behind them as one pass, the two calls that it stands for, and where new tokens are
    predicted, of the last positions."""
    start, follows, read = prompts_and_new(prompts, new)
    valid = torch.ones_like(start.tokens, dtype=torch.bool) if start.valid is None else start.valid
    whole = Prompts(torch.cat([start.tokens, follows], dim=1), torch.cat([valid, read], dim=1))
    calls = calls_of(start, 1)
    if follows.shape[1]:
        calls.append(following(calls[0], follows.shape[1], start.length, whole.valid))
    return whole, calls, torch.nn.functional.pad(read, (1, 0), value=True)
