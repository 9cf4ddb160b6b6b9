"""Autoencoders: a code of few numbers from which data is reconstructed, without a closed form.

    x ~ mean + scale * decoder(encoder((x - mean) / scale))
    linear        encoder(u) = u W + b,    decoder(c) = c W' + b'
    nonlinear     one hidden layer of GELUs between the two linear maps, in the encoder and in the decoder

    error = mean over samples of ||x - reconstruction||^2,    in squared units of the data

A linear autoencoder's reconstructions lie in an affine subspace of `code_size` dimensions, so on the data of the fit
its error is never below that of `circuits.subspaces.fit_pca`, and at the optimum it spans the same subspace (Baldi and
Hornik 1989, "Neural networks and principal component analysis"); its code is one of many bases of it. A nonlinear
autoencoder can be better where the data is curved (Kramer 1991, "Nonlinear principal component analysis"). Nothing here
is exact: Adam minimises the error from a random start, and may end in a local minimum; compare several seeds. Errors
that are compared between methods should come from rows that no method was fitted to. `scale` is one number for all
dimensions, so that the error minimised is the error reported. Everything is float32, to which inputs are cast.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Autoencoder(nn.Module):
    """A fitted autoencoder; see `fit_autoencoder`. Its parameters are frozen."""

    mean: Tensor  # [d]
    scale: Tensor  # []

    def __init__(self, encoder: nn.Module, decoder: nn.Module, mean: Float[Tensor, " d"], scale: Float[Tensor, ""]):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def encode(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch code"]:
        """encoder((x - mean) / scale)."""
        return cast(Tensor, self.encoder((x.float() - self.mean) / self.scale))

    def decode(self, code: Float[Tensor, "*batch code"]) -> Float[Tensor, "*batch d"]:
        """mean + scale * decoder(code)."""
        return self.mean + self.scale * cast(Tensor, self.decoder(code.float()))

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """decode(encode(x)), the reconstruction of x."""
        return self.decode(self.encode(x))


def fit_autoencoder(
    x: Float[Tensor, "n d"],
    code_size: int,
    *,
    hidden: int | None,
    steps: int,
    learning_rate: float,
    seed: int,
    batch_size: int | None = None,
) -> Autoencoder:
    """An autoencoder of the rows of `x`, fitted by Adam whose rate falls to zero along a cosine; on the device of `x`.

    The seed fixes the start and the batches; the global random state is neither read nor changed.

    Args:
        code_size: number of dimensions of the code, at most d.
        hidden: width of the hidden layers, or None for a linear autoencoder.
        learning_rate: of the first step.
        batch_size: rows drawn with replacement for a step, or None for all rows at every step.

    Raises:
        ValueError: a number is out of its range; `x` is constant or not finite.
    """
    n, d = x.shape
    _check_sizes(n, d, code_size, hidden, steps, learning_rate, batch_size)
    x = x.detach().float()
    mean = x.mean(dim=0)
    scale = (x - mean).pow(2).mean().sqrt()
    if not scale > 0 or not scale.isfinite():
        raise ValueError(f"x has root mean square {float(scale)} about its mean: expected a finite number above 0")
    generator = torch.Generator().manual_seed(seed)
    autoencoder = Autoencoder(
        _layers(d, hidden, code_size, generator), _layers(code_size, hidden, d, generator), mean, scale
    ).to(x.device)
    optimizer = torch.optim.Adam(autoencoder.parameters(), learning_rate)
    with torch.enable_grad():
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
            drawn = slice(None) if batch_size is None else torch.randint(n, (batch_size,), generator=generator)
            batch = x[drawn if isinstance(drawn, slice) else drawn.to(x.device)]
            loss = reconstruction_error(autoencoder(batch), batch) / (d * scale**2)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    autoencoder.eval().requires_grad_(False)
    return autoencoder


def reconstruction_error(reconstruction: Float[Tensor, "n d"], x: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """mean_n sum_d (reconstruction - x)^2, in squared units of the data; comparable with the variances of `PCA`.

    Raises:
        ValueError: the shapes differ, which would otherwise broadcast.
    """
    if reconstruction.shape != x.shape:
        raise ValueError(
            f"reconstruction has shape {tuple(reconstruction.shape)}: expected {tuple(x.shape)}, that of x; give both "
            f"as [n, d]"
        )
    error: Tensor = (reconstruction.float() - x.float()).pow(2).sum(dim=1).mean()
    return error


def curved_data(n: int, d: int, noise: float, seed: int) -> Float[Tensor, "n d"]:
    """`n` noisy points of one turn of a helix in d dimensions; float32, on the CPU, in arbitrary order.

        x = (cos t, sin t, t / pi) E + noise * e,    t uniform in [-pi, pi],    e standard normal

    E is 3 random orthonormal rows, so the data has 1 intrinsic dimension but needs 3 principal components. With a code
    of 1 number, the best error is about noise^2 (d - 1). Split the rows of one call into those to fit and those to
    test: another seed turns the helix differently.

    Raises:
        ValueError: n is below 1, d below 3 or `noise` negative.
    """
    if n < 1 or d < 3 or not noise >= 0:
        raise ValueError(f"n={n}, d={d}, noise={noise}: expected at least 1 point, 3 dimensions and no negative noise")
    generator = torch.Generator().manual_seed(seed)
    embedding: Tensor = torch.linalg.qr(torch.randn(d, 3, generator=generator)).Q.mT
    t = (2 * torch.rand(n, generator=generator) - 1) * math.pi
    helix = torch.stack([t.cos(), t.sin(), t / math.pi], dim=1)
    points: Tensor = helix @ embedding + noise * torch.randn(n, d, generator=generator)
    return points


def _layers(d_in: int, hidden: int | None, d_out: int, generator: torch.Generator) -> nn.Sequential:
    if hidden is None:
        return nn.Sequential(_linear(d_in, d_out, generator))
    return nn.Sequential(_linear(d_in, hidden, generator), nn.GELU(), _linear(hidden, d_out, generator))


def _linear(d_in: int, d_out: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, d_in, d_out)  # type: ignore[no-untyped-call]
    nn.init.normal_(layer.weight, std=d_in**-0.5, generator=generator)
    nn.init.zeros_(layer.bias)
    return cast(nn.Linear, layer)


def _check_sizes(
    n: int, d: int, code_size: int, hidden: int | None, steps: int, learning_rate: float, batch_size: int | None
) -> None:
    if not 1 <= code_size <= d:
        raise ValueError(f"code_size is {code_size}: expected 1 to {d}, the dimensions of x")
    if hidden is not None and hidden < 1:
        raise ValueError(f"hidden is {hidden}: expected at least 1 unit, or None for a linear autoencoder")
    if steps < 1 or not learning_rate > 0:
        raise ValueError(f"steps={steps}, learning_rate={learning_rate}: expected at least 1 step, a rate above 0")
    if batch_size is not None and not 1 <= batch_size <= n:
        raise ValueError(f"batch_size is {batch_size}: expected 1 to {n}, the rows of x, or None for all of them")
