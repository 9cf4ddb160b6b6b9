"""The loss and gradient written out in numpy are those of PyTorch's autograd."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.rl import PPO, AdaptiveKL, Box, Clip, Discrete, FixedKL, MultiDiscrete, Settings, Unpenalised, fused
from training.rl.distributions import Distribution
from training.rl.minibatches import Minibatch
from training.rl.networks import MLP, Policy, Value
from training.rl.objectives import Objective
from training.rl.spaces import ActionSpace

ROWS = 96
SPACES: list[ActionSpace] = [Discrete(3), MultiDiscrete((2, 3)), Box((-1.0,) * 3, (1.0,) * 3)]
OBJECTIVES: list[Objective] = [Clip(0.1), Unpenalised(), FixedKL(2.0), AdaptiveKL()]


def parts(action: ActionSpace) -> dict[str, nn.Module]:
    generator = torch.Generator().manual_seed(1)
    made = {
        "policy": Policy((4, 16, 16), action, generator=generator),
        "value": Value((4, 16, 16), generator=generator),
    }
    with torch.no_grad():
        for module in made.values():
            for parameter in module.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return made


def minibatch(action: ActionSpace, policy: nn.Module) -> Minibatch:
    """Rows of a policy that is not far from this one, so that about half of them are clipped."""
    generator = torch.Generator().manual_seed(2)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    observations = normal(ROWS, 4)
    sizes = [] if isinstance(action, Box) else [action.n] if isinstance(action, Discrete) else list(action.sizes)
    actions = torch.stack([torch.randint(n, (ROWS,), generator=generator) for n in sizes] or [normal(ROWS)] * 3, dim=1)
    actions = actions.float()
    with torch.no_grad():
        now: Distribution = policy(observations)
        flat = now.flat() + 0.1 * normal(*now.flat().shape)
        if sizes:
            flat = torch.cat([part.log_softmax(1) for part in torch.split(flat, sizes, dim=1)], dim=1)
        old = now.like(flat)
        log_probs = old.log_prob(actions)
    return Minibatch(
        observations, actions, log_probs, normal(ROWS), normal(ROWS), normal(ROWS) * 0.3, old.flat().contiguous()
    )


def by_autograd(made: Mapping[str, nn.Module], batch: Minibatch, rule: fused.Rule) -> dict[str, Tensor]:
    """The loss as an equation over rows, from the distributions' own methods."""
    policy: Any = made["policy"](batch.observations)
    values = made["value"](batch.observations)
    ratio = (policy.log_prob(batch.actions) - batch.log_probs).exp()
    gain = ratio * batch.advantages
    if isinstance(rule.objective, Clip):
        gain = torch.min(gain, ratio.clamp(1 - rule.epsilon, 1 + rule.epsilon) * batch.advantages)
    errors = (values - batch.targets) ** 2
    if rule.clip_values is not None:
        held = torch.clamp(values, batch.values - rule.clip_values, batch.values + rule.clip_values)
        errors = torch.max(errors, (held - batch.targets) ** 2)
    terms = {"policy": -gain.mean(), "value": rule.value_coefficient * 0.5 * errors.mean()}
    if rule.entropy_coefficient:
        terms["entropy"] = -rule.entropy_coefficient * policy.entropy().mean()
    if rule.kl_coefficient:
        terms["kl"] = rule.kl_coefficient * policy.like(batch.old).kl(policy).mean()
    return terms


@pytest.mark.parametrize("action", SPACES)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("clip_values", [None, 0.2])
def test_values_and_gradients(action: ActionSpace, objective: Objective, clip_values: float | None) -> None:
    made = parts(action)
    batch = minibatch(action, made["policy"])
    penalty = 2.0 if isinstance(objective, FixedKL | AdaptiveKL) else 0.0
    rule = fused.Rule(objective, 0.1, clip_values, 0.7, 0.03, penalty)
    assert fused.applies(made, batch)
    ours, theirs = fused.terms(made, batch, rule), by_autograd(made, batch, rule)
    assert list(ours) == list(theirs)
    weights = [parameter for module in made.values() for parameter in module.parameters()]
    for name, term in ours.items():
        assert term.item() == pytest.approx(theirs[name].item(), rel=1e-5, abs=1e-6)
        # each term apart: the loop adds them up, and a caller may weigh them
        found = torch.autograd.grad(3.0 * term, weights, retain_graph=True)
        expected = torch.autograd.grad(3.0 * theirs[name], weights, retain_graph=True, allow_unused=True)
        for mine, other in zip(found, expected, strict=True):
            reference = torch.zeros_like(mine) if other is None else other
            assert torch.allclose(mine, reference, rtol=1e-4, atol=2e-6)
    clipped = ((made_ratio(made, batch) - 1).abs() > 0.1).float().mean().item()
    assert 0.2 < clipped < 0.95
    assert rule.noted["clip_fraction"] == pytest.approx(clipped, abs=0.02)
    ratio = made_ratio(made, batch)
    assert rule.noted["approx_kl"] == pytest.approx((ratio - 1 - ratio.log()).mean().item(), rel=1e-3, abs=1e-6)


def made_ratio(made: Mapping[str, nn.Module], batch: Minibatch) -> Tensor:
    with torch.no_grad():
        policy: Any = made["policy"](batch.observations)
        ratio: Tensor = (policy.log_prob(batch.actions) - batch.log_probs).exp()
    return ratio


def test_frozen_weights_get_no_gradient() -> None:
    made = parts(Discrete(3))
    made["policy"].requires_grad_(False)
    batch = minibatch(Discrete(3), made["policy"])
    terms = fused.terms(made, batch, fused.Rule(Clip(), 0.2, None, 0.5, 0.0, 0.0))
    sum(terms.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None for parameter in made["policy"].parameters())
    assert all(parameter.grad is not None for parameter in made["value"].parameters())


def test_what_it_does_not_cover() -> None:
    made = parts(Discrete(3))
    batch = minibatch(Discrete(3), made["policy"])
    generator = torch.Generator().manual_seed(0)
    assert not fused.applies(
        {**made, "encoder": MLP((4, 4), last_gain=None, orthogonal=True, generator=generator)}, batch
    )
    bound = Policy((4, 8), SPACES[2], state_independent_log_std=False, generator=generator)
    assert not fused.applies({**made, "policy": bound}, batch)
    assert not fused.applies({**made, "value": nn.Linear(4, 1)}, batch)
    with torch.autocast("cpu", torch.bfloat16):
        assert not fused.applies(made, batch)
    assert not fused.applies({name: module.double() for name, module in made.items()}, batch)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_task_gives_the_same_loss_either_way(objective: Objective, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.rl import agent, make_environments

    settings = Settings(total_steps=128, environments=2, horizon=64, minibatches=2, objective=objective)
    settings = replace(settings, entropy_coefficient=0.01)
    environments = make_environments("CartPole-v1", 2, seed=0)
    modules = agent(environments, settings, seed=0)
    task = PPO(environments, modules, settings, seed=0)
    batch = task.batch(0)
    fast = {name: term.item() for name, term in task.loss(modules, batch).items()}
    counted = task.statistics
    monkeypatch.setattr(fused, "applies", lambda parts, batch: False)
    slow = {name: term.item() for name, term in task.loss(modules, batch).items()}
    assert fast == pytest.approx(slow, rel=1e-5, abs=1e-7)
    assert task.statistics is not None
    assert counted is not None
    assert task.statistics.approx_kl == pytest.approx(counted.approx_kl, abs=1e-6)
