"""The stages of Schulman et al. 2017 with very few steps, on real environments."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from replications.proximal_policy_optimization import experiment, first_updates, setting, training_runs
from replications.proximal_policy_optimization.claims import CLAIMS
from replications.proximal_policy_optimization.drawing import curves
from replications.proximal_policy_optimization.figures import FIGURES
from replications.proximal_policy_optimization.scores import last_returns
from replications.proximal_policy_optimization.setting import (
    INVERTED_PENDULUM,
    REACHER,
    SEEDS,
    Sweep,
    first_code_units,
    units,
)

from reprise import Job, Result, Results
from reprise.claims import committed, evaluate
from reprise.paper import load
from reprise.plotting import house_style
from training.rl import PPO, Clip, Settings

from .ppo_runs import planned_frames, results, run, sweep, untrained

pytest.importorskip("mujoco")
ROOT = Path(__file__).resolve().parents[2]
PAPER = load(ROOT / "replications" / "proximal_policy_optimization" / "paper.toml")
OF_EACH_KIND = ("none", "clip-0.1", "clip-0.2", "clip-0.3", "adaptive-0.01", "fixed-1")
FEW = Sweep((INVERTED_PENDULUM, REACHER), OF_EACH_KIND, 256, 1.0, evaluation=2, untrained=2)


def few_steps(total_steps: int) -> Settings:
    return Settings(
        total_steps=total_steps,
        horizon=128,
        epochs=2,
        minibatches=2,
        normalise_observations=True,
        scale_rewards=True,
    )


def cartpole_few(steps: int = 1024) -> Settings:
    return Settings(total_steps=steps, environments=4, horizon=32, epochs=2, minibatches=2, learning_rate=1e-3)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for tier in ("tiny", "paper"):
        monkeypatch.setitem(setting.SWEEPS, tier, FEW)
    monkeypatch.setattr(setting, "mujoco_tasks", few_steps)
    monkeypatch.setattr(experiment, "cartpole_settings", cartpole_few)
    monkeypatch.setattr(experiment, "CARTPOLE_EVALUATION", 4)


def job(tier: str, unit: str, scratch: Path) -> Job:
    return Job(
        root=ROOT,
        tier=tier,
        seed=0,
        device="cpu",
        dtype="float32",
        models=(),
        inputs=Results(tier, 0, {}),
        one_unit=unit,
        scratch=scratch,
    )


@pytest.mark.usefixtures("small")
def test_every_stage_measure_and_figure_works(tmp_path: Path) -> None:
    names = {
        "probes": ("constant",),
        "cartpole": ("seed0", "seed1", "seed2"),
        "untrained": FEW.environments,
        "train": tuple(unit.name for unit in units("tiny")),
        "first_code": tuple(f"first-code.{unit.name}" for unit in first_code_units("tiny")),
        "first_update": ("seed0", "seed1"),
    }
    assert set(names) == {stage.name for stage in experiment.STAGES}
    done = {
        stage.name: {
            unit: stage.function(job("tiny", unit, tmp_path / stage.name / unit)) for unit in names[stage.name]
        }
        for stage in experiment.STAGES
    }
    of = Results("tiny", 0, done)
    rows = {row.claim: row for row in evaluate(PAPER, CLAIMS, of)}
    not_run = {claim for claim, row in rows.items() if row.verdict == "not run"}
    without_half_cheetah = {"half-cheetah-below-untrained", "clipping-above-none-half-cheetah"}
    assert not_run == without_half_cheetah | {f"first-code-{claim}" for claim in without_half_cheetah}
    assert rows["probes-solved"].verdict == "supported"
    assert rows["cartpole-solved"].verdict == "refuted"  # a thousand steps teach nothing
    with house_style():
        drawn = {name: draw(of) for name, draw in FIGURES.items()}
    assert all(figure is not None for figure in drawn.values())
    assert not list(tmp_path.rglob("*.partial"))


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """KilledError in the second third; what was logged and learnt is that of the run that was not."""
    settings = few_steps(1024)

    class KilledError(Exception):
        pass

    def kill(done: int, total: int) -> None:
        if done >= 640:
            raise KilledError

    def finish(folder: str, **more: Any) -> dict[str, np.ndarray]:
        made = training_runs.trained(INVERTED_PENDULUM, settings, 7, tmp_path / folder, checkpoint_every=2, **more)
        weights = {str(i): w.detach().numpy() for i, w in enumerate(made.task.modules["policy"].parameters())}
        return {**training_runs.stored(made, recent=1.0, episodes=3, seed=7), **weights}

    whole = finish("whole")
    with pytest.raises(KilledError):
        finish("killed", progress=kill)
    assert (tmp_path / "killed" / "run.pt").exists()
    again = finish("killed")
    assert set(again) == set(whole)
    for name, values in whole.items():
        np.testing.assert_array_equal(again[name], values, err_msg=name)


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    first, second = (
        training_runs.trained(INVERTED_PENDULUM, few_steps(256), seed, tmp_path / str(seed)) for seed in (0, 1)
    )
    assert first.task.episodes.returns[0] != second.task.episodes.returns[0] or not np.array_equal(
        first.log.column("kl"), second.log.column("kl")
    )


def test_a_loss_that_is_not_finite_ends_the_run_with_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = PPO.loss

    def breaking(self: PPO, parts: Any, batch: Any, /) -> dict[str, torch.Tensor]:
        terms = whole(self, parts, batch)
        return {name: term * (np.nan if self.environment_steps > 256 else 1.0) for name, term in terms.items()}

    monkeypatch.setattr(PPO, "loss", breaking)
    made = training_runs.trained(REACHER, few_steps(1024), 0, tmp_path)
    assert made.stopped_at == 384
    arrays = training_runs.stored(made, recent=1.0, episodes=1, seed=0)
    assert len(arrays["kl"]) == 2
    assert len(arrays["last_returns"]) == 384 // 50
    assert np.isnan(arrays["curve_return"][-1])


def test_the_curve_is_the_mean_of_the_episodes_that_ended() -> None:
    ends, means = training_runs.curve(np.array([1.0, 10.0, 11.0, 40.0]), np.array([2.0, 4.0, 6.0, 8.0]), 40, 4)
    assert ends.tolist() == [10, 20, 30, 40]
    np.testing.assert_array_equal(means, [3, 6, np.nan, 8])


def test_the_last_returns_are_the_tasks_own(tmp_path: Path) -> None:
    settings = dataclasses.replace(few_steps(7680), epochs=1, minibatches=1)
    made = training_runs.trained(REACHER, settings, 0, tmp_path)
    returns = np.asarray(made.task.episodes.returns)
    assert len(returns) == 153
    arrays = training_runs.stored(made, recent=1.0, episodes=1, seed=0)
    np.testing.assert_allclose(arrays["last_returns"], returns[-100:], rtol=1e-6)
    assert len(arrays["kl"]) == len(arrays["update_steps"]) == 60
    assert arrays["update_steps"][-1] == 7680


def test_statistics_are_those_of_complete_updates(tmp_path: Path) -> None:
    """The logged divergence is that of the policies before and after all epochs: here of the only update."""
    settings = few_steps(128)
    made = training_runs.trained(REACHER, settings, 3, tmp_path)
    along = first_updates.along_the_update(settings, 3, REACHER)
    at = int(np.abs(along["along"] - 1).argmin())
    assert made.log.column("kl")[0] == pytest.approx(along["kl"][at], rel=1e-3)  # float32 there
    assert along["kl"][at] > 0


def test_objectives_at_the_old_policy() -> None:
    """There all ratios are 1: both objectives are the mean advantage, which is 0, and the divergence is 0."""
    along = first_updates.along_the_update(
        dataclasses.replace(few_steps(128), epochs=4, learning_rate=3e-3), 0, REACHER
    )
    at = int(np.abs(along["along"]).argmin())
    assert along["along"][at] == pytest.approx(0, abs=1e-6)
    assert along["unclipped"][at] == pytest.approx(0, abs=1e-5)
    assert along["clipped"][at] == pytest.approx(0, abs=1e-5)
    assert along["kl"][at] == pytest.approx(0, abs=1e-6)
    assert (along["clipped"] <= along["unclipped"] + 1e-6).all()
    assert along["unclipped"][np.abs(along["along"] - 1).argmin()] > 0
    far = along["along"] > 1.5
    assert (along["clipped"][far] < along["unclipped"][far] - 1e-4).all()


def test_frames_are_of_one_episode(tmp_path: Path) -> None:
    made = training_runs.trained("CartPole-v1", cartpole_few(128), 0, tmp_path)
    cart = training_runs.frames(made.task, 0)
    assert cart["states"].shape[1] == 4
    assert np.abs(cart["states"][0]).max() < 0.06  # where episodes begin
    assert cart["frame_steps"][0] == 0
    assert (np.diff(cart["frame_steps"]) > 0).all()
    body = training_runs.frames(training_runs.prepared("HalfCheetah-v4", few_steps(128), 0), 0)
    assert body["segments"].shape == (training_runs.FRAMES, len(body["radii"]), 2, 2)


def test_curves_fill_what_is_missing() -> None:
    import matplotlib.pyplot as plt

    with house_style():
        figure, axes = plt.subplots()
        missing = [np.array([np.nan, 1.0, np.nan, 3.0]), np.array([2.0, 2.0, 2.0, np.nan])]
        curves(axes, np.arange(4.0), missing, colour="black", label="")
        (line,) = axes.lines
        assert np.asarray(line.get_ydata()).tolist() == [1.5, 1.5, 1.5, 2.5]
        plt.close(figure)


@pytest.mark.parametrize("tier", ["tiny", "paper"])
def test_figures_of_a_sweep_in_part(tier: str) -> None:
    """One seed of two objectives: the curves are drawn, the table is not."""
    made = sweep(
        tier,
        lambda unit: planned_frames(run(10.0)) if not unit.seed and unit.objective in ("clip-0.2", "none") else None,
    )
    of = results(tier, train=made, untrained=untrained(tier))
    with house_style():
        drawn = {name for name, draw in FIGURES.items() if draw(of) is not None}
    assert drawn == {"comparison_curves", "every_objective", "size_of_updates", "body_frames"}
    with house_style():
        assert not [name for name, draw in FIGURES.items() if draw(results(tier)) is not None]


def test_threads_are_given_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    with training_runs.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_the_committed_verdicts_are_those_of_the_claims() -> None:
    rows = committed(ROOT, PAPER, "tiny")
    assert [row.claim for row in rows] == [claim.id for claim in PAPER.claims if "tiny" in claim.accept]


def test_the_first_code_has_fewer_details() -> None:
    settings = setting.first_code_settings("tiny", "clip-0.2")
    assert settings == dataclasses.replace(
        setting.comparison_settings("tiny", "clip-0.2"),
        scale_rewards=False,
        clip_values=None,
        max_gradient_norm=float("inf"),
        clip_observations=5.0,
    )
    assert settings.objective == Clip(0.2)
    assert len(first_code_units("tiny")) == 3 * 2 * len(SEEDS)


def test_an_episode_must_have_ended() -> None:
    with pytest.raises(
        ValueError, match="no episode ended in the last 20% of 100 steps, of 1 that ended; train longer"
    ):
        last_returns(np.array([3.0]), np.array([1.0]), 100, 0.2)


@pytest.mark.usefixtures("small")
def test_results_are_of_the_run_that_they_name(tmp_path: Path) -> None:
    def made_of(name: str) -> Result:
        return experiment.train_unit("tiny", f"Reacher-v4.{name}", tmp_path / name, lambda done, total: None)

    made = made_of("none.seed1")
    assert not made["kl_coefficient"].any()
    assert (made_of("fixed-1.seed1")["kl_coefficient"] == 1).all()
    assert made.facts == {
        "environment": "Reacher-v4",
        "objective": "none",
        "seed": 1,
        "steps": 256,
        "episodes": 5,
        "stopped_at": None,
    }
    assert sum(array.nbytes for array in made.arrays.values()) < 30_000
