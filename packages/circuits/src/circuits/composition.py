"""Composition scores: how much of what one head writes is read by the query, key or value of a later head.

    score = ||W_OV1 M||_F / (||W_OV1||_F ||M||_F),    W_OV = W_V W_O,  W_QK = W_Q W_K^T
    Q-composition: M = W_QK2        K-composition: M = W_QK2^T        V-composition: M = W_OV2

(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Three Kinds of Composition"; vectors stand on
the left here.) No d_model x d_model matrix is formed: with W_V1 = Q R an orthonormal Q changes no norm, so
||W_V1 W_O1 W_Q2 W_K2^T|| = ||(R_V1 W_O1) (W_Q2 R_K2^T)||, one small matrix product for all pairs of two layers. That is
exact. The scores are of the norm-folded weights (`circuits.weights`), and of the weights alone: they say nothing of
how the norm's divisor or the attention pattern scale a path on real tokens. In rotary models queries and keys turn with
the distance between them, and W_QK here is that of distance zero: ||W_OV1 W_Q R W_K^T|| changes with the rotation R.
Compare with `composition_baseline`: random matrices of the same shapes do not score 0 but about 1 / sqrt(d_model).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.notebook import table
from circuits.weights import Weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class CompositionScores:
    """Scores between 0 and 1, [earlier layer, earlier head, later layer, later head]; NaN unless earlier < later."""

    q: Float[Tensor, "layer head layer head"]
    k: Float[Tensor, "layer head layer head"]
    v: Float[Tensor, "layer head layer head"]

    def plot(self, kind: Literal["q", "k", "v"], title: str = "") -> Figure:
        """One kind of all pairs as a matplotlib heat map: rows are earlier heads, columns later ones.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: a model of one layer, which has no pairs.
        """
        from circuits.figures import heat_map

        scores: Tensor = getattr(self, kind)
        layers, heads = scores.shape[:2]
        if layers == 1:
            raise ValueError("composition scores of one layer: expected two or more, since heads of one do not compose")
        names = [f"{layer}.{head}" for layer in range(layers) for head in range(heads)]
        return heat_map(
            scores.reshape(layers * heads, -1)[:-heads, heads:],
            names[:-heads],
            names[heads:],
            title=title or f"{kind.upper()}-composition",
            axes=("Earlier head", "Later head"),
            label="Composition score",
        )

    def __repr__(self) -> str:
        pairs = "; ".join(f"{kind.upper()} {_largest(getattr(self, kind), 1)[0]}" for kind in ("q", "k", "v"))
        return f"<CompositionScores of {self.q.shape[0]} layers x {self.q.shape[1]} heads; largest {pairs}>"

    def _repr_html_(self) -> str:
        columns = [_largest(getattr(self, kind), 8) for kind in ("q", "k", "v")]
        rows = [[str(place), *pairs] for place, pairs in enumerate(zip(*columns, strict=True), start=1)]
        caption = "Composition scores, 0 to 1: the largest of all pairs, earlier head > later head"
        note = "Random matrices do not score 0: compare with composition_baseline."
        return table(caption, ["rank", "Q-composition", "K-composition", "V-composition"], rows, note=note)


def _largest(scores: Float[Tensor, "layer head layer head"], n: int) -> list[str]:
    """The `n` largest, as text; those of no pair are NaN and come last."""
    known = scores.nan_to_num(-1.0).flatten()
    found = []
    for place in known.argsort(descending=True)[:n]:
        earlier, head, later, other = (int(index) for index in torch.unravel_index(place, scores.shape))
        found.append(f"{earlier}.{head} > {later}.{other}: {float(known[place]):.3f}" if known[place] >= 0 else "none")
    return found or ["none"]


class CompositionBaseline(NamedTuple):
    """Composition scores of random matrices: their mean and standard deviation."""

    mean: float
    std: float


def composition_scores(weights: Weights) -> CompositionScores:
    """||W_OV1 M|| / (||W_OV1|| ||M||) of all pairs of heads, for queries, keys and values; on the weights' device.

    Holds four copies of one of the W_* and products of (heads x d_head)^2 numbers. A head whose W_OV or W_QK is zero
    has NaN. In a rotary model `q` and `k` are those of distance zero. Elhage et al. 2021, "Three Kinds of Composition".
    """
    W_Q, W_K, W_V, W_O = weights.W_Q, weights.W_K, weights.W_V, weights.W_O
    written = _left_shrunk(W_V, W_O)
    return CompositionScores(
        q=_by_layer(written, _right_shrunk(W_Q, W_K.mT)),
        k=_by_layer(written, _right_shrunk(W_K, W_Q.mT)),
        v=_by_layer(written, _right_shrunk(W_V, W_O)),
    )


def random_composition_scores(d_model: int, d_head: int, n: int, *, seed: int) -> Float[Tensor, " n"]:
    """Scores of `n` pairs of heads with independent standard normal weights of these shapes; float32, on the CPU.

    Their root mean square is about 1 / sqrt(d_model): a random direction keeps that share of its norm.

    Raises:
        ValueError: a number is below 1.
    """
    if min(d_model, d_head, n) < 1:
        raise ValueError(f"d_model={d_model}, d_head={d_head}, n={n}: expected at least 1 of each")
    generator = torch.Generator().manual_seed(seed)

    def drawn() -> tuple[Float[Tensor, "1 d_model d_head"], Float[Tensor, "1 d_head d_model"]]:
        A = torch.randn(1, d_model, d_head, generator=generator)
        return A, torch.randn(1, d_head, d_model, generator=generator)

    return torch.cat([_scores(_left_shrunk(*drawn()), _right_shrunk(*drawn()))[0] for _ in range(n)])


def composition_baseline(weights: Weights, *, n: int = 200, seed: int) -> CompositionBaseline:
    """Mean and standard deviation of `n` `random_composition_scores` at the shapes of `weights`.

    Raises:
        ValueError: n is below 2: there is no standard deviation.
    """
    if n < 2:
        raise ValueError(f"n={n}: expected at least 2 random pairs, so that they have a standard deviation")
    scores = random_composition_scores(weights.W_E.shape[1], weights.d_head, n, seed=seed)
    return CompositionBaseline(mean=float(scores.mean()), std=float(scores.std()))


def _left_shrunk(
    A: Float[Tensor, "*batch left inner"], B: Float[Tensor, "*batch inner right"]
) -> Float[Tensor, "*batch shrunk right"]:
    """R_A B, with A = Q R_A: ||R_A B M|| = ||A B M|| for every M."""
    R: Tensor = torch.linalg.qr(A, mode="r").R
    return R @ B


def _right_shrunk(
    A: Float[Tensor, "*batch left inner"], B: Float[Tensor, "*batch inner right"]
) -> Float[Tensor, "*batch left shrunk"]:
    """A R^T, with B^T = Q R: ||M A R^T|| = ||M A B|| for every M."""
    R: Tensor = torch.linalg.qr(B.mT, mode="r").R
    return A @ R.mT


def _by_layer(
    written: Float[Tensor, "layer head shrunk d_model"], read: Float[Tensor, "layer head d_model shrunk"]
) -> Float[Tensor, "layer head layer head"]:
    n_layers, n_heads = written.shape[:2]
    scores = written.new_full((n_layers, n_heads, n_layers, n_heads), torch.nan)
    for later in range(n_layers):
        for earlier in range(later):
            scores[earlier, :, later] = _scores(written[earlier], read[later])
    return scores


def _scores(
    written: Float[Tensor, "earlier shrunk d_model"], read: Float[Tensor, "later d_model shrunk"]
) -> Float[Tensor, "earlier later"]:
    """||w r|| / (||w|| ||r||) of every pair, as blocks of one matrix product."""
    (n_earlier, shrunk, _), n_later = written.shape, len(read)
    products = (written.flatten(0, 1) @ read.transpose(0, 1).flatten(1, 2)).view(n_earlier, shrunk, n_later, shrunk)
    sizes: Tensor = torch.linalg.vector_norm(written, dim=(1, 2))[:, None] * torch.linalg.vector_norm(read, dim=(1, 2))
    composed: Tensor = torch.linalg.vector_norm(products, dim=(1, 3))
    return composed / sizes
