"""The memory is PyTorch's LSTMCell, step by step, with states that are forgotten where an episode begins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.rl.acting import Actor
from training.rl.memory import Memory, Sequences, features
from training.rl.minibatches import Minibatch, cut
from training.rl.networks import MLP, Policy
from training.rl.spaces import Discrete

ENVS, STEPS, INPUTS, UNITS = 3, 11, 4, 5


def made(seed: int = 0) -> Memory:
    """With biases and weights that make a difference."""
    generator = torch.Generator().manual_seed(seed)
    memory = Memory(INPUTS, UNITS, generator=generator)
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return memory


def cell_of(memory: Memory) -> nn.LSTMCell:
    cell = nn.LSTMCell(INPUTS, UNITS)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in memory.lstm.state_dict().items()})
    return cell


def step_by_step(cell: nn.LSTMCell, x: Tensor, states: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
    """One environment and one step after the other."""
    units, after = [], []
    for env in range(len(x)):
        h, c = states[env : env + 1, :UNITS], states[env : env + 1, UNITS:]
        for t in range(x.shape[1]):
            if begins[env, t]:
                h, c = torch.zeros(1, UNITS), torch.zeros(1, UNITS)
            h, c = cell(x[env, t : t + 1], (h, c))
            units.append(h)
        after.append(torch.cat([h, c], dim=1))
    return torch.cat(units).view(len(x), x.shape[1], UNITS), torch.cat(after)


def sequences(seed: int, share: float) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(ENVS, STEPS, INPUTS, generator=generator)
    return x, torch.randn(ENVS, 2 * UNITS, generator=generator), torch.rand(ENVS, STEPS, generator=generator) < share


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_units_and_gradients_are_those_of_single_steps(share: float) -> None:
    memory, (x, states, begins) = made(), sequences(1, share)
    cell = cell_of(memory)
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    ours = memory(inputs[0], states, begins)
    theirs, _ = step_by_step(cell, inputs[1], states, begins)
    assert torch.allclose(ours, theirs, atol=1e-6)
    weigh = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2))
    for units in (ours, theirs):
        (units * weigh).sum().backward()
    assert torch.allclose(inputs[0].grad, inputs[1].grad, atol=1e-5)  # type: ignore[arg-type]
    for one, other in zip(memory.parameters(), cell.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.allclose(one.grad, other.grad, atol=1e-5)


def test_one_step_gives_the_state_behind_it() -> None:
    memory, (x, states, _) = made(), sequences(3, 0.0)
    expected, after = step_by_step(cell_of(memory), x, states, torch.zeros(ENVS, STEPS))
    for t in range(STEPS):
        units, states = memory.step(x[:, t], states)
        assert torch.allclose(units, expected[:, t], atol=1e-6)
    assert torch.allclose(states, after, atol=1e-6)


def test_an_episode_does_not_see_the_one_before() -> None:
    memory, (x, states, begins) = made(), sequences(4, 0.0)
    begins[:, 6] = True
    other = x.clone()
    other[:, :6] += 1.0
    ours, theirs = memory(x, states, begins), memory(other, states, begins)
    assert torch.equal(ours[:, 6:], theirs[:, 6:])
    assert not torch.isclose(ours[:, :6], theirs[:, :6]).any()
    begins[:, 6] = False
    assert not torch.isclose(memory(x, states, begins)[:, 6], ours[:, 6]).any()


def test_weights_are_orthogonal_and_biases_zero() -> None:
    lstm: Any = Memory(64, 16, generator=torch.Generator().manual_seed(0)).lstm
    for weight, columns in ((lstm.weight_ih_l0, 64), (lstm.weight_hh_l0, 16)):
        assert torch.allclose(weight.T @ weight, torch.eye(columns), atol=1e-5)  # 64 rows: the four gates' units
    assert not lstm.bias_ih_l0.any()
    assert not lstm.bias_hh_l0.any()
    default = Memory(64, 16, orthogonal=False, generator=torch.Generator().manual_seed(0)).lstm
    for parameter in default.parameters():
        assert 0.2 < parameter.abs().max() <= 0.25  # 1 / sqrt(units)


def test_a_frozen_memory_is_differentiated_as_a_trained_one() -> None:
    memory = made().eval()
    assert not memory.training
    assert memory.lstm.training  # cuDNN differentiates an LSTM in this mode only


def actor() -> tuple[Actor, dict[str, nn.Module]]:
    generator = torch.Generator().manual_seed(5)
    modules: dict[str, nn.Module] = {
        "encoder": MLP((2, INPUTS), last_gain=None, orthogonal=True, generator=generator),
        "memory": made(),
        "policy": Policy((UNITS,), Discrete(3), generator=generator),
    }
    with torch.no_grad():
        modules["policy"].network.layers[0].weight.mul_(300)  # type: ignore[union-attr,index]
    return Actor(modules, Discrete(3)), modules


def test_an_actor_remembers_and_forgets() -> None:
    acting, modules = actor()
    rng, cell = np.random.default_rng(0), cell_of(modules["memory"])  # type: ignore[arg-type]
    observations = rng.normal(size=(20, 2, 2)).astype(np.float32)
    ended = rng.random((20, 2)) < 0.3
    acting.begin(2)
    assert not acting.states.any()
    h = c = torch.zeros(2, UNITS)
    seen = set()
    for t in range(20):
        with torch.no_grad():
            h, c = cell(modules["encoder"](torch.from_numpy(observations[t])), (h, c))
            expected = modules["policy"](h).log_probabilities.argmax(1)
        assert acting.best(observations[t]).tolist() == expected.tolist()
        np.testing.assert_allclose(acting.states, torch.cat([h, c], dim=1), atol=1e-6)
        acting.restart(ended[t])
        goes_on = torch.from_numpy(~ended[t]).float()[:, None]
        h, c = h * goes_on, c * goes_on
        seen |= set(expected.tolist())
    assert len(seen) > 1
    acting.begin(4)
    assert acting.states.shape == (4, 2 * UNITS)
    assert not acting.states.any()


def test_an_actor_without_memory_has_states_without_columns() -> None:
    policy = Policy((2, 4), Discrete(3), generator=torch.Generator().manual_seed(0))
    acting = Actor({"policy": policy}, Discrete(3))
    acting.begin(3)
    acting.restart(np.array([True, False, True]))
    assert acting.states.shape == (3, 0)


def test_minibatches_have_whole_sequences() -> None:
    envs, steps = 4, 3
    number = torch.arange(envs * steps, dtype=torch.float32)  # environment by environment
    column = number[:, None]
    states, begins = torch.arange(8.0).view(envs, 2), torch.rand(envs, steps) < 0.5
    rows = Minibatch(column, column, number, number, number, number, column, Sequences(states, begins))
    order = torch.tensor([2, 0, 3, 1])
    batches: Any = cut(rows, order, 2, normalise=False, with_old=False)
    assert [batch.values.tolist() for batch in batches] == [[6, 7, 8, 0, 1, 2], [9, 10, 11, 3, 4, 5]]
    assert [batch.observations[:, 0].tolist() for batch in batches] == [batch.values.tolist() for batch in batches]
    assert torch.equal(torch.cat([batch.sequences.states for batch in batches]), states[order])
    assert torch.equal(torch.cat([batch.sequences.begins for batch in batches]), begins[order])


def test_features_without_a_memory_are_the_encoders() -> None:
    _, modules = actor()
    x = torch.randn(6, 2)
    assert torch.equal(features({"encoder": modules["encoder"]}, x, None), modules["encoder"](x))
    assert torch.equal(features({}, x, None), x)
    images = torch.randint(0, 256, (1030, 2), dtype=torch.uint8)  # bytes go through in pieces, as numbers
    with torch.no_grad():
        found = features({"encoder": modules["encoder"]}, images, None)
        assert torch.allclose(found, modules["encoder"](images.float()), atol=1e-6)
