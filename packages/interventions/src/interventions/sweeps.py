"""Sweeps: the effect of one edit, at every layer, head and position that is asked for.

    value[prompt, cell] = metric(logits of the run in which the activation at `cell` is edited)

A sweep names the component and the axes along which cells vary. Cells that share their first edited position are
branches of one pass (see `branching`); `method="oracle"` runs one ordinary forward pass a cell with plain hooks
instead, which is what every cell's value means. Positions before the first one at which an edit's source differs from
the prompt (in any prompt of the batch) cannot change anything: branches leave them out, and cells that have no others
get the clean value without work. So do cells of the stream at which it is the same: tokens of both before layer 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interventions.branch_attention import BranchEdit
from interventions.branching import Shared, run_branches, run_shared
from interventions.edits import Edit
from interventions.hooks import HEADS, Modules
from interventions.memory import default_budget, in_chunks
from interventions.metrics import Metric, evaluate
from interventions.network import final_hidden, inference
from interventions.prompts import Prompts
from interventions.recordings import Recordings
from interventions.results import SweepResult
from interventions.sources import Edited, check_edit, first_difference, prepare, settled

Axis = Literal["layer", "head", "position"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Cell:
    """One edit of a sweep: `heads` and `positions` are what is edited together; positions from the start, padded."""

    index: int
    layer: int
    heads: tuple[int, ...]
    positions: tuple[int, ...]


def sweep(
    network: nn.Module,
    prompts: Prompts,
    edit: Edit,
    metric: Metric,
    *,
    component: str,
    over: Sequence[Axis],
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    positions: Sequence[int] | None = (-1,),
    method: Literal["branches", "oracle"] = "branches",
    batch_size: int | None = None,
    budget: int | None = None,
    recordings: Recordings | None = None,
    progress: Progress = lambda done, total: None,
) -> SweepResult:
    """Edit every cell alone and measure.

    Args:
        component: what is edited: one of `hooks.COMPONENTS`.
        over: the axes of the result. Heads or positions that are not among them are edited together.
        layers, heads: which of them; all by default. For k and v, heads count the key-value heads.
        positions: which, counted from the end (-1 is the last token); None for all.
        method: "oracle" runs one ordinary forward pass a cell.
        batch_size: prompts at a time; all by default.
        budget: bytes that the branches of one pass may take, about; by default half of what the logits of one plain
            forward pass over a batch of the prompts take.
        recordings: keeps the ordinary passes over the prompts and over those of a `Replace`, and those that it has are
            not run again.
        progress: called with the cells done and the cells in all, those of every batch of prompts counted.

    Raises:
        ValueError: a layer, head or position that does not exist, an axis that the component does not have, an edit
            or a metric that does not fit the prompts; all but a metric's wrong shape before anything runs.
    """
    modules = Modules(network)
    plan = Plan.of(modules, prompts, component, over, layers, heads, positions)
    at = sorted({position - plan.length for cell in plan.cells for position in cell.positions})
    edited_layers = sorted({cell.layer for cell in plan.cells})
    if method not in ("branches", "oracle"):
        raise ValueError(f"method {method!r}: expected 'branches' or 'oracle'")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size {batch_size}: expected at least 1 prompt, or None for all")
    metric.check(len(prompts))
    if recordings:
        recordings.check(network)
    check_edit(modules, prompts, edit, component, edited_layers, at)
    batches = list(range(0, len(prompts), batch_size or len(prompts)))
    with inference(network):
        edit = settled(modules, edit, component, edited_layers)
        values, clean = [], []
        for batch, start in enumerate(batches):
            rows = slice(start, min(len(prompts), start + (batch_size or len(prompts))))
            report = partial(_report, progress, batch, len(batches))
            part, part_clean = _sweep_rows(
                modules, prompts, rows, edit, metric, plan, method, budget, recordings, report
            )
            values.append(part)
            clean.append(part_clean)
    return SweepResult(
        values=torch.cat(values).view(len(prompts), *plan.shape),
        clean=torch.cat(clean),
        axes=tuple(over),
        coordinates=plan.coordinates,
        component=component,
        metric=metric.name,
    )


@dataclass(frozen=True)
class Plan:
    """The cells of a sweep, in the order of the result."""

    component: str
    cells: tuple[Cell, ...]
    shape: tuple[int, ...]
    coordinates: dict[str, tuple[int, ...]]
    length: int

    @classmethod
    def of(
        cls,
        modules: Modules,
        prompts: Prompts,
        component: str,
        over: Sequence[Axis],
        layers: Sequence[int] | None,
        heads: Sequence[int] | None,
        positions: Sequence[int] | None,
    ) -> Plan:
        """Raises ValueError for what does not exist."""
        modules.check(component, 0)
        in_heads = component in HEADS
        known = ("layer", "position", "head") if in_heads else ("layer", "position")
        if unknown := set(over).difference(known):
            raise ValueError(f"{component} has no axis {unknown.pop()!r}: expected {', '.join(known)}")
        if not over or len(set(over)) != len(over):
            raise ValueError(f"axes {list(over)}: expected at least one of {', '.join(known)}, each once")
        if heads is not None and not in_heads:
            raise ValueError(f"{component} has no heads: expected heads=None, or one of {', '.join(HEADS)}")
        n_heads = modules.n_kv_heads if component in ("k", "v") else modules.n_heads
        length, shortest = prompts.length, prompts.shortest
        of_layers = tuple(range(len(modules)) if layers is None else layers)
        of_heads = tuple(range(n_heads) if heads is None else heads) if in_heads else ()
        of_positions = tuple(range(-length, 0) if positions is None else positions)
        for name, chosen in (("layers", layers), ("heads", heads), ("positions", positions)):
            if chosen is not None and len(set(chosen)) != max(1, len(chosen)):
                raise ValueError(f"{name} {list(chosen)}: expected at least one, each once; None for all")
        for layer in of_layers:
            modules.check(component, layer)
        for head in of_heads:
            if not 0 <= head < n_heads:
                raise ValueError(f"head {head} does not exist: {component} has heads 0 to {n_heads - 1}")
        for position in of_positions:
            if not -length <= position < 0 or (positions is not None and position < -shortest):
                raise ValueError(
                    f"position {position} is not in every prompt: expected -{shortest} to -1, counted from the end"
                )
        axes = {"layer": of_layers, "head": of_heads, "position": of_positions}
        grid = torch.cartesian_prod(*(torch.arange(len(axes[axis])) for axis in over)).view(-1, len(over)).tolist()
        cells = []
        for index, places in enumerate(grid):
            at = {axis: axes[axis][place] for axis, place in zip(over, places, strict=True)}
            if "layer" not in at and len(of_layers) != 1:
                raise ValueError(f"{len(of_layers)} layers without an axis 'layer': expected one; name it in `over`")
            cells.append(
                Cell(
                    index,
                    at.get("layer", of_layers[0]),
                    (at["head"],) if "head" in at else of_heads,
                    tuple(p + length for p in ((at["position"],) if "position" in at else of_positions)),
                )
            )
        coordinates: dict[str, tuple[int, ...]] = {axis: axes[axis] for axis in over}
        return cls(component, tuple(cells), tuple(len(axes[axis]) for axis in over), coordinates, length)

    def by_start(self, first: int) -> dict[int, list[Cell]]:
        """Cells by the position at which their branches part, those alone that can differ (at `first` or after)."""
        groups: dict[int, list[Cell]] = {}
        for cell in self.cells:
            effective = [position for position in cell.positions if position >= first]
            if effective:
                groups.setdefault(min(effective), []).append(cell)
        return {start: sorted(group, key=lambda cell: cell.layer) for start, group in sorted(groups.items())}


def _report(progress: Progress, batch: int, batches: int, done: int, cells: int) -> None:
    """Progress over all batches."""
    progress(batch * cells + done, batches * cells)


def _sweep_rows(
    modules: Modules,
    prompts: Prompts,
    rows: slice,
    edit: Edit,
    metric: Metric,
    plan: Plan,
    method: str,
    budget: int | None,
    recordings: Recordings | None,
    progress: Progress,
) -> tuple[Float[Tensor, "batch cell"], Float[Tensor, " batch"]]:
    """All cells for some of the prompts."""
    mine = prompts.rows(rows)
    budget = default_budget(modules, mine) if budget is None else budget
    layers = sorted({cell.layer for cell in plan.cells})
    edited = prepare(modules, rows, edit, plan.component, layers, recordings)
    groups = plan.by_start(0 if method == "oracle" else first_difference(mine, rows, edit))
    start = min(groups, default=plan.length - 1)
    shared = recordings.shared(mine, start) if recordings else run_shared(modules, mine, start)
    if method == "branches" and plan.component == "resid_pre":
        groups = {at: [cell for cell in cells if _differs(shared, edited, cell)] for at, cells in groups.items()}
    clean = evaluate(metric, modules, shared.last[:, None], shared.last, rows, budget=budget)
    values = clean.repeat(1, len(plan.cells))
    done = len(plan.cells) - sum(map(len, groups.values()))
    for start, cells in groups.items():
        for chunk in _chunks(modules, cells, len(mine), start, plan, budget):
            if method == "oracle":
                hidden = torch.stack([_one_forward(modules, mine, plan.component, cell, edited) for cell in chunk], 1)
            else:
                hidden = _branches(shared, start, plan.component, chunk, edited)
            measured = evaluate(metric, modules, hidden, shared.last, rows, budget=budget)
            values[:, [cell.index for cell in chunk]] = measured
            done += len(chunk)
            progress(done, len(plan.cells))
    return values, clean[:, 0]


def _differs(shared: Shared, edited: Edited, cell: Cell) -> bool:
    """Whether an edit changes the stream at a cell; before the first layer that is so where tokens differ."""
    if edited.values is None:
        return True
    clean, kept = shared.stream[cell.layer], [at for at in cell.positions if at >= shared.start]
    given = edited.values[cell.layer].to(clean).expand(len(clean), shared.prompts.length, -1)
    return not torch.equal(given[:, kept], clean[:, [at - shared.start for at in kept]])


def _chunks(
    modules: Modules, cells: list[Cell], batch: int, start: int, plan: Plan, budget: int
) -> list[Sequence[Cell]]:
    """The cells that are run together; those of the last layer apart, so that the others need only its last row."""
    end, width = len(modules) - 1, plan.length - start
    apart = [[cell for cell in cells if cell.layer != end], [cell for cell in cells if cell.layer == end]]
    patterns = plan.component == "pattern"
    return [
        chunk
        for some in (apart if width > 1 else [cells])
        if some
        for chunk in in_chunks(modules, some, batch, width, plan.length, budget, patterns=patterns)
    ]


def _branches(
    shared: Shared, start: int, component: str, cells: Sequence[Cell], edited: Edited
) -> Float[Tensor, "batch cell d_model"]:
    """All cells, which part at `start`, as branches of one pass."""
    edits = branch_edits(start, component, cells, edited)
    return run_branches(shared, start, [cell.layer for cell in cells], edits)


def branch_edits(
    start: int, component: str, cells: Sequence[Cell], edited: Edited
) -> dict[tuple[str, int], BranchEdit]:
    """The edits of cells that are branches from `start` on, in this order, by (component, layer)."""
    edits = {}
    for layer in sorted({cell.layer for cell in cells}):
        mine = [(branch, cell) for branch, cell in enumerate(cells) if cell.layer == layer]
        edits[component, layer] = edited.of_branches(mine, start, layer, component)
    return edits


def _one_forward(
    modules: Modules, prompts: Prompts, component: str, cell: Cell, edited: Edited
) -> Float[Tensor, "batch d_model"]:
    """The cell's edit in one ordinary forward pass with plain hooks."""
    hooks = {(component, cell.layer): edited.of_cell(cell, component)}
    return final_hidden(modules, prompts, hooks)[:, -1]
