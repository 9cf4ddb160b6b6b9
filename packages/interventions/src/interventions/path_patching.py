"""Path patching: the direct effect of every attention head on later heads or on the logits.

Wang et al. 2022 (arXiv 2211.00593, section 3.1 and appendix B), Goldowsky-Dill et al. 2023 (arXiv 2304.05969). For a
sender head s, with z' its output in the run on `source`:

    1. z_s := z'_s, all other heads keep their clean z; the stream then is  x_l = clean x_l + Delta_l(s)
    2. at each receiver r of layer l:  q'_r = W_Q norm(x_l)  (or k', v'),  rotated and normed as the model does
    3. an ordinary pass over the prompt with q_r := q'_r for all receivers at once; all else is computed anew

With `FinalStream` as the receiver, step 2 is the final norm and the unembedding of x_L, and there is no step 3.

The path from s to r runs through the residual stream and the MLPs between them, which are computed anew, and not
through heads: so do Wang et al., and `through_mlps=True`. With `through_mlps=False` MLPs keep their clean output too:
Delta_l(s) = attn_out(z') - attn_out(z) at every l, the sender's own words alone. Norms are never frozen.

Nothing is approximated: `method="oracle"` computes every sender by ordinary passes with hooks on all heads (and MLPs).
"branches" holds heads without computing attention for them, in rows of all senders at once (`frozen`), and step 3 is
one branch a sender (`branching`), which enters at the first receiver behind it. Cost grows with the positions that are
patched: where only the last token counts (`FinalStream`, queries of the last layer, `positions=(-1,)`) all senders cost
about one pass; at all T positions each sender is T rows, and the gain over hooks is small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interventions.attention import Callback
from interventions.branch_attention import BranchEdit
from interventions.branching import run_branches
from interventions.edits import Replace
from interventions.frozen import Frozen, run_frozen
from interventions.hooks import Modules
from interventions.memory import default_budget, in_chunks
from interventions.metrics import Metric, evaluate
from interventions.network import final_hidden, inference
from interventions.prompts import Prompts
from interventions.receivers import Into, Receivers, checked
from interventions.recordings import Recordings
from interventions.results import SweepResult
from interventions.sources import Edited, captured, check_edit, first_difference, prepare
from interventions.sweeps import Cell, Plan, Progress


def path_patch(
    network: nn.Module,
    prompts: Prompts,
    source: Prompts,
    metric: Metric,
    *,
    receivers: Receivers,
    senders: Sequence[tuple[int, int]] | None = None,
    positions: Sequence[int] | None = None,
    through_mlps: bool = True,
    method: Literal["branches", "oracle"] = "branches",
    batch_size: int | None = None,
    budget: int | None = None,
    recordings: Recordings | None = None,
    progress: Progress = lambda done, total: None,
) -> SweepResult:
    """Patch the path from every sender to the receivers and measure; axes ("layer", "head") are the sender's.

    The result has all layers and heads of the network. Those that are not among `senders`, and those that are in no
    layer before a receiver, have the clean value: an effect of 0.

    Args:
        source: prompts that the sender's z is taken from; as many as `prompts`, or one for all, of equal length.
        senders: heads as (layer, head); by default all.
        positions: at which the sender is patched, counted from the end; all by default. To `FinalStream` only the last
            token has a path.
        through_mlps: whether MLPs between sender and receivers are computed anew, or keep their clean output.
        method: "oracle" runs one (two for `HeadInputs`) ordinary passes a sender.
        batch_size: prompts at a time; all by default.
        budget: bytes that the senders of one pass may take, about; by default as for `sweep`.
        recordings: as for `sweep`.
        progress: called with the senders done and the senders in all, those of every batch of prompts counted.

    Raises:
        ValueError: a head or position that does not exist, a part of a group as receiver of keys or values, receivers
            that no head comes before, prompts that are not of one length, a metric for other prompts.
    """
    modules = Modules(network)
    plan = Plan.of(modules, prompts, "z", ("layer", "head"), None, None, positions)
    if method not in ("branches", "oracle"):
        raise ValueError(f"method {method!r}: expected 'branches' or 'oracle'")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size {batch_size}: expected at least 1 prompt, or None for all")
    into = Into.of(modules, receivers)
    chosen = None if senders is None else {checked(modules, head, "sender") for head in senders}
    cells = [
        cell
        for cell in plan.cells
        if cell.layer < into.layers[-1] and (chosen is None or (cell.layer, cell.heads[0]) in chosen)
    ]
    if not cells:
        raise ValueError(
            f"senders {list(senders or ())}: none is before the receivers; expected heads in layers below "
            f"{into.layers[-1]}"
        )
    metric.check(len(prompts))
    if recordings:
        recordings.check(network)
    at = [position - plan.length for position in plan.cells[0].positions]
    check_edit(modules, prompts, Replace(source), "z", range(len(modules)), at)
    run = _Run(modules, source, metric, into, cells, through_mlps, method, budget, recordings)
    batches = list(range(0, len(prompts), batch_size or len(prompts)))
    values, clean = [], []
    with inference(network):
        for batch, start in enumerate(batches):
            rows = slice(start, min(len(prompts), start + (batch_size or len(prompts))))
            report = partial(_report, progress, batch * len(cells), len(batches) * len(cells))
            part, part_clean = run.rows(prompts.rows(rows), rows, report)
            clean.append(part_clean)
            values.append(part_clean[:, None].repeat(1, len(plan.cells)))
            values[-1][:, [cell.index for cell in cells]] = part
    return SweepResult(
        values=torch.cat(values).view(len(prompts), *plan.shape),
        clean=torch.cat(clean),
        axes=("layer", "head"),
        coordinates=plan.coordinates,
        component="z",
        metric=metric.name,
    )


def _report(progress: Progress, before: int, total: int, done: int) -> None:
    """Progress over all batches."""
    progress(before + done, total)


@dataclass(frozen=True)
class _Run:
    """Everything but the prompts; `cells` are the senders, ascending by layer."""

    modules: Modules
    source: Prompts
    metric: Metric
    into: Into
    cells: Sequence[Cell]
    through_mlps: bool
    method: str
    budget: int | None
    recordings: Recordings | None

    def rows(
        self, prompts: Prompts, rows: slice, report: Callable[[int], None]
    ) -> tuple[Float[Tensor, "batch sender"], Float[Tensor, " batch"]]:
        """All senders for some of the prompts."""
        modules, length = self.modules, prompts.length
        layers = sorted({cell.layer for cell in self.cells})
        edited = prepare(modules, rows, Replace(self.source), "z", layers, self.recordings)
        start = self._start(prompts, rows)
        patched = [position for position in self.cells[0].positions if position >= start]
        first = min(start, length - 1)
        frozen = run_frozen(modules, prompts, first, edited, self.through_mlps, patched, self.recordings)
        last = frozen.shared.last
        budget = default_budget(modules, prompts) if self.budget is None else self.budget
        clean = evaluate(self.metric, modules, last[:, None], last, rows, budget=budget)
        if start == length:
            report(len(self.cells))
            return clean.repeat(1, len(self.cells)), clean[:, 0]
        parts: list[Tensor] = []
        for together in in_chunks(modules, self.cells, len(prompts), len(patched), length, budget):
            reached = self._reached(frozen, together) if self.method == "branches" else {}
            for some in in_chunks(modules, range(len(together)), len(prompts), length - start, length, budget):
                cells = [together[sender] for sender in some]
                if self.method == "oracle":
                    hidden = self._hooked(prompts, cells, edited)
                else:
                    hidden = self._branches(frozen, reached, cells, some[0])
                parts.append(evaluate(self.metric, modules, hidden, last, rows, budget=budget))
                report(sum(part.shape[1] for part in parts))
        return torch.cat(parts, dim=1), clean[:, 0]

    def _start(self, prompts: Prompts, rows: slice) -> int:
        """The first patched position that can change a receiver; the length where there is none."""
        if self.method == "oracle":
            return 0
        first = first_difference(prompts, rows, Replace(self.source))
        last_queries = self.into.projection == "q" and self.into.layers == [len(self.modules) - 1]
        if self.into.projection is None or last_queries:
            first = max(first, prompts.length - 1)  # no other position reaches the last token's logits
        return min((position for position in self.cells[0].positions if position >= first), default=prompts.length)

    def _reached(
        self, frozen: Frozen, cells: Sequence[Cell]
    ) -> dict[int, Float[Tensor, "batch sender patched *of_receivers"]]:
        """The final stream, or receivers' q, k or v by layer, of the senders before."""
        streams = frozen.streams(cells, self.into.layers)
        if self.into.projection is None:
            return dict(streams)
        return {
            layer: frozen.projected(layer, self.into.projection, stream)[..., self.into.heads[layer], :]
            for layer, stream in streams.items()
        }

    def _branches(
        self, frozen: Frozen, reached: Mapping[int, Tensor], cells: Sequence[Cell], first: int
    ) -> Float[Tensor, "batch sender d_model"]:
        """The final stream of some senders, which are those from `first` on in what is reached."""
        mine = {layer: new[:, first : first + len(cells)] for layer, new in reached.items() if new.shape[1] > first}
        if self.into.projection is None:
            last: Tensor = self.modules.final_norm(mine[len(self.modules)][:, :, -1])
            return last
        into, heads = self.into.projection, self.into.heads
        edits: dict[tuple[str, int], BranchEdit] = {
            (into, layer): frozen.read_by(into, layer, heads[layer], new) for layer, new in mine.items()
        }
        entering = [min(layer for layer in mine if layer > cell.layer) for cell in cells]
        return run_branches(frozen.shared, frozen.shared.start, entering, edits)

    def _hooked(self, prompts: Prompts, cells: Sequence[Cell], edited: Edited) -> Float[Tensor, "batch sender d_model"]:
        """The three steps, one sender after another, by ordinary passes with hooks."""
        modules, projection = self.modules, self.into.projection
        hold = ["z"] if self.through_mlps or modules.architecture.mlp_out is None else ["z", "mlp_out"]
        clean = {name: captured(modules, prompts, name, range(len(modules))) for name in hold}
        held = {(name, layer): _always(x) for name in hold for layer, x in clean[name].items()}
        hidden = []
        for cell in cells:
            sender = _always(edited.of_cell(cell, "z")(clean["z"][cell.layer]))
            hooks: dict[tuple[str, int], Callback] = {**held, ("z", cell.layer): sender}
            if projection is not None:
                seen: dict[tuple[str, int], Tensor] = {}
                for layer in self.into.layers:
                    hooks[projection, layer] = partial(_keep, seen, (projection, layer))
                final_hidden(modules, prompts, hooks)
                hooks = {site: _patched(x, self.into.heads[site[1]]) for site, x in seen.items()}
            hidden.append(final_hidden(modules, prompts, hooks)[:, -1])
        return torch.stack(hidden, dim=1)


def _patched(new: Float[Tensor, "*rows head d_head"], heads: list[int]) -> BranchEdit:
    """Puts some heads of `new` into an activation [..., head, d_head]."""

    def edit(x: Tensor) -> Tensor:
        x = x.clone()
        x[..., heads, :] = new[..., heads, :]
        return x

    return edit


def _always(new: Tensor | None) -> Callback:
    return lambda x: new


def _keep(seen: dict[tuple[str, int], Tensor], site: tuple[str, int], x: Tensor) -> None:
    seen[site] = x
