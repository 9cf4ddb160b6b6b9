"""The family of He et al. 2016, section 4.2, against the paper's counts and a forward pass that is written out."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from training.vision import Architecture, ResidualNetwork, gradient_norms, response_deviations
from training.vision.images import LabelledImages
from training.vision.residual import Block


def images(n: int = 4, channels: int = 3, size: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("depth", "millions"), [(20, "0.27"), (32, "0.46"), (44, "0.66"), (56, "0.85"), (110, "1.7")])
@pytest.mark.parametrize("residual", [True, False])
def test_as_many_parameters_as_table_6_says(depth: int, millions: str, residual: bool) -> None:
    network = ResidualNetwork(Architecture(depth, residual), seed=0)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert f"{count / 1e6:.{len(millions) - 2}f}" == millions
    assert len(network.convolutions()) + 1 == depth


def block(network: ResidualNetwork, number: int) -> Block:
    found = network.blocks[number]
    assert isinstance(found, Block)
    return found


def norm(x: Tensor, state: dict[str, Tensor], name: str, training: bool) -> Tensor:
    """Batch normalisation as its formula says, over images and positions."""
    if training:
        mean = x.mean(dim=(0, 2, 3))
        variance = x.var(dim=(0, 2, 3), correction=0)
    else:
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    shape = (1, -1, 1, 1)
    scaled = (x - mean.view(shape)) / torch.sqrt(variance.view(shape) + 1e-5)
    return scaled * state[f"{name}.weight"].view(shape) + state[f"{name}.bias"].view(shape)


def written_out(state: dict[str, Tensor], x: Tensor, *, n: int, residual: bool, training: bool) -> Tensor:
    """The network by hand: convolutions, normalisation, shortcuts with a loop over pixels and channels."""

    def layer(x: Tensor, name: str, stride: int) -> Tensor:
        response = functional.conv2d(x, state[f"{name}.conv.weight"], stride=stride, padding=1)
        return norm(response, state, f"{name}.norm", training)

    x = functional.relu(layer(x, "stem", 1))
    for number in range(3 * n):
        halves = number in (n, 2 * n)
        inner = functional.relu(layer(x, f"blocks.{number}.first", 2 if halves else 1))
        y = layer(inner, f"blocks.{number}.second", 1)
        if residual:
            short = torch.zeros_like(y)
            step = 2 if halves else 1
            for channel in range(x.shape[1]):
                for row in range(y.shape[2]):
                    for column in range(y.shape[3]):
                        short[:, channel, row, column] = x[:, channel, step * row, step * column]
            y = y + short
        x = functional.relu(y)
    return x.mean(dim=3).mean(dim=2) @ state["head.weight"].T + state["head.bias"]


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [8, 9])
def test_the_forward_pass_is_the_one_written_out(residual: bool, training: bool, size: int) -> None:
    network = ResidualNetwork(Architecture(14, residual, width=4, channels=2, classes=5), seed=1).double()
    torch.manual_seed(0)
    for name, buffer in network.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    network.train(training)
    x = images(3, channels=2, size=size).double()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    expected = written_out(state, x, n=2, residual=residual, training=training)
    torch.testing.assert_close(network(x), expected, rtol=1e-9, atol=1e-9)


def test_the_shortcut_takes_every_second_pixel_and_appends_channels_of_zeros() -> None:
    network = ResidualNetwork(Architecture(8, width=2), seed=0)
    x = torch.arange(2 * 4 * 4.0).view(1, 2, 4, 4)
    short = block(network, 1).shortcut(x)
    assert short.shape == (1, 4, 2, 2)
    assert short[0, 0].tolist() == [[0, 2], [8, 10]]
    assert short[0, 1].tolist() == [[16, 18], [24, 26]]
    assert not short[0, 2:].any()
    assert block(network, 0).shortcut(x) is x


def test_with_residuals_of_zero_a_block_is_the_identity_and_a_plain_one_is_dead() -> None:
    """What section 1 argues from: the deeper network can represent the shallower one."""
    x = images(size=8)
    deep, flat = (ResidualNetwork(Architecture(depth, width=4), seed=0).eval() for depth in (20, 8))
    for number in range(9):
        torch.nn.init.zeros_(block(deep, number).second.norm.weight)
    # in all blocks but the first of a stage the residual is zero; the first ones, stem and head are the flat network's
    for place, first in enumerate(flat.blocks):
        deep.blocks[3 * place].load_state_dict(first.state_dict())
    deep.stem.load_state_dict(flat.stem.state_dict())
    deep.head.load_state_dict(flat.head.state_dict())
    torch.testing.assert_close(deep(x), flat(x))
    plain = ResidualNetwork(Architecture(20, residual=False, width=4), seed=0).eval()
    plain.load_state_dict(deep.state_dict())
    torch.nn.init.constant_(plain.head.bias, 0.5)
    assert torch.equal(plain(x), torch.full((4, 10), 0.5))
    assert not torch.allclose(deep(x), torch.zeros(4, 10))


def test_initial_weights_have_variance_two_over_fan_in_and_follow_the_seed_alone() -> None:
    before = torch.get_rng_state()
    network = ResidualNetwork(Architecture(8), seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    weight = block(network, 2).second.conv.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)
    again, other = ResidualNetwork(Architecture(8), seed=5), ResidualNetwork(Architecture(8), seed=6)
    for name, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(other.stem.conv.weight, network.stem.conv.weight)
    plain = ResidualNetwork(Architecture(8, residual=False), seed=5)
    assert torch.equal(plain.head.weight, network.head.weight)


@pytest.mark.parametrize("depth", [2, 18, 21, -4])
def test_a_depth_outside_the_family_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=rf"depth {depth}: expected 6n \+ 2 layers"):
        Architecture(depth)


@pytest.mark.parametrize("residual", [True, False])
def test_responses_are_what_hooks_on_the_normalisations_see(residual: bool) -> None:
    network = ResidualNetwork(Architecture(14, residual, width=4), seed=0)
    network(images(8))  # so that the running statistics are not those of the start
    seen: list[Tensor] = []
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    handles = [module.register_forward_hook(lambda *args: seen.append(args[2])) for module in norms]
    network.eval()(images())
    for handle in handles:
        handle.remove()
    network.train()
    state = copy.deepcopy(network.state_dict())
    found = response_deviations(network, images())
    assert torch.allclose(found, torch.stack([response.detach().std() for response in seen]))
    assert network.training
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_gradient_norms_are_those_of_a_backward_pass_and_of_the_formula() -> None:
    network = ResidualNetwork(Architecture(14, width=4), seed=0).double()
    batch = LabelledImages(images(8).double(), torch.arange(8) % 10)
    state = copy.deepcopy(network.state_dict())
    signals, weights = gradient_norms(network, batch)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())

    twin = copy.deepcopy(network)
    loss = functional.cross_entropy(twin(batch.images), batch.labels)
    loss.backward()  # type: ignore[no-untyped-call]
    expected = [module.weight.grad for module in twin.modules() if isinstance(module, torch.nn.Conv2d)]
    assert torch.allclose(weights, torch.stack([gradient.norm() for gradient in expected if gradient is not None]))

    # behind its last response the network is an addition, a relu, a mean and the head: that gradient by hand
    responses: list[Tensor] = []
    seen: list[Tensor] = []
    handle = twin.blocks[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    logits = twin(batch.images, responses)
    handle.remove()
    active = responses[-1] + seen[0] > 0
    wrongness = (torch.softmax(logits, 1) - functional.one_hot(batch.labels, 10)) / 8
    positions = active.shape[2] * active.shape[3]
    by_hand = (wrongness @ twin.head.weight)[:, :, None, None] * active / positions
    assert signals[-1].item() == pytest.approx(by_hand.norm().item())
