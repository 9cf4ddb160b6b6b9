"""The stage of He et al. 2016 in few steps: on digits, on small CIFAR-10 folders of both forms, killed and resumed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from replications.residual_networks import setting, training_stage
from replications.residual_networks.claims import CLAIMS
from replications.residual_networks.experiment import STAGES, TAKES_DATA
from replications.residual_networks.figures import FIGURES
from replications.residual_networks.setting import Scale
from tests.training.vision import cifar_folders

from reprise import Job, Result, Results
from reprise.claims import evaluate
from reprise.errors import UserError
from reprise.paper import load
from reprise.plotting import house_style
from training import Run
from training.vision import Recipe

ROOT = Path(__file__).resolve().parents[2]
PAPER = load(ROOT / "replications" / "residual_networks" / "paper.toml")
STEPS = 16


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same recipes, cut to 16 steps; the paper's network of 110 layers keeps its warm-up."""
    few = Recipe(STEPS, (8, 12), batch_size=8)
    monkeypatch.setattr(setting, "DIGITS", dataclasses.replace(few, augmentation=setting.DIGITS.augmentation))
    monkeypatch.setattr(
        setting, "recipe_for", lambda depth: dataclasses.replace(few, warm_up_error=0.8 if depth == 110 else None)
    )
    for tier, channels in (("tiny", 1), ("paper", 3)):
        monkeypatch.setitem(setting.SCALES, tier, Scale(2, channels, evaluations=4, checkpoints=5))


def train(tier: str, unit: str, scratch: Path, data: Path | None = None) -> Result:
    return training_stage.train_one(
        Job(
            root=ROOT,
            tier=tier,
            seed=0,
            device="cpu",
            dtype="float32",
            models=(),
            inputs=Results(tier, 0, {}),
            one_unit=unit,
            scratch=scratch,
            data=data,
        )
    )


def test_a_run_keeps_curves_gradients_and_responses(few_steps: None, tmp_path: Path) -> None:
    found = train("tiny", "residual-14-seed1", tmp_path)
    assert found["steps"].tolist() == [0, 4, 8, 12, 16]
    assert found["gradient_steps"].tolist() == [0, 1, 4, 8, 16]
    assert found["signal_gradients"].shape == found["weight_gradients"].shape == (5, 13)
    assert found["responses"].shape == (13,)
    assert found["training_error"].min() >= 0
    assert found["training_error"].max() <= 1
    assert np.isnan(found["training_loss"][0])
    assert np.isfinite(found["training_loss"][1:]).all()
    assert found.facts["parameters"] > 0
    assert all(array.dtype == np.float32 for array in found.arrays.values())


def test_a_run_follows_from_its_name(few_steps: None, tmp_path: Path) -> None:
    first, again, other, plain = (
        train("tiny", f"{name}", tmp_path / str(place))
        for place, name in enumerate(("residual-8-seed1", "residual-8-seed1", "residual-8-seed2", "plain-8-seed1"))
    )
    assert first.sha256() == again.sha256()
    assert not np.array_equal(first["training_loss"], other["training_loss"], equal_nan=True)
    assert not np.array_equal(first["training_loss"], plain["training_loss"], equal_nan=True)


@pytest.mark.parametrize("killed_after", [7, 12])
def test_a_killed_run_goes_on_to_the_same_bits(
    few_steps: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    whole = train("tiny", "residual-8-seed0", tmp_path / "whole")

    original = training_stage.Curves.__call__

    def kill(self: training_stage.Curves, run: Run) -> None:
        original(self, run)
        if run.step == killed_after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_stage.Curves, "__call__", kill)
        with pytest.raises(KeyboardInterrupt):
            train("tiny", "residual-8-seed0", tmp_path / "killed")
    assert (tmp_path / "killed" / "checkpoint.pt").exists()
    steps: list[int] = []

    def watch(self: training_stage.Curves, run: Run) -> None:
        steps.append(run.step)
        original(self, run)

    with monkeypatch.context() as patch:
        patch.setattr(training_stage.Curves, "__call__", watch)
        resumed = train("tiny", "residual-8-seed0", tmp_path / "killed")
    assert steps[0] == killed_after // 5 * 5 + 1, "it started again instead of going on"
    assert resumed.sha256() == whole.sha256()


@pytest.mark.parametrize("form", ["python", "binary"])
def test_the_paper_tier_runs_on_a_folder_of_either_form(few_steps: None, tmp_path: Path, form: str) -> None:
    """Two seeds of some networks, as the paper tier has them: every claim about them is judged, every figure drawn."""
    folder = cifar_folders.write(tmp_path / "data", form=form, n=4)
    units = [f"{kind}-20-seed{seed}" for kind in setting.KINDS for seed in (0, 1)] + ["residual-110-seed0"]
    assert set(units) <= set(STAGES[0].units_of("paper"))
    of = Results("paper", 0, {"train": {unit: train("paper", unit, tmp_path / unit, folder) for unit in units}})
    assert of.of("train")["residual-110-seed0"]["responses"].shape == (109,)
    rows = {row.claim: row.verdict for row in evaluate(PAPER, CLAIMS, of)}
    judged = {claim for claim, verdict in rows.items() if verdict != "not run"}
    assert judged >= {
        "residual-20-test-error",
        "plain-20-test-error",
        "shallow-twins-comparable",
        "responses-smaller-20",
    }
    assert rows["residual-56-test-error"] == "not run"
    with house_style():
        for name in ("error_by_depth", "learning_curves", "loss_curves", "responses"):
            assert FIGURES[name](of) is not None, name


def test_both_forms_give_the_same_run(few_steps: None, tmp_path: Path) -> None:
    first, second = (
        train("paper", "plain-20-seed0", tmp_path / form / "scratch", cifar_folders.write(tmp_path / form, form=form))
        for form in ("python", "binary")
    )
    assert first.sha256() == second.sha256()


def test_the_paper_tier_without_its_data_says_what_to_give(few_steps: None, tmp_path: Path) -> None:
    assert TAKES_DATA
    with pytest.raises(UserError, match="CIFAR-10, which the project does not hold: give its folder with --data"):
        train("paper", "plain-20-seed0", tmp_path)


def test_a_damaged_batch_is_named_to_the_user(few_steps: None, tmp_path: Path) -> None:
    folder = cifar_folders.write(tmp_path, form="binary")
    (folder / "data_batch_3.bin").write_bytes(b"\1" * 5000)
    with pytest.raises(UserError, match=r"data_batch_3\.bin: 5,000 bytes, expected a multiple of 3,073.*truncated"):
        train("paper", "plain-20-seed0", tmp_path, folder)


def test_the_number_of_threads_is_the_callers_again(few_steps: None, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    with training_stage.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
