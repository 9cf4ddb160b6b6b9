"""Direct logit attribution: how much each component writes to the logit of a token.

    logit[t] = (x_0 + sum_{l,h} z_{l,h} W_O_{l,h} + sum_l MLP_l + sum_l b_O_l) u + b_U[t],    u = W_U[:, t] / s(x_L)

(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits": the logits are a sum over what was written to
the residual stream; "direct logit attribution" after Wang et al. 2022, "Interpretability in the Wild", section 3.) The
identity is exact: the divisor s of the final norm keeps its real value, its gain and its centring are folded into W_U
(`weights.py`). What is approximate is its reading as a cause, since taking a component away would change s and
everything downstream. Only the direct path is counted: what a later head reads of a component counts as that head's.

A head's value is a sum over d_head, z_{l,h} (W_O_{l,h} u): its output [batch, pos, head, d_model] is never formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.bridge import Bridge, chunks, hook_name, record
from circuits.head_outputs import per_head
from circuits.lens import check_targets, stream_hooks
from circuits.notebook import table
from circuits.tokens import check_tokens
from circuits.weights import Weights, read_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class LogitAttribution:
    """Contributions to a logit, or to a difference of two; float32, on the model's device.

    A head's value bias b_V is part of the head (it is in z), an MLP's output bias part of the MLP. `bias` holds what no
    component owns: the output biases b_O of the attention layers, and b_U with the beta of the final norm.
    """

    labels: tuple[str, ...]  # "embed", then by layer "L0H0", "L0H1", ... and, where there is one, "MLP0"
    values: Float[Tensor, "batch target component"]  # target i is predicted at position i
    bias: Float[Tensor, "batch target"]

    @property
    def total(self) -> Float[Tensor, "batch target"]:
        """The model's logit (difference): all components and the biases."""
        return self.values.sum(dim=-1) + self.bias

    def plot(self, n: int = 12, title: str = "Direct logit attribution") -> Figure:
        """The `n` components that write most, by the size of their mean over all targets, as a matplotlib figure.

        Raises:
            ImportError: matplotlib is not installed.
        """
        from circuits.figures import bars

        means, order = _ranked(self, n)
        names = [self.labels[place] for place in order]
        return bars(means[order], names, title=title, label=f"Mean over {self.bias.numel()} targets (logits)")

    def __repr__(self) -> str:
        means, order = _ranked(self, 3)
        parts = "; ".join(f"{self.labels[place]} {float(means[place]):+.3g}" for place in order)
        return f"<LogitAttribution: {len(self.labels)} components, {self.bias.numel()} targets; most: {parts}>"

    def _repr_html_(self) -> str:
        means, order = _ranked(self, 12)
        largest = float(means.abs().max()) or 1.0
        rows = [[self.labels[place], f"{float(means[place]):+.3f}"] for place in order]
        shades = [[float(means[place]) / largest] for place in order]
        left_out = len(self.labels) - len(rows)
        rest = f"The other {left_out} components" if left_out else "Nothing else"
        others = float(means.sum() - means[order].sum())
        note = f"{rest}: {others:+.3f}; biases: {float(self.bias.mean()):+.3f}; total: {float(self.total.mean()):+.3f}."
        caption = f"Contribution to the logit (logits), mean over {self.bias.numel()} targets"
        return table(caption, ["component", "contribution"], rows, shades=shades, note=note)


def _ranked(attribution: LogitAttribution, n: int) -> tuple[Float[Tensor, " component"], list[int]]:
    """Means over targets, and the places of the `n` largest by size."""
    means = attribution.values.flatten(0, 1).mean(dim=0)
    order: list[int] = means.abs().argsort(descending=True)[:n].tolist()
    return means, order


