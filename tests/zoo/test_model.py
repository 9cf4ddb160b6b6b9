"""The model against TransformerLens, and its parts against formulas written out."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from zoo.model import AttentionOnly, AttentionOnlyConfig, next_token_losses, sinusoidal_positions


@pytest.mark.parametrize("n_layers", [1, 3])
def test_logits_equal_those_of_a_transformer_lens_bridge(
    shape: Callable[[int], AttentionOnlyConfig], n_layers: int
) -> None:
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    config = shape(n_layers)
    model = AttentionOnly(config, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    bridge = TransformerBridge.boot_native(
        TransformerBridgeConfig(
            n_layers=config.n_layers,
            d_model=config.d_model,
            d_head=config.d_head,
            n_heads=config.n_heads,
            d_vocab=config.d_vocab,
            n_ctx=config.n_ctx,
            attn_only=True,
            act_fn="relu",
            normalization_type="LN",
            init_weights=True,
        )
    )
    bridge.load_state_dict(model.state_dict(), strict=True)
    for length in (config.n_ctx, 7):
        tokens = torch.randint(0, config.d_vocab, (4, length), generator=generator)
        with torch.no_grad():
            torch.testing.assert_close(model(tokens), bridge(tokens), rtol=0, atol=1e-4)


def test_attention_is_causal(model: AttentionOnly) -> None:
    tokens = torch.randint(0, 300, (2, 40), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, 25] = (changed[:, 25] + 1) % 300
    with torch.no_grad():
        difference = (model(tokens) - model(changed)).abs().amax(dim=(0, 2))
    assert difference[:25].max() < 1e-5
    assert difference[25:].min() > 1e-3


def test_seed_decides_the_initial_weights_and_nothing_else_does(shape: Callable[[int], AttentionOnlyConfig]) -> None:
    torch.manual_seed(1)
    first = AttentionOnly(shape(2), seed=5).state_dict()
    torch.manual_seed(2)
    again, other = AttentionOnly(shape(2), seed=5).state_dict(), AttentionOnly(shape(2), seed=6).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embed.weight"], other["embed.weight"])


def test_initial_weights_have_the_stated_deviations() -> None:
    config = AttentionOnlyConfig(n_layers=2, d_model=192, n_heads=12, d_head=16, d_vocab=1024, n_ctx=128)
    state = AttentionOnly(config).state_dict()
    deviation = 0.8 / math.sqrt(192)
    assert state["embed.weight"].std().item() == pytest.approx(deviation, rel=0.01)
    assert state["blocks.0.attn.q.weight"].std().item() == pytest.approx(deviation, rel=0.02)
    assert state["blocks.1.attn.o.weight"].std().item() == pytest.approx(deviation / 2, rel=0.02)
    assert state["pos_embed.weight"].square().mean().sqrt().item() == pytest.approx(deviation, rel=1e-4)
    assert state["blocks.0.ln1.weight"].eq(1).all()
    assert all(tensor.eq(0).all() for name, tensor in state.items() if name.endswith("bias"))


def test_sinusoidal_positions_are_the_formula() -> None:
    table = sinusoidal_positions(5, 6, longest=1000.0)
    for position in range(5):
        for j in range(3):
            angle = position / 1000.0 ** (2 * j / 6)
            assert table[position, j].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[position, 3 + j].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_losses_are_log_probabilities_of_the_next_token() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, tokens = torch.randn(2, 5, 7, generator=generator), torch.randint(0, 7, (2, 5), generator=generator)
    losses = next_token_losses(logits, tokens)
    assert losses.shape == (2, 4)
    for row in range(2):
        for position in range(4):
            scores = logits[row, position].tolist()
            right = scores[int(tokens[row, position + 1])]
            expected = math.log(sum(math.exp(score) for score in scores)) - right
            assert losses[row, position].item() == pytest.approx(expected, rel=1e-5)
