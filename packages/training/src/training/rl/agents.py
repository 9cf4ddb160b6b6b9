"""The modules of an agent for an environment, as the settings describe them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from training.rl.convolutional import FEATURES, NatureCNN
from training.rl.environments import Environments
from training.rl.memory import Memory
from training.rl.networks import MLP, Policy, Value
from training.rl.settings import Settings


def agent(environments: Environments, settings: Settings, *, seed: int) -> dict[str, nn.Module]:
    """Policy, value function and, with `shared_encoder`, the encoder in front of both; weights from `seed`.

    Raises:
        ValueError: if the network of the settings is not one for what the environments show.
    """
    _check_network(environments, settings)
    generator = torch.Generator().manual_seed(seed)
    sizes: tuple[int, ...] = (environments.observation_size, *settings.hidden)
    modules: dict[str, nn.Module] = {}
    if settings.network == "nature":
        frames, rows, columns = environments.observation_shape
        modules["encoder"] = NatureCNN(
            (frames, rows, columns), scale=settings.scale_images, orthogonal=settings.orthogonal, generator=generator
        )
        sizes = (FEATURES,)
    elif settings.shared_encoder:
        encoder = MLP(sizes, last_gain=None, orthogonal=settings.orthogonal, generator=generator)
        modules, sizes = {"encoder": encoder}, sizes[-1:]
    if settings.lstm is not None:
        modules["memory"] = Memory(sizes[-1], settings.lstm, orthogonal=settings.orthogonal, generator=generator)
        sizes = (settings.lstm,)
    modules["policy"] = Policy(
        sizes,
        environments.action,
        state_independent_log_std=settings.state_independent_log_std,
        orthogonal=settings.orthogonal,
        generator=generator,
    )
    modules["value"] = Value(sizes, orthogonal=settings.orthogonal, generator=generator)
    return modules


def check_agent(environments: Environments, modules: Mapping[str, nn.Module], settings: Settings) -> None:
    """Raises ValueError where environments or modules are not those that the settings describe."""
    _check_network(environments, settings)
    if environments.n != settings.environments:
        raise ValueError(
            f"PPO on {environments.id}: expected {settings.environments} environments (Settings.environments), got "
            f"{environments.n}; make as many"
        )
    expected = {"policy", "value"} | ({"encoder"} if settings.shared_encoder else set())
    expected |= set() if settings.lstm is None else {"memory"}
    if set(modules) != expected:
        raise ValueError(
            f"PPO on {environments.id}: expected modules {', '.join(sorted(expected))}, got "
            f"{', '.join(sorted(modules))}; take those of `agent`"
        )
    policy = modules["policy"]
    if not isinstance(policy, Policy) or policy.action != environments.action:
        found = policy.action if isinstance(policy, Policy) else type(policy).__name__
        raise ValueError(
            f"PPO on {environments.id}: expected a Policy for {environments.action}, got {found}; take that of `agent`"
        )


def _check_network(environments: Environments, settings: Settings) -> None:
    expected = "nature" if environments.images else "tanh"
    if settings.network != expected:
        kind = "images" if environments.images else "vectors"
        raise ValueError(
            f"agent for {environments.id}: expected the network {expected!r} for observations that are {kind} of shape "
            f"{environments.observation_shape}, got {settings.network!r}; set Settings.network"
        )
