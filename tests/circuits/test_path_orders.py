"""Losses by the number of heads that paths pass, against every path written out."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from circuits.losses import next_token_log_probs
from circuits.path_orders import losses_by_order, losses_by_terms

from .conftest import Case, Reference, native_case

D_HEAD, N_HEADS = 4, 3
ALL = "direct + all heads + virtual heads"


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


class Paths:
    """Every path of a native attention-only model, one by one in float64, with the patterns of the independent run."""

    @torch.no_grad()
    def __init__(self, case: Case, tokens: Tensor) -> None:
        self.model, self.tokens = case.bridge, tokens
        self.n_layers = len(case.output_weights)
        self.run: Reference = case.run(tokens, None)
        self.W_O = [weight.double().view(N_HEADS, D_HEAD, -1) for weight in case.output_weights]
        embed = (self.model.W_E[tokens] + self.model.W_pos[: tokens.shape[1]]).double()
        stream, streams = embed, [embed]
        for layer in range(self.n_layers):
            written = torch.einsum("bphd,hdm->bpm", self.run.z[layer].double(), self.W_O[layer])
            stream = stream + written + case.output_biases[layer].double()
            streams.append(stream)
        self.scales = [(centred(x).square().mean(-1, keepdim=True) + 1e-5).sqrt() for x in streams]
        self.sources: list[tuple[int, Tensor]] = [(0, embed)]  # (first layer that can read it, vector)
        for layer in range(self.n_layers):
            beta = self.model.blocks[layer].ln1.bias.double()
            values = torch.einsum("m,hmd->hd", beta, self.model.W_V[layer].double()) + self.model.b_V[layer].double()
            constant = torch.einsum("hd,hdm->m", values, self.W_O[layer]) + case.output_biases[layer].double()
            self.sources.append((layer + 1, constant.expand_as(embed)))

    def through(self, x: Tensor, layer: int, head: int) -> Tensor:
        normed = centred(x) / self.scales[layer] * self.model.blocks[layer].ln1.weight.double()
        moved: Tensor = self.run.patterns[layer, :, head].double() @ (normed @ self.model.W_V[layer, head].double())
        return moved @ self.W_O[layer][head]

    def ends(self, n: int, only: int | None = None) -> Tensor:
        """Sum of all paths through n heads of increasing layers (with `only`, all of them in that layer)."""
        total = torch.zeros_like(self.sources[0][1])
        for first, x in self.sources:
            for layers in itertools.combinations(range(first, self.n_layers), n):
                if only is not None and any(layer != only for layer in layers):
                    continue
                for heads in itertools.product(range(N_HEADS), repeat=n):
                    end = x
                    for layer, head in zip(layers, heads, strict=True):
                        end = self.through(end, layer, head)
                    total = total + end
        return total

    def loss(self, stream: Tensor) -> Tensor:
        normed = centred(stream) / self.scales[-1] * self.model.ln_final.weight.double()
        normed = normed + self.model.ln_final.bias.double()
        table: Tensor = (normed @ self.model.W_U.double() + self.model.b_U.double()).log_softmax(-1)
        return -table[:, :-1].gather(-1, self.tokens[:, 1:, None]).squeeze(-1).mean(1).float()


def centred(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)


@pytest.mark.parametrize("n_layers", [2, 3])
@torch.no_grad()
def test_orders_are_the_sums_of_all_paths_of_that_length(tokens: Tensor, n_layers: int) -> None:
    case = native_case(n_layers)
    paths = Paths(case, tokens)
    ends = torch.stack([paths.ends(n) for n in range(n_layers + 1)])
    expected = torch.stack([paths.loss(kept) for kept in ends.cumsum(0)], dim=1)
    losses = losses_by_order(case.bridge, tokens, batch_size=2)
    close(losses, expected)
    close(losses[:, -1], -case.run(tokens, None).log_probs.mean(1))
    assert (losses.diff(dim=1).abs() > 1e-3).all()


@torch.no_grad()
def test_terms_are_paths_of_those_heads(native: Case, tokens: Tensor) -> None:
    paths = Paths(native, tokens)
    direct = paths.ends(0)
    expected = {
        "direct": paths.loss(direct),
        **{f"direct + layer {at} heads": paths.loss(direct + paths.ends(1, only=at)) for at in range(3)},
        "direct + all heads": paths.loss(direct + paths.ends(1)),
        ALL: -native.run(tokens, None).log_probs.mean(1),
    }
    losses = losses_by_terms(native.bridge, tokens, batch_size=2)
    assert list(losses) == list(expected)
    for label, loss in expected.items():
        close(losses[label], loss)


def test_terms_agree_with_orders(tokens: Tensor) -> None:
    model = native_case(n_layers=2).bridge
    orders, terms = losses_by_order(model, tokens), losses_by_terms(model, tokens)
    close(orders, torch.stack([terms[name] for name in ("direct", "direct + all heads", ALL)], dim=1))


@pytest.mark.parametrize("name", ["attn-only-1l", "attn-only-2l", "attn-only-3l"])
def test_shipped_models(shipped: Any, name: str) -> None:
    model, tokens = shipped(name), torch.arange(60).reshape(2, 30)
    losses = losses_by_order(model, tokens)
    assert losses.shape == (2, int(name[-2]) + 1)
    close(losses[:, -1], -next_token_log_probs(model, tokens).mean(1))
    terms = losses_by_terms(model, tokens)
    close(terms[ALL], losses[:, -1])
    if name == "attn-only-1l":
        close(terms["direct + layer 0 heads"], terms[ALL])


def test_models_with_mlps_are_refused(case: Case, tokens: Tensor) -> None:
    if case.bridge.cfg.attn_only:
        return
    for losses in (losses_by_order, losses_by_terms):
        with pytest.raises(
            ValueError, match=r"layer 0 has an MLP: the algorithm is for attention-only models, expected"
        ):
            losses(case.bridge, tokens)


def test_bad_tokens_are_refused(native: Case, tokens: Tensor) -> None:
    for losses in (losses_by_order, losses_by_terms):
        with pytest.raises(ValueError, match="tokens have 1 positions: expected 2 to 24"):
            losses(native.bridge, tokens[:, :1])
