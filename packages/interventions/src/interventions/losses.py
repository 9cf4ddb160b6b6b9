"""What edits do to the losses of a whole text: knock-outs of every head, and of many together.

    log p_i = log softmax(logits_{i-1})[t_i]
    value[prompt, cell] = mean over targets i of -log p_i, in the run in which the cell is edited at all positions

Olsson et al. 2022 ("In-context Learning and Induction Heads", Argument 3) ablate each head in turn. Each cell is a
branch that starts at the first token and enters at its layer (see `branching`), so that the layers below a head are not
run again for it. Exact; in nats per token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interventions.branching import run_branch_rows, run_shared
from interventions.contexts import Site, SiteEdit
from interventions.contexts import edited as editing
from interventions.edits import Edit
from interventions.hooks import Modules
from interventions.memory import default_budget, in_chunks
from interventions.network import final_hidden, inference, unembed
from interventions.prompts import Prompts
from interventions.results import SweepResult
from interventions.sources import check_edit, prepare, settled
from interventions.sweeps import Axis, Plan, Progress, branch_edits


def next_token_log_probs(
    network: nn.Module, prompts: Prompts, *, edits: Mapping[Site, SiteEdit] | None = None, batch_size: int = 8
) -> Float[Tensor, "batch target"]:
    """log p of each token given those before it, nats, [batch, pos - 1], with all `edits` made together.

    Raises:
        ValueError: prompts are padded or shorter than 2 tokens; a site or an edit does not fit (see `contexts`).
    """
    _check(prompts)
    modules, parts = Modules(network), []
    with inference(network), editing(network, edits or {}):
        for start in range(0, len(prompts), batch_size):
            some = prompts.rows(slice(start, start + batch_size))
            parts.append(_log_probs(modules, final_hidden(modules, some)[:, None], some.tokens)[:, 0])
    return torch.cat(parts)


def loss_sweep(
    network: nn.Module,
    prompts: Prompts,
    edit: Edit,
    *,
    component: str = "z",
    over: Sequence[Axis] = ("layer", "head"),
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    targets: slice = slice(None),
    method: Literal["branches", "oracle"] = "branches",
    batch_size: int = 8,
    budget: int | None = None,
    progress: Progress = lambda done, total: None,
) -> SweepResult:
    """Mean loss of every prompt with each cell edited at all positions; effects are increases of the loss.

    Args:
        over: axes among layer and head.
        targets: columns of `next_token_log_probs` that the mean is over, e.g. the second copy of a repeated segment.
        method: "oracle" runs one ordinary forward pass a cell.

    Raises:
        ValueError: prompts are padded or too short; no target is left; a layer or head does not exist; an edit does not
            fit the prompts. All before anything runs.
    """
    _check(prompts)
    if not range(prompts.length - 1)[targets]:
        raise ValueError(f"{targets} leaves none of {prompts.length - 1} targets: expected at least one")
    if "position" in over:
        raise ValueError("loss_sweep edits all positions: expected axes among layer and head; use sweep for positions")
    modules = Modules(network)
    plan = Plan.of(modules, prompts, component, over, layers, heads, None)
    at = sorted({cell.layer for cell in plan.cells})
    check_edit(modules, prompts, edit, component, at, range(-prompts.length, 0))
    values, clean = torch.empty(len(prompts), len(plan.cells)), torch.empty(len(prompts))
    done = 0
    with inference(network):
        edit = settled(modules, edit, component, at)
        for first in range(0, len(prompts), batch_size):
            rows = slice(first, min(first + batch_size, len(prompts)))
            some = prompts.rows(rows)
            edited, shared = prepare(modules, rows, edit, component, at), run_shared(modules, some, whole=True)
            assert shared.final is not None
            clean[rows] = -_log_probs(modules, shared.final[:, None], some.tokens)[:, 0, targets].mean(dim=-1)
            cells, limit = plan.by_start(0)[0], default_budget(modules, some) if budget is None else budget
            patterns = component == "pattern"
            for chunk in in_chunks(modules, cells, len(some), plan.length, plan.length, limit, patterns=patterns):
                if method == "oracle":
                    hooks = [{(component, cell.layer): edited.of_cell(cell, component)} for cell in chunk]
                    hidden = torch.stack([final_hidden(modules, some, one) for one in hooks], dim=1)
                else:
                    edits = branch_edits(0, component, chunk, edited)
                    streams = run_branch_rows(shared, 0, [cell.layer for cell in chunk], edits)
                    hidden = modules.final_norm(streams)
                losses = -_log_probs(modules, hidden, some.tokens)[..., targets].mean(dim=-1)
                values[rows, [cell.index for cell in chunk]] = losses
                done += len(chunk) * len(some)
                progress(done, values.numel())
    return SweepResult(
        values=values.view(len(prompts), *plan.shape),
        clean=clean,
        axes=tuple(over),
        coordinates=plan.coordinates,
        component=component,
        metric="loss",
    )


def _log_probs(
    modules: Modules, hidden: Float[Tensor, "batch branch pos d_model"], tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch branch target"]:
    """A branch at a time, so that branches x positions x vocabulary never exist at once; on the CPU."""
    right = tokens[:, 1:, None].to(hidden.device)
    parts = []
    for branch in range(hidden.shape[1]):
        logits = unembed(modules, hidden[:, branch, :-1])
        parts.append(logits.gather(-1, right)[..., 0] - logits.logsumexp(dim=-1))
    return torch.stack(parts, dim=1).cpu()


def _check(prompts: Prompts) -> None:
    if prompts.valid is not None or prompts.length < 2:
        raise ValueError(
            f"prompts of {prompts.shortest} to {prompts.length} tokens: expected one length of at least 2, without "
            f"padding; pass texts cut to one length"
        )
