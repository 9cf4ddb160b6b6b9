"""Function vectors: what the heads that carry a task write into the stream, on average, as one vector.

    mean z_lh = mean over clean prompts of z_lh at the last token
    v = sum over heads (l, h) of  W_O^{lh} mean z_lh                   (Todd et al. 2024, section 2.3)

W_O^{lh} are the rows of layer l's output projection that belong to head h, applied by the model's own module with all
other heads at 0 and its bias taken off: the bias is no head's. (The paper's code, which adds up what the module gives,
counts the bias once a head; in GPT-J and Llama there is none.)

In Gemma 2 and 3 a norm stands between the projection and the stream, so that no head has a share of its own there. A
head's share is then what it gives with the divisor of the whole layer's mean output:

    share_lh = g_l * (W_O^{lh} mean z_lh) / rms(sum over all heads of W_O mean z + bias)

which adds up over all heads to what the layer writes for its mean z, less the bias. That is a choice of ours, the paper
has no such model.

Vectors of tasks add up like words do (section 3.3): with A-D read as "operation A, then D",

    v_BD = v_AD + v_BC - v_AC

Heads, their number and the layer are chosen on other prompts than those that are scored: see `selection`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from function_vectors.encoding import Encoded
from function_vectors.runners import Head, Runner, batches
from interventions.notebook import table

_TINY = 1e-30


@dataclass(frozen=True)
class FunctionVector:
    """A vector in the residual stream: of which task, of which heads, and for which layer where one was chosen.

    Vectors may be added, subtracted, negated and scaled: the result names what was done in `task`, has the heads of
    both, and the layer if they agree on it.
    """

    vector: Float[Tensor, " d_model"]
    task: str
    heads: tuple[Head, ...] = ()
    layer: int | None = None

    @property
    def k(self) -> int:
        return len(self.heads)

    def at(self, layer: int) -> FunctionVector:
        """The same vector, for that layer."""
        return replace(self, layer=layer)

    def __add__(self, other: FunctionVector) -> FunctionVector:
        return self._with(other, "+", torch.add)

    def __sub__(self, other: FunctionVector) -> FunctionVector:
        return self._with(other, "-", torch.sub)

    def __neg__(self) -> FunctionVector:
        return replace(self, vector=-self.vector, task=f"-({self.task})")

    def __mul__(self, factor: float) -> FunctionVector:
        return replace(self, vector=factor * self.vector, task=f"{factor:g} ({self.task})")

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return f"<FunctionVector: {'; '.join(f'{name} {value}' for name, value in _facts(self).items())}>"

    def _repr_html_(self) -> str:
        return table("Function vector", ["", ""], [list(fact) for fact in _facts(self).items()])

    def _with(self, other: FunctionVector, sign: str, combined: Callable[[Tensor, Tensor], Tensor]) -> FunctionVector:
        if self.vector.shape != other.vector.shape:
            raise ValueError(
                f"vectors of {self.task} and {other.task} have {len(self.vector)} and {len(other.vector)} numbers: "
                f"expected vectors of one model"
            )
        return FunctionVector(
            vector=combined(self.vector, other.vector),
            task=f"{self.task} {sign} {other.task}",
            heads=tuple(dict.fromkeys((*self.heads, *other.heads))),
            layer=self.layer if self.layer == other.layer else None,
        )


def _facts(vector: FunctionVector) -> dict[str, str]:
    """What a vector is of, in words."""
    return {
        "task": vector.task,
        "heads": ", ".join(f"{layer}.{head}" for layer, head in vector.heads) or "not of heads",
        "layer": "not chosen" if vector.layer is None else str(vector.layer),
        "numbers": str(len(vector.vector)),
        "norm": f"{float(vector.vector.norm()):.3g}",
    }


def mean_z(runner: Runner, clean: Encoded) -> Float[Tensor, "layer head d_head"]:
    """The mean over prompts of every head's z at the last token; float32.

    Prompts pass in batches of `runner.batch_size` and are summed in double precision: memory does not grow with their
    number.
    """
    total: Tensor | None = None
    for rows in batches(len(clean.prompts), runner.batch_size):
        part = runner.last_z(clean.prompts.rows(rows)).double().sum(dim=0)
        total = part if total is None else total + part
    assert total is not None
    return (total / len(clean.prompts)).float()


def mean_z_of_right(
    runner: Runner, clean: Encoded
) -> tuple[Bool[Tensor, " prompt"], Float[Tensor, "layer head d_head"]]:
    """Which prompts are answered right, and `mean_z` over these, or over all where none is: in one pass over them."""
    right, of_right, of_all = list[Tensor](), list[Tensor](), list[Tensor]()
    for rows in batches(len(clean.prompts), runner.batch_size):
        best, z = runner.predictions_and_z(clean.prompts.rows(rows))
        right.append(best == clean.first[rows].cpu())
        of_right.append(z[right[-1]].double().sum(dim=0))
        of_all.append(z.double().sum(dim=0))
    is_right = torch.cat(right)
    sums, n = (of_right, int(is_right.sum())) if bool(is_right.any()) else (of_all, len(is_right))
    return is_right, (torch.stack(sums).sum(dim=0) / n).float()


def head_shares(runner: Runner, z: Float[Tensor, "layer head d_head"]) -> Float[Tensor, "layer head d_model"]:
    """What each head alone writes into the stream for its z; see above for norms behind attention.

    Raises:
        ValueError: z is of another model.
    """
    layers, heads, d_head = z.shape
    if (layers, heads) != (runner.n_layers, runner.n_heads):
        raise ValueError(
            f"z has shape {tuple(z.shape)}: expected [{runner.n_layers}, {runner.n_heads}, d_head], as the model has"
        )
    alone = torch.eye(heads)[:, :, None] * z[:, None]  # [layer, row, head, d_head]: row h has head h alone
    together, nothing = z[:, None], torch.zeros(layers, 1, heads, d_head)
    outputs = runner.projected(torch.cat([alone, together, nothing], dim=1).flatten(2))
    shares: Tensor = outputs[:, :heads] - outputs[:, -1:]
    whole = outputs[:, heads : heads + 1]
    if not runner.norm_behind_attention:
        return shares
    # A share stretched to the length of the whole has the whole's divisor, the norm's epsilon included.
    lengths = shares.norm(dim=-1, keepdim=True).clamp(min=_TINY)
    stretch = (whole.norm(dim=-1, keepdim=True) / lengths).clamp(min=_TINY)
    behind: Tensor = runner.normed(shares * stretch) / stretch
    return behind


def function_vector(
    runner: Runner, z: Float[Tensor, "layer head d_head"], heads: Sequence[Head], *, task: str
) -> FunctionVector:
    """The sum of what some heads write on average.

    Args:
        z: `mean_z` over clean prompts of the task.
        heads: such as `effects.top_heads` of the average indirect effect.

    Raises:
        ValueError: no head, one twice, or one that does not exist.
    """
    return vectors_by_k(runner, z, heads, [len(heads)], task=task)[0]


def vectors_by_k(
    runner: Runner, z: Float[Tensor, "layer head d_head"], heads: Sequence[Head], ks: Sequence[int], *, task: str
) -> list[FunctionVector]:
    """The vectors of the first k of `heads`, for each k.

    Raises:
        ValueError: no head, one twice, one that does not exist, or a k that is below 1 or above their number.
    """
    if not heads or len(set(heads)) != len(heads):
        raise ValueError(f"heads {list(heads)}: expected at least one, each once")
    for layer, head in heads:
        if not (0 <= layer < runner.n_layers and 0 <= head < runner.n_heads):
            raise ValueError(
                f"head ({layer}, {head}) does not exist: expected (layer, head), layers 0 to {runner.n_layers - 1}, "
                f"heads 0 to {runner.n_heads - 1}"
            )
    if unknown := [k for k in ks if not 1 <= k <= len(heads)]:
        raise ValueError(f"k={unknown[0]}: expected 1 to {len(heads)}, the heads that are given")
    shares = head_shares(runner, z)
    return [
        FunctionVector(torch.stack([shares[head] for head in heads[:k]]).sum(dim=0), task, tuple(heads[:k])) for k in ks
    ]


def composed(a_d: FunctionVector, b_c: FunctionVector, a_c: FunctionVector, *, task: str) -> FunctionVector:
    """v_BD = v_AD + v_BC - v_AC, under the name of the task that it should do.

    Raises:
        ValueError: vectors of different models.
    """
    return replace(a_d + b_c - a_c, task=task)
