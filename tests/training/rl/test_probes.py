"""Each probe is solved, and an agent that is broken in one place fails the probe that is about that place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from training.rl import MEMORY, PROBES, Probe, check_probe, check_probes
from training.rl import minibatches as made_of
from training.rl.advantages import generalised_advantages
from training.rl.probes import SETTINGS, ProbeEnvironments

CONSTANT, OBSERVATION, DISCOUNTING, POLICY, BOTH = PROBES
SHARED = replace(SETTINGS, shared_encoder=True, minibatches=2, learning_rate=6e-3, anneal_learning_rate=True)
REMEMBERING = replace(SHARED, lstm=16)


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_each_is_solved(probe: Probe) -> None:
    result = check_probe(probe, seed=3)
    assert result.solved, result


def test_all_in_order() -> None:
    results = check_probes(settings=replace(SETTINGS, total_steps=SETTINGS.batch))
    assert [result.name for result in results] == ["constant", "observation", "discounting", "policy", "both"]
    assert not any(result.solved for result in results)  # one rollout is not enough


def test_a_shared_encoder_solves_the_last() -> None:
    assert check_probe(BOTH, settings=replace(SETTINGS, shared_encoder=True, total_steps=3072)).solved


@pytest.mark.parametrize("probe", [OBSERVATION, DISCOUNTING, BOTH], ids=lambda probe: probe.name)
def test_they_are_solved_with_a_memory(probe: Probe) -> None:
    result = check_probe(probe, settings=REMEMBERING, seed=3)
    assert result.solved, result


def test_what_was_seen_at_first_is_known_with_a_memory_alone() -> None:
    result = check_probe(MEMORY, settings=replace(REMEMBERING, total_steps=6144))
    assert result.solved, result
    without = check_probe(MEMORY, settings=SHARED)
    chance, found = without.probabilities, without.values
    assert sum(chance.values()) == pytest.approx(1.0)  # at the last step all episodes look alike
    assert all(value == pytest.approx(0.0, abs=0.3) for _, value in found.values())


def test_no_value_loss_fails_the_first() -> None:
    assert not check_probe(CONSTANT, settings=replace(SETTINGS, value_coefficient=0.0)).solved


def test_wrong_discounting_fails_the_third_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    real = generalised_advantages
    monkeypatch.setattr(made_of, "generalised_advantages", lambda *a, gamma, **k: real(*a, gamma=1.0, **k))
    assert check_probe(OBSERVATION).solved
    assert not check_probe(DISCOUNTING).solved


def test_advantages_of_the_wrong_sign_fail_the_fourth_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    real = made_of.cut

    def turned(*args, **kwargs):  # type: ignore[no-untyped-def]
        return [batch._replace(advantages=-batch.advantages) for batch in real(*args, **kwargs)]

    monkeypatch.setattr("training.rl.ppo.cut", turned)
    assert check_probe(DISCOUNTING).solved
    assert not check_probe(POLICY).solved


def test_rows_that_do_not_belong_together_fail_the_last_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    real = made_of.cut

    def mixed(*args, **kwargs):  # type: ignore[no-untyped-def]
        generator = torch.Generator().manual_seed(0)
        batches = real(*args, **kwargs)
        return [
            b._replace(observations=b.observations[torch.randperm(len(b.actions), generator=generator)])
            for b in batches
        ]

    monkeypatch.setattr("training.rl.ppo.cut", mixed)
    assert check_probe(POLICY).solved
    assert not check_probe(BOTH).solved


def test_what_is_hidden() -> None:
    copies = ProbeEnvironments(MEMORY, 6, seed=0)
    first = copies.reset()[:, 0]
    assert set(first.tolist()) == {-1.0, 1.0}
    right, nothing = (first > 0).astype(np.int64), np.zeros(6, dtype=np.int64)
    for _ in range(3):
        step = copies.step(nothing)
        assert not step.observations.any()
        assert not step.rewards.any()
    last = copies.step(right)
    assert last.rewards.tolist() == [1.0] * 6
    assert last.terminated.all()
    assert last.observations.all()


def test_the_environments_themselves() -> None:
    copies = ProbeEnvironments(DISCOUNTING, 3, seed=0)
    assert copies.reset().tolist() == [[0.0]] * 3
    nothing = np.zeros(3, dtype=np.int64)
    middle, last = copies.step(nothing), copies.step(nothing)
    assert middle.observations.tolist() == [[1.0]] * 3
    assert middle.rewards.tolist() == [0.0] * 3
    assert not middle.terminated.any()
    assert last.observations.tolist() == [[0.0]] * 3
    assert last.rewards.tolist() == [1.0] * 3
    assert last.terminated.all()
    two = ProbeEnvironments(BOTH, 40, seed=0)
    signs = two.reset()[:, 0]
    assert set(signs.tolist()) == {-1.0, 1.0}
    right = (signs > 0).astype(np.int64)
    assert two.step(right).rewards.tolist() == [1.0] * 40
    saved = two.get_state()
    later = [two.step(right).rewards for _ in range(3)]
    two.set_state(saved)
    for before in later:
        np.testing.assert_array_equal(two.step(right).rewards, before)