@torch.no_grad()
def logit_attribution(
    model: Bridge,
    tokens: Int[Tensor, "batch pos"],
    *,
    targets: Int[Tensor, "batch pos-1"] | None = None,
    against: Int[Tensor, "batch pos-1"] | None = None,
    weights: Weights | None = None,
    batch_size: int = 8,
) -> LogitAttribution:
    """Contributions of the embedding (token and position as one), every head and every MLP to the logit of a token.

    Costs one forward pass; logits are not computed.

    Args:
        targets: column i is the token whose logit at position i is split; by default the next one, `tokens[:, 1:]`.
        against: if given, what is split is the logit difference target - against.
        weights: of `read_weights(model)`, if they have been read already.

    Raises:
        ValueError: from `check_tokens` (at least 2 positions), `check_targets` and `read_weights`; the components do
            not sum to the stream that the model reads (weights of another model, or a part that has no hook point).

    Source: Elhage et al. 2021; Wang et al. 2022, section 3.
    """
    check_tokens(model, tokens, shortest=2)
    weights = read_weights(model) if weights is None else weights
    targets = tokens[:, 1:] if targets is None else targets
    check_targets("targets", targets, tokens, weights)
    if against is not None:
        check_targets("against", against, tokens, weights)
    mlps = mlp_hooks(model, range(weights.n_layers))
    values, biases = [], []
    for rows in chunks(len(tokens), batch_size):
        direction, constant = _unembedded(weights, targets[rows])
        if against is not None:
            other, other_constant = _unembedded(weights, against[rows])
            direction, constant = direction - other, constant - other_constant
        value, bias = _attribute(model, weights, mlps, tokens[rows], direction)
        values.append(value)
        biases.append(bias + constant)
    labels = ("embed", *writer_labels(range(weights.n_layers), weights.n_heads, mlps))
    return LogitAttribution(labels, torch.cat(values), torch.cat(biases))


def mlp_hooks(model: Bridge, layers: Sequence[int]) -> dict[int, str]:
    """Hook points of the outputs of the MLPs (with their output biases), for those of `layers` that have an MLP."""
    names = {layer: f"blocks.{layer}.hook_mlp_out" for layer in layers}
    return {layer: name for layer, name in names.items() if model.get_hook_point(name) is not None}


def writer_labels(layers: Sequence[int], n_heads: int, mlps: dict[int, str]) -> tuple[str, ...]:
    """ "L0H0", "L0H1", ..., "MLP0", "L1H0", ...: what the blocks write to the stream, in order."""
    labels: list[str] = []
    for layer in layers:
        labels += [f"L{layer}H{head}" for head in range(n_heads)]
        labels += [f"MLP{layer}"] if layer in mlps else []
    return tuple(labels)


def _unembedded(
    weights: Weights, targets: Int[Tensor, "batch target"]
) -> tuple[Float[Tensor, "batch target d_model"], Float[Tensor, "batch target"]]:
    """W_U[:, t] and b_U[t] of every target."""
    targets = targets.to(weights.W_U.device)
    return weights.W_U.T[targets], weights.b_U[targets]


def _attribute(
    model: Bridge,
    weights: Weights,
    mlps: dict[int, str],
    tokens: Int[Tensor, "batch pos"],
    direction: Float[Tensor, "batch pos-1 d_model"],
) -> tuple[Float[Tensor, "batch pos-1 component"], Float[Tensor, "batch pos-1"]]:
    """What every component, and all b_O together, write along `direction`, divided by the scale of the final norm."""
    streams = stream_hooks(weights.n_layers)
    heads = [hook_name(model, layer, "hook_z") for layer in range(weights.n_layers)]
    seen = record(model, tokens, [streams[0], streams[-1], *heads, *mlps.values()])
    final = seen[streams[-1]]
    u = direction / weights.scale(final[:, :-1])

    def written(name: str) -> Float[Tensor, "batch target"]:
        return (seen[name][:, :-1].float() * u).sum(dim=-1)

    columns = [written(streams[0])[..., None]]
    for layer, name in enumerate(heads):
        z = per_head(seen[name], weights.n_heads)[:, :-1].float()
        columns.append((z * torch.einsum("bpm,hdm->bphd", u, weights.W_O[layer])).sum(dim=-1))
        if layer in mlps:
            columns.append(written(mlps[layer])[..., None])
    values, bias = torch.cat(columns, dim=-1), u @ weights.b_O.sum(dim=0)
    expected = written(streams[-1])
    error = float((values.sum(dim=-1) + bias - expected).abs().max())
    tolerance = 1e-3 if final.dtype == torch.float32 else 0.1
    if not error <= tolerance * (1 + float(values.abs().max())):
        raise ValueError(
            f"components sum to a logit that is {error:.1e} off what ln_final reads: expected a stream of embedding, "
            f"heads, MLPs and b_O alone; pass weights=read_weights(model) of this very model"
        )
    return values, bias
