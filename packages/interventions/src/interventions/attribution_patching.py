"""Attribution patching: the effect of every cell of a sweep from gradients, to first order or along a line.

    effect(cell) ~ sum over the cell of (a' - a) * dm/da,    a' the activation after the edit, m the metric

Nanda 2023 (neelnanda.io, "Attribution Patching"), Syed et al. 2023 (arXiv 2310.10348). With `steps=1` the gradient is
taken at the clean point: one forward and one backward pass for all cells. This is a linear approximation: right for
small a' - a, and blind where the clean run is flat (a saturated softmax, a metric at its optimum: `kl_to_clean` gives 0
everywhere).

With `steps=n` the gradient is averaged along the line from clean to edited activations (integrated gradients:
Sundararajan et al. 2017, section 3; Hanna et al. 2024, arXiv 2403.17806, "EAP-IG activations"), at the midpoints

    a(t) = a + t (a' - a),    t = 1/2n, 3/2n, ..., 1 - 1/2n

of all cells of one layer *together*, other layers following from them. A layer costs n passes through itself and those
behind it (of the last one its last row), so that cells of all L layers cost L n / 2 whole ones. Embeddings stay (the
other variant, "EAP-IG inputs", moves them instead). As n grows the cells of a layer sum to what the edit of all of them
at once does ("completeness", error O(1/n^2)); a layer with a single cell is then exact. How the sum is shared out still
differs from editing each cell alone, and which cells are asked for changes the line. Where cells are at the last token
alone, the exact `sweep` costs about as much as `steps=1`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interventions.attention import PlainAttention
from interventions.branching import Shared, last_rows, run_shared
from interventions.edits import Edit, Replace
from interventions.hooks import Modules, attached
from interventions.memory import default_budget
from interventions.metrics import Metric, evaluate
from interventions.network import final_hidden, inference
from interventions.prompts import Prompts
from interventions.results import SweepResult
from interventions.sources import Edited, check_edit, prepare, settled
from interventions.sweeps import Axis, Cell, Plan, Progress


def attribution_patch(
    network: nn.Module,
    prompts: Prompts,
    source: Prompts | Edit,
    metric: Metric,
    *,
    component: str,
    over: Sequence[Axis],
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    positions: Sequence[int] | None = (-1,),
    steps: int = 1,
    batch_size: int | None = None,
    progress: Progress = lambda done, total: None,
) -> SweepResult:
    """What `sweep` measures for the same arguments, approximately; the result's values are clean + attribution.

    The network's parameters get no gradients, and keep their `requires_grad`.

    Args:
        source: prompts whose activations take the place of the clean ones, or any edit of a sweep.
        component, over, layers, heads, positions: as for `sweep`.
        steps: 1 for the gradient at the clean point, more for integrated gradients.
        batch_size: prompts at a time; all by default. Activations of all layers are kept for the backward pass.
        progress: called with the backward passes done and those in all.

    Raises:
        ValueError: what `sweep` refuses; no steps; a metric without gradient, such as a rank (after one forward pass).
    """
    modules = Modules(network)
    plan = Plan.of(modules, prompts, component, over, layers, heads, positions)
    edit = Replace(source) if isinstance(source, Prompts) else source
    if steps < 1 or (batch_size is not None and batch_size < 1):
        raise ValueError(f"steps {steps}, batch_size {batch_size}: expected at least 1 of each (batch_size: or None)")
    by_layer = {layer: _together(plan, layer) for layer in sorted({cell.layer for cell in plan.cells})}
    metric.check(len(prompts))
    at = sorted({position - plan.length for cell in plan.cells for position in cell.positions})
    check_edit(modules, prompts, edit, component, list(by_layer), at)
    batches = list(range(0, len(prompts), batch_size or len(prompts)))
    each = 1 if steps == 1 else steps * len(by_layer)
    values, clean = [], []
    with inference(network):
        edit = settled(modules, edit, component, list(by_layer))
        for batch, start in enumerate(batches):
            rows = slice(start, min(len(prompts), start + (batch_size or len(prompts))))
            edited = prepare(modules, rows, edit, component, list(by_layer))
            run = _Run(modules, prompts.rows(rows), rows, metric, component, by_layer, edited)
            report = partial(_report, progress, batch * each, len(batches) * each)
            attribution, part_clean = run.linear(report) if steps == 1 else run.integrated(steps, report)
            shares = torch.stack([_share(attribution[cell.layer], cell) for cell in plan.cells], dim=1)
            values.append(part_clean[:, None] + shares)
            clean.append(part_clean)
    return SweepResult(
        values=torch.cat(values).view(len(prompts), *plan.shape),
        clean=torch.cat(clean),
        axes=tuple(over),
        coordinates=plan.coordinates,
        component=component,
        metric=metric.name,
    )


def _report(progress: Progress, before: int, total: int, done: int) -> None:
    """Progress over all batches."""
    progress(before + done, total)


def _together(plan: Plan, layer: int) -> Cell:
    """All cells of a layer as one."""
    cells = [cell for cell in plan.cells if cell.layer == layer]
    heads = sorted({head for cell in cells for head in cell.heads})
    positions = sorted({position for cell in cells for position in cell.positions})
    return Cell(0, layer, tuple(heads), tuple(positions))


def _share(attribution: Float[Tensor, "batch pos ..."], cell: Cell) -> Float[Tensor, " batch"]:
    """The cell's part of a layer's attribution [batch, pos] or [batch, pos, head]."""
    mine = attribution[:, list(cell.positions)]
    return (mine[..., list(cell.heads)] if cell.heads else mine).flatten(1).sum(dim=1)


@dataclass(frozen=True)
class _Run:
    """Some of the prompts; `by_layer` holds all cells of a layer as one."""

    modules: Modules
    prompts: Prompts
    rows: slice
    metric: Metric
    component: str
    by_layer: dict[int, Cell]
    edited: Edited

    def linear(self, report: Callable[[int], None]) -> tuple[dict[int, Tensor], Float[Tensor, " batch"]]:
        """Attributions by layer with the gradients of one clean pass, and the clean metric."""
        seen: dict[int, Tensor] = {}
        with torch.enable_grad():
            callbacks = {site: partial(_watched, seen, site[1]) for site in self._sites()}
            last = final_hidden(self.modules, self.prompts, callbacks)[:, -1]
            values = self._evaluated(last, last.detach())
            gradients = torch.autograd.grad(self._summed(values), list(seen.values()))
        report(1)
        pairs = zip(seen.items(), gradients, strict=True)
        return {layer: self._product(self._change(layer, x), g) for (layer, x), g in pairs}, values.detach()

    def integrated(
        self, steps: int, report: Callable[[int], None]
    ) -> tuple[dict[int, Tensor], Float[Tensor, " batch"]]:
        """Attributions by layer, averaged along each layer's line, and the clean metric."""
        clean: dict[int, Tensor] = {}
        callbacks = {site: partial(_kept, clean, site[1]) for site in self._sites()}
        shared = run_shared(self.modules, self.prompts, 0, callbacks, whole=True)
        attributions = {}
        for done, (layer, x) in enumerate(clean.items()):
            change, gradient = self._change(layer, x), torch.zeros_like(x)
            for step in range(steps):
                with torch.enable_grad():
                    moved = (x + (step + 0.5) / steps * change).requires_grad_()
                    along = self._from_layer(shared, layer, moved)
                    gradient += torch.autograd.grad(self._summed(along), moved)[0] / steps
                report(done * steps + step + 1)
            attributions[layer] = self._product(change, gradient)
        return attributions, self._evaluated(shared.last, shared.last)

    def _from_layer(self, shared: Shared, layer: int, moved: Tensor) -> Float[Tensor, " batch"]:
        """The metric with `moved` in its layer; what is below is not computed anew."""
        causal, replay, end = self.prompts.valid is None, shared.replay, len(self.modules) - 1
        stream = shared.stream[layer]
        if self.component == "z":  # queries, keys and values do not matter, and of the last layer its last row alone
            first = self.prompts.length - 1 if layer == end else 0
            positions = torch.arange(first, self.prompts.length, device=stream.device)
            written = replay.written(layer, moved[:, first:])
            stream = replay.behind_written(layer, stream[:, first:], positions, written)
        else:
            hooks = {(self.component, layer): partial(_placed, moved)}
            with attached(self.modules, hooks, PlainAttention(hooks, causal=causal)):
                stream = replay.again(layer, stream)
        with attached(self.modules, {}, PlainAttention({}, causal=causal)):
            for at in range(layer + 1, end):
                stream = replay.again(at, stream)
        last = last_rows(shared, 0, stream[:, None])[:, 0] if layer < end else stream[:, -1]
        return self._evaluated(self.modules.final_norm(last), shared.last)

    def _sites(self) -> list[tuple[str, int]]:
        return [(self.component, layer) for layer in self.by_layer]

    def _evaluated(
        self, last: Float[Tensor, "batch d_model"], clean: Float[Tensor, "batch d_model"]
    ) -> Float[Tensor, " batch"]:
        """The metric of a stream behind the final norm at the last token; `clean` is what it compares with."""
        budget = default_budget(self.modules, self.prompts)
        return evaluate(self.metric, self.modules, last[:, None], clean, self.rows, budget=budget)[:, 0]

    def _summed(self, values: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Over prompts: none depends on another's activations."""
        if not values.requires_grad:
            raise ValueError(f"metric {self.metric.name!r} has no gradient: expected a differentiable one; use `sweep`")
        return values.sum()

    def _change(self, layer: int, x: Tensor) -> Tensor:
        """a' - a, 0 outside the layer's cells."""
        with torch.no_grad():
            new = self.edited.of_cell(self.by_layer[layer], self.component)(x)
            assert new is not None
            return new - x

    def _product(self, change: Tensor, gradient: Tensor) -> Float[Tensor, "batch pos ..."]:
        """change * gradient, summed over what one head at one position holds; float32, on the CPU."""
        return (change.float() * gradient.float()).sum(dim=-1).cpu()


def _watched(seen: dict[int, Tensor], layer: int, x: Tensor) -> Tensor:
    """Where the layers below keep no gradients, the first activation starts the graph."""
    seen[layer] = x.clone() if x.requires_grad else x.detach().clone().requires_grad_()
    return seen[layer]


def _kept(seen: dict[int, Tensor], layer: int, x: Tensor) -> None:
    seen[layer] = x.clone()


def _placed(moved: Tensor, x: Tensor) -> Tensor:
    return moved
