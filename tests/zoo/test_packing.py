"""Packed checkpoints: the error bound of the 8-bit integers, and what it does to logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from zoo.model import AttentionOnly
from zoo.packing import pack, packed_steps, quantise, unpack


def test_every_entry_is_within_half_a_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(50, 200, generator=generator) * torch.logspace(-6, 3, 50)[:, None]
    weight[7] = 0
    integers, scale = quantise(weight)
    largest = weight.abs().amax(dim=1)
    torch.testing.assert_close(scale, (largest / 127).clamp_min(1e-12))
    error = (integers.float() * scale[:, None] - weight).abs()
    assert bool((error <= 0.5 * scale[:, None] * (1 + 1e-4)).all())
    assert error[0].max() > 0.4 * scale[0]  # the bound is reached, so a looser rounding would show
    assert integers.abs().amax(dim=1).tolist() == [0 if row == 7 else 127 for row in range(50)]


def test_an_entry_is_rounded_to_the_nearest_integer_and_not_cut() -> None:
    integers, scale = quantise(torch.tensor([[127.0, 0.6, -0.6, 0.4, -1.7]]))
    assert scale.tolist() == [1.0]
    assert integers.tolist() == [[127, 1, -1, 0, -2]]


def test_steps_and_weights_come_back(tmp_path: Path, model: AttentionOnly) -> None:
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    other = {name: 2 * tensor for name, tensor in state.items()}
    path = tmp_path / "checkpoints.safetensors"
    pack({300: other, 0: state, 12_345: state}, path)
    assert packed_steps(path) == (0, 300, 12_345)
    for step, expected in ((0, state), (300, other)):
        found = unpack(path, step)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            bound = tensor.abs().amax(dim=-1, keepdim=True) * (0.5 / 127 if tensor.ndim == 2 else 2**-11)
            assert found[name].dtype == torch.float32
            assert bool(((found[name] - tensor).abs() <= bound * 1.001).all()), name
    assert [child.name for child in tmp_path.iterdir()] == ["checkpoints.safetensors"]


def test_a_packed_file_is_a_quarter_of_the_size(tmp_path: Path) -> None:
    state = {"a.weight": torch.randn(256, 192), "b.weight": torch.randn(192, 256)}
    path = tmp_path / "checkpoints.safetensors"
    pack({0: state, 1: state}, path)
    assert path.stat().st_size < 0.27 * 2 * 4 * 2 * 256 * 192


def test_packing_moves_probabilities_by_little(tmp_path: Path, model: AttentionOnly) -> None:
    path = tmp_path / "checkpoints.safetensors"
    pack({0: model.state_dict()}, path)
    packed = AttentionOnly(model.config)
    packed.load_state_dict(unpack(path, 0), strict=True)
    tokens = torch.randint(0, 300, (8, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before, after = (network(tokens).log_softmax(dim=-1) for network in (model, packed))
    divergence = (before.exp() * (before - after)).sum(dim=-1)
    assert divergence.mean() < 2e-3  # nats a token
    assert (before - after).square().mean().sqrt() < 0.02 * before.std()
    assert not torch.equal(before, after)


def test_a_step_that_is_not_there_is_named_with_those_that_are(tmp_path: Path, model: AttentionOnly) -> None:
    path = tmp_path / "checkpoints.safetensors"
    pack({0: model.state_dict(), 256: model.state_dict()}, path)
    with pytest.raises(KeyError, match=r"no checkpoint of step 7; there are \(0, 256\)"):
        unpack(path, 7)
